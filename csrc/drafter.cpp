#include "drafter.h"

#include "errors.h"
#include "log.h"

namespace py = pybind11;

namespace nextn {

DrafterHandle::DrafterHandle(std::shared_ptr<ContextHandle> tgt, std::shared_ptr<ContextHandle> dft,
                             llama_nextn_drafter * made)
    : target(std::move(tgt)), draft(std::move(dft)), drafter(made) {}

DrafterHandle::~DrafterHandle() {
    if (!here()) {
        return;
    }
    const std::lock_guard target_lock(target->mutex);
    const std::lock_guard draft_lock(draft->mutex);
    llama_nextn_drafter_free(drafter);
    draft->has_drafter = false;
}

void Drafter::close() {
    drop_without_gil(take());
}

static void check_options(const DrafterOptions & options, int64_t n_vocab) {
    check_range("n_max", options.n_max, 1, 16);
    check_range("n_min", options.n_min, 0, options.n_max);
    check_range("n_vocab", options.n_vocab, -1, n_vocab);
    if (!(options.p_min >= 0.0 && options.p_min <= 1.0)) {
        throw py::value_error(strf("p_min must be a number from 0 to 1, not %g", options.p_min));
    }
    for (const int32_t id : options.vocab_ids) {
        check_range("vocab_ids", id, 0, n_vocab - 1);
    }
}

std::unique_ptr<Drafter> make_drafter(const Context & target, const Context & draft, const DrafterOptions & options) {
    const LockedContext tgt(target);
    const LockedContext dft(draft);
    check_options(options, tgt->model->n_vocab());

    llama_nextn_draft_params params = llama_nextn_draft_default_params();
    params.n_max = static_cast<int32_t>(options.n_max);
    params.n_min = static_cast<int32_t>(options.n_min);
    params.p_min = static_cast<float>(options.p_min);
    params.adaptive = options.adaptive;
    params.n_vocab = static_cast<int32_t>(options.n_vocab);
    params.vocab_ids = options.vocab_ids.data();
    params.n_vocab_ids = static_cast<int32_t>(options.vocab_ids.size());

    if (llama_get_nextn(tgt->ctx) != dft->ctx) {
        throw py::value_error("the two contexts are not paired; pair them first: target.pair(draft_context)");
    }
    if (dft->has_drafter) {
        throw py::value_error("the draft context has a drafter already; close that first");
    }
    if (llama_n_seq_max(dft->ctx) < llama_n_seq_max(tgt->ctx)) {
        throw py::value_error(strf("the draft context has n_seq_max=%u, the target %u; they must be equal",
                                   llama_n_seq_max(dft->ctx), llama_n_seq_max(tgt->ctx)));
    }
    dft->begin_compute(); // its rows change their meaning
    const LogCapture log;
    llama_nextn_drafter * drafter = llama_nextn_drafter_init(tgt->ctx, dft->ctx, params);
    if (!drafter) {
        check_workers(log.reason());
        throw Error(ErrorKind::ContextCreate, "the drafter could not be made: " + log.reason());
    }
    dft->has_drafter = true;
    return std::make_unique<Drafter>(std::make_shared<DrafterHandle>(tgt.shared(), dft.shared(), drafter));
}

static std::unique_lock<std::mutex> lock_open(const std::shared_ptr<ContextHandle> & context, const char * what) {
    std::unique_lock lock(context->mutex);
    if (context->closed) {
        throw Error(ErrorKind::Closed, std::string(what) + " of this drafter is closed");
    }
    return lock;
}

LockedDrafter::LockedDrafter(const Drafter & drafter)
    : handle(drafter.get()), target_lock(lock_open(handle->target, "the target")),
      draft_lock(lock_open(handle->draft, "the draft context")) {}

} // namespace nextn
