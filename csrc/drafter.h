#pragma once

// The engine's drafter over a pair of contexts.

#include "casters.h"
#include "handles.h"

#include <memory>
#include <string>
#include <variant>
#include <vector>

namespace nextn {

// Keeps both contexts in memory.
class DrafterHandle : public ProcessBound {
  public:
    DrafterHandle(std::shared_ptr<ContextHandle> tgt, std::shared_ptr<ContextHandle> dft, llama_nextn_drafter * made);
    ~DrafterHandle();

    const std::shared_ptr<ContextHandle> target;
    const std::shared_ptr<ContextHandle> draft;
    llama_nextn_drafter * const drafter;
};

class Drafter : public Closable<DrafterHandle> {
  public:
    explicit Drafter(std::shared_ptr<DrafterHandle> owned) : Closable("the drafter", std::move(owned)) {}
    ~Drafter() { close(); }
    void close();
};

struct DrafterOptions {
    int64_t n_max;
    int64_t n_min;
    double p_min;
    bool adaptive;
    int64_t n_vocab;                // 0: chosen and adapted, -1: all
    std::vector<int32_t> vocab_ids; // instead of n_vocab, unless empty
};

std::unique_ptr<Drafter> make_drafter(const Context & target, const Context & draft, const DrafterOptions & options);

// A drafter in use, both of its contexts locked. Throws ClosedError when one of the three is closed.
class LockedDrafter {
  public:
    explicit LockedDrafter(const Drafter & drafter);

    DrafterHandle * operator->() const { return handle.get(); }

  private:
    const std::shared_ptr<DrafterHandle> handle; // outlives the locks
    const std::unique_lock<std::mutex> target_lock;
    const std::unique_lock<std::mutex> draft_lock;
};

} // namespace nextn
