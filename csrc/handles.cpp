#include "handles.h"

#include "drafter.h"
#include "errors.h"

#include <optional>
#include <set>

namespace py = pybind11;

namespace nextn {

// Guards the pairing of contexts, and frees paired ones one at a time.
static std::mutex pairing;

// The contexts of this process; never destroyed, because the interpreter may exit with live objects.
struct Registry {
    std::mutex mutex;
    std::set<ContextHandle *> contexts;
};

static Registry & registry() {
    static auto * instance = new Registry;
    return *instance;
}

void abort_all_contexts() {
    const std::lock_guard lock(registry().mutex);
    for (ContextHandle * context : registry().contexts) {
        context->abort_requested = true;
    }
}

//
// handles
//

ModelHandle::ModelHandle(llama_model * loaded, std::string file)
    : model(loaded), vocab(llama_model_get_vocab(loaded)), path(std::move(file)) {}

ModelHandle::~ModelHandle() {
    if (here()) {
        llama_model_free(model);
    }
}

void check_tokens(const ModelHandle & model, const std::vector<int32_t> & tokens) {
    const int64_t n_vocab = model.n_vocab();
    for (size_t i = 0; i < tokens.size(); ++i) {
        if (tokens[i] < 0 || tokens[i] >= n_vocab) {
            check_range(strf("tokens[%zu]", i).c_str(), tokens[i], 0, n_vocab - 1);
        }
    }
}

ContextHandle::ContextHandle(llama_context * made, std::shared_ptr<ModelHandle> over,
                             const llama_context_params & params)
    : ctx(made), model(std::move(over)), is_draft(params.nextn_draft),
      is_recurrent(!is_draft && (llama_model_is_recurrent(model->model) || llama_model_is_hybrid(model->model))) {
    llama_set_abort_callback(ctx, should_abort, this);
    const std::lock_guard lock(registry().mutex);
    registry().contexts.insert(this);
}

ContextHandle::~ContextHandle() {
    if (!here()) {
        return;
    }
    {
        const std::lock_guard lock(registry().mutex);
        registry().contexts.erase(this);
    }
    // freeing unpairs inside the engine, which touches the partner: not while it decodes
    std::shared_ptr<ContextHandle> other; // freed after the locks, if this is its last use
    const std::lock_guard lock(pairing);
    other = partner.lock();
    std::unique_lock<std::mutex> other_lock;
    if (other) {
        other_lock = std::unique_lock(other->mutex);
        other->partner.reset();
    }
    llama_free(ctx);
}

void ContextHandle::begin_compute() {
    if (!viewed.expired()) {
        throw Error(ErrorKind::Nextn,
                    "a view of this context's rows is alive, and a decode would move them; drop the view "
                    "(del), or take a copy with logits(), hidden() or embeddings_pre_norm()");
    }
    n_outputs = n_hidden = n_pre_norm = 0;
    abort_requested = false;
    interrupted = nullptr;
}

void ContextHandle::export_hidden() {
    if (!hidden_on) {
        llama_set_nextn_hidden(ctx, true);
        hidden_on = true;
        n_hidden = 0;
    }
}

bool ContextHandle::should_abort(void * self) {
    auto * context = static_cast<ContextHandle *>(self);
    if (context->abort_requested || context->halted || left_behind()) {
        return true;
    }
    if (!context->interrupted) {
        context->interrupted = run_signal_handlers();
    }
    return context->interrupted != nullptr;
}

//
// references
//

template <class Handle>
std::shared_ptr<Handle> Closable<Handle>::get() const {
    const auto current = std::atomic_load(&handle);
    if (!current) {
        throw Error(ErrorKind::Closed, std::string(what) + " is closed");
    }
    current->check();
    return current;
}

template class Closable<ModelHandle>;
template class Closable<ContextHandle>;
template class Closable<DrafterHandle>;

// Releases the GIL when this thread holds it.
struct WithoutGil {
    WithoutGil() {
        if (PyGILState_Check()) {
            nogil.emplace();
        }
    }

    std::optional<ReleaseGil> nogil;
};

// Whether an engine object has to stay where it is: the process ends, or it belongs to the parent process.
static bool must_leak(const ProcessBound & owner) {
    return left_behind() || !owner.here();
}

template <class Handle>
void drop_without_gil(std::shared_ptr<Handle> handle) {
    if (!handle) {
        return;
    }
    if (must_leak(*handle)) {
        new std::shared_ptr<Handle>(std::move(handle));
        return;
    }
    const WithoutGil nogil;
    handle.reset();
}

template void drop_without_gil(std::shared_ptr<ModelHandle> handle);
template void drop_without_gil(std::shared_ptr<ContextHandle> handle);
template void drop_without_gil(std::shared_ptr<DrafterHandle> handle);

void Model::close() {
    drop_without_gil(take());
}

void Context::close() {
    auto closing = take();
    if (closing && !must_leak(*closing)) {
        const WithoutGil nogil;
        const std::lock_guard lock(closing->mutex); // waits for a running decode
        closing->closed = true;
    }
    drop_without_gil(std::move(closing));
}

LockedContext::LockedContext(const Context & context) : handle(context.get()), lock(handle->mutex) {
    if (handle->closed) {
        throw Error(ErrorKind::Closed, "the context is closed");
    }
}

//
// pairs
//

static void check_fit(const ContextHandle & target, const ContextHandle & draft) {
    if (target.is_draft) {
        throw py::value_error("pair() is a method of the target; this context is a draft context");
    }
    if (!draft.is_draft) {
        throw py::value_error("draft_context is no draft context; make it with nextn_draft=True");
    }
    const ModelHandle & a = *target.model;
    const ModelHandle & b = *draft.model;
    if (a.n_embd() != b.n_embd() || a.n_vocab() != b.n_vocab()) {
        throw py::value_error(
            strf("draft_context does not fit: its hidden rows are %lld wide and its vocabulary has %lld "
                 "tokens, the target's are %lld and %lld",
                 (long long) b.n_embd(), (long long) b.n_vocab(), (long long) a.n_embd(), (long long) a.n_vocab()));
    }
}

static std::unique_lock<std::mutex> lock_open(const std::shared_ptr<ContextHandle> & handle, const char * what) {
    std::unique_lock lock(handle->mutex);
    if (handle->closed) {
        throw Error(ErrorKind::Closed, std::string(what) + " is closed");
    }
    return lock;
}

void unpair_context(const Context & target) {
    const std::shared_ptr<ContextHandle> tgt = target.get();
    std::shared_ptr<ContextHandle> dft; // outlives the locks
    const std::lock_guard pair_lock(pairing);
    const auto tgt_lock = lock_open(tgt, "the context");
    dft = tgt->partner.lock();
    if (!dft || tgt->is_draft) {
        return;
    }
    const std::lock_guard dft_lock(dft->mutex);
    llama_set_nextn(tgt->ctx, nullptr);
    tgt->partner.reset();
    dft->partner.reset();
}

void pair_contexts(const Context & target, const Context & draft) {
    const std::shared_ptr<ContextHandle> tgt = target.get();
    const std::shared_ptr<ContextHandle> dft = draft.get();
    if (tgt == dft) {
        throw py::value_error("draft_context is this context itself");
    }
    if (tgt->partner.lock() != dft) {
        unpair_context(target);
    }
    const std::lock_guard pair_lock(pairing);
    const auto tgt_lock = lock_open(tgt, "the context");
    const auto dft_lock = lock_open(dft, "draft_context");
    check_fit(*tgt, *dft);
    if (!llama_set_nextn(tgt->ctx, dft->ctx)) {
        throw py::value_error("draft_context is paired with another target; end that pairing first: target.pair(None)");
    }
    tgt->export_hidden(); // a target whose own file has no head feeds one all the same
    tgt->partner = dft;
    dft->partner = tgt;
}

void LockedPartner::acquire(const ContextHandle & target) {
    handle = target.partner.lock();
    if (handle) {
        lock = std::unique_lock(handle->mutex);
    }
}

} // namespace nextn
