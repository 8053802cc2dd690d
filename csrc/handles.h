#pragma once

// Owners of the engine's objects. A Context holds its Model's native part, views hold their Context's, so the engine
// frees nothing that is in use. All of it works without the GIL.
//
// Locks are taken without the GIL only, and in this order: pairing, a target's, its draft context's.

#include "process.h"

#include "llama-nextn.h"
#include "llama.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace nextn {

// A loaded model; immutable, so any thread may use it.
class ModelHandle : public ProcessBound {
  public:
    ModelHandle(llama_model * loaded, std::string file);
    ~ModelHandle();

    llama_model * const model;
    const llama_vocab * const vocab;
    const std::string path;

    int64_t n_embd() const { return llama_model_n_embd_out(model); } // width of a hidden row
    int64_t n_vocab() const { return llama_vocab_n_tokens(vocab); }
};

// Throws ValueError unless every token is in the vocabulary.
void check_tokens(const ModelHandle & model, const std::vector<int32_t> & tokens);

// An engine context and what the bindings know about its last decode.
class ContextHandle : public ProcessBound {
  public:
    ContextHandle(llama_context * made, std::shared_ptr<ModelHandle> over, const llama_context_params & params);
    ~ContextHandle();

    llama_context * const ctx;
    const std::shared_ptr<ModelHandle> model;
    const bool is_draft;
    const bool is_recurrent; // some of its layers keep a recurrent state

    // Held during every use of ctx and of the fields below.
    std::mutex mutex;

    bool closed = false;
    int64_t n_outputs = 0;  // rows of logits of the last decode
    int64_t n_hidden = 0;   // hidden rows of the last decode
    int64_t n_pre_norm = 0; // rows before the final norm of the last decode
    bool hidden_on = false;
    bool pre_norm_on = false;
    bool argmax_on = false;
    bool keep_logits = true;
    bool has_logits = false; // of the last decode
    bool has_argmax = false;
    bool has_drafter = false;                 // a drafter computes on it, in its own way
    std::weak_ptr<ContextHandle> partner;     // also guarded by the pairing lock
    std::weak_ptr<ContextHandle> viewed;      // alive while a view is
    std::shared_ptr<void> keep;               // what the engine context points to
    std::exception_ptr interrupted = nullptr; // what a signal handler raised during the decode

    std::atomic<bool> abort_requested{false}; // of the decode that runs
    std::atomic<bool> halted{false};          // of every decode, until it is taken back

    // Before computing, whichever call does it: the rows of the last decode are gone from here on. Throws NextnError,
    // and nothing is changed, while a view of them is alive.
    void begin_compute();

    // Switch the export of the hidden rows on.
    void export_hidden();

  private:
    static bool should_abort(void * self);
};

// What the Python objects hold: a reference that close() takes away.
template <class Handle>
class Closable {
  public:
    Closable(const char * name, std::shared_ptr<Handle> owned) : what(name), handle(std::move(owned)) {}

    // The handle; throws ClosedError after close(), NextnError in a forked child.
    std::shared_ptr<Handle> get() const;
    bool closed() const { return !std::atomic_load(&handle); }
    std::shared_ptr<Handle> take() { return std::atomic_exchange(&handle, std::shared_ptr<Handle>()); }

  private:
    const char * what;
    std::shared_ptr<Handle> handle;
};

class Model : public Closable<ModelHandle> {
  public:
    explicit Model(std::shared_ptr<ModelHandle> owned) : Closable("the model", std::move(owned)) {}
    ~Model() { close(); }
    void close();
};

class Context : public Closable<ContextHandle> {
  public:
    explicit Context(std::shared_ptr<ContextHandle> owned) : Closable("the context", std::move(owned)) {}
    ~Context() { close(); }
    void close();
};

// A context in use: its handle, locked. Throws ClosedError when another thread closed it meanwhile.
class LockedContext {
  public:
    explicit LockedContext(const Context & context);

    ContextHandle * operator->() const { return handle.get(); }
    ContextHandle & operator*() const { return *handle; }
    const std::shared_ptr<ContextHandle> & shared() const { return handle; }

  private:
    const std::shared_ptr<ContextHandle> handle; // outlives the lock
    const std::unique_lock<std::mutex> lock;
};

// Pair a target with its draft context. Throws ValueError when they do not fit.
void pair_contexts(const Context & target, const Context & draft);

// End the pairing of a target, if there is one.
void unpair_context(const Context & target);

// The paired draft context of a target, locked too. Declared before the target's LockedContext: should it be the last
// use of the draft context, that is freed after the target is unlocked.
class LockedPartner {
  public:
    void acquire(const ContextHandle & target);

  private:
    std::shared_ptr<ContextHandle> handle;
    std::unique_lock<std::mutex> lock;
};

// Let go of a handle, which may free it: without the GIL, and not at all in a forked child or in a thread that an
// exiting interpreter left behind.
template <class Handle>
void drop_without_gil(std::shared_ptr<Handle> handle);

// Make every running decode of this process stop.
void abort_all_contexts();

} // namespace nextn
