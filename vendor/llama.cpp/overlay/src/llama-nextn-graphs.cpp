#include "llama-nextn-graphs.h"

#include "llama-context.h"
#include "llama-model.h"

#include <algorithm>
#include <utility>

static constexpr uint32_t max_narrow_tokens = 36; // of a round; other batches that are this short are pieces of prompts
static constexpr uint32_t max_other_tokens  = 17;
static constexpr size_t   max_slots         = 32; // widths 1 to 9 of a target, with room for several sequences

// Of the work space of those kept. With a vocabulary of 248,320 a graph takes about a megabyte for each row, so this is
// room for all widths of a round of four sequences.
static constexpr size_t max_bytes = (size_t) 256 << 20;

static bool is_narrow(const llama_ubatch & ubatch, uint32_t n_outputs) {
    return ubatch.n_tokens <= (n_outputs == ubatch.n_tokens ? max_narrow_tokens : max_other_tokens);
}

void llama_nextn_graphs::select(llama_context & ctx, const llama_ubatch & ubatch, uint32_t n_outputs) {
    const bool narrow = is_narrow(ubatch, n_outputs) && !ctx.cparams.pipeline_parallel && !ctx.cparams.training;
    shape      key;
    if (narrow) {
        key = {ubatch.n_tokens, n_outputs, ubatch.n_seqs, ctx.cparams.nextn.ends != nullptr, 0};
        for (uint32_t s = 0; s < ubatch.n_seqs_unq; ++s) {
            key.seqs |= (uint64_t) 1 << (ubatch.seq_id_unq[s] % 64);
        }
    }
    clock++;
    if (key != current) {
        exchange(ctx, find_or_make(ctx, key));
    }
}

void llama_nextn_graphs::clear(llama_context & ctx) {
    if (current != shape{}) {
        exchange(ctx, find_or_make(ctx, shape{}));
    }
    slots.clear();
    workspace.reset();
}

size_t llama_nextn_graphs::compute_size(const llama_context & ctx, ggml_backend_t backend) const {
    size_t size = own_size(ctx.sched.get(), backend);
    for (const auto & slot : slots) {
        size += own_size(slot.sched.get(), backend);
    }
    if (workspace && ggml_backend_dev_type(ggml_backend_get_device(backend)) == GGML_BACKEND_DEVICE_TYPE_CPU) {
        size += workspace->size();
    }
    return size;
}

llama_nextn_graphs::slot & llama_nextn_graphs::find_or_make(llama_context & ctx, const shape & key) {
    auto it = std::find_if(slots.begin(), slots.end(), [&](const slot & s) { return s.key == key; });
    if (it != slots.end()) {
        return *it;
    }
    while (kept_size(ctx) > max_bytes && oldest()->key != shape{}) {
        ggml_backend_sched_synchronize(oldest()->sched.get());
        slots.erase(oldest());
    }
    if (slots.size() >= max_slots) {
        // its scheduler is as good as a new one, whose memory has to be cleared
        const auto evicted = oldest();
        evicted->key       = key;
        make_result(ctx, *evicted);
        return *evicted;
    }
    slot made;
    made.key = key;
    make_result(ctx, made);
    made.sched.reset(make_scheduler(ctx));
    slots.push_back(std::move(made));
    return slots.back();
}

// The context's own one is never the oldest unless there is no other.
std::vector<llama_nextn_graphs::slot>::iterator llama_nextn_graphs::oldest() {
    return std::min_element(slots.begin(), slots.end(), [](const slot & a, const slot & b) {
        const bool a_own = a.key == shape{};
        const bool b_own = b.key == shape{};
        return a_own != b_own ? b_own : a.last_used < b.last_used;
    });
}

size_t llama_nextn_graphs::own_size(ggml_backend_sched_t sched, ggml_backend_t backend) const {
    const size_t size   = ggml_backend_sched_get_buffer_size(sched, backend);
    const bool   shares = workspace && ggml_backend_sched_get_buffer_type(sched, backend) == workspace->type();
    return shares && workspace->fits(size) ? 0 : size;
}

size_t llama_nextn_graphs::kept_size(const llama_context & ctx) const {
    size_t size = 0;
    for (const auto & slot : slots) {
        for (size_t i = 0; i < ctx.backend_ptrs.size() && slot.key != shape{}; ++i) {
            size += own_size(slot.sched.get(), ctx.backend_ptrs[i]);
        }
    }
    return size;
}

// A narrow graph needs no more than the context's own one, which was reserved for the widest batch.
ggml_backend_sched_t llama_nextn_graphs::make_scheduler(llama_context & ctx) {
    auto types = ctx.backend_buft;
    for (size_t i = 0; i < types.size(); ++i) {
        if (types[i] == ggml_backend_cpu_buffer_type()) {
            if (!workspace) {
                workspace.emplace(ggml_backend_sched_get_buffer_size(ctx.sched.get(), ctx.backend_ptrs[i]));
            }
            types[i] = workspace->type();
        }
    }
    return ggml_backend_sched_new(ctx.backend_ptrs.data(), types.data(), (int) types.size(), max_nodes(ctx),
                                  /*parallel =*/false, ctx.cparams.op_offload);
}

void llama_nextn_graphs::make_result(llama_context & ctx, slot & of) {
    auto & result = of.results[of.key.n_outputs > 0];
    if (!result) {
        result.reset(new llm_graph_result(max_nodes(ctx)));
    }
}

// Room for a narrow graph, which has about as many nodes as the one reserved for wide batches, with padding some more.
// The room of the context's own is megabytes, which have to be cleared: to make a graph took half as long again.
uint32_t llama_nextn_graphs::max_nodes(const llama_context & ctx) {
    static constexpr size_t others = 256; // inputs and the like

    const size_t most     = ctx.graph_max_nodes(max_narrow_tokens);
    auto *       reserved = ctx.get_gf_res_reserve();
    if (!reserved || !reserved->get_gf()) {
        return (uint32_t) most;
    }
    const size_t n_nodes = ggml_graph_n_nodes(reserved->get_gf());
    return (uint32_t) std::min(most, 2 * n_nodes + ctx.model.n_tensors() + others);
}

void llama_nextn_graphs::exchange(llama_context & ctx, slot & other) {
    std::swap(ctx.sched, other.sched);
    std::swap(ctx.gf_res_prev, other.results);
    std::swap(ctx.gf_res_prev_active, other.active);
    std::swap(current, other.key);
    other.last_used = clock;
}
