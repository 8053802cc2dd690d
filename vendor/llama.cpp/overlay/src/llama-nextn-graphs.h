#pragma once

#include "llama-graph.h"
#include "llama-nextn-workspace.h"

#include "ggml-cpp.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

struct llama_context;

// Keeps the allocated graph of each narrow batch width.
//
// A context keeps one graph and rebuilds it when the shape of the batch changes. Speculation changes the shape every
// round, and for small models building costs as much as decoding a token. So each narrow shape gets a scheduler and a
// graph of its own, and the context's members are exchanged with them before a ubatch is processed. Their work space on
// the CPU is one memory.
class llama_nextn_graphs {
public:
    // Make the graph of this shape the context's current one. Wide batches share the context's own graph.
    void select(llama_context & ctx, const llama_ubatch & ubatch, uint32_t n_outputs);

    // Give the context its own graph back and free the others: the memory or the options of the graph changed.
    void clear(llama_context & ctx);

    // Bytes of compute buffers on this backend, of all graphs of the context.
    size_t compute_size(const llama_context & ctx, ggml_backend_t backend) const;

private:
    struct shape {
        uint32_t n_tokens  = 0; // 0: the context's own graph
        uint32_t n_outputs = 0;
        uint32_t n_seqs    = 0;
        bool     padded    = false;
        uint64_t seqs      = 0; // a graph is made for certain sequences: their first 64 as bits

        bool operator==(const shape & other) const {
            return n_tokens == other.n_tokens && n_outputs == other.n_outputs && n_seqs == other.n_seqs &&
                   padded == other.padded && seqs == other.seqs;
        }

        bool operator!=(const shape & other) const { return !(*this == other); }
    };

    struct slot {
        shape    key;
        uint64_t last_used = 0;

        ggml_backend_sched_ptr              sched;
        std::array<llm_graph_result_ptr, 2> results;
        llm_graph_result *                  active = nullptr;
    };

    slot & find_or_make(llama_context & ctx, const shape & key);
    void   make_result(llama_context & ctx, slot & of);

    ggml_backend_sched_t make_scheduler(llama_context & ctx);

    size_t own_size(ggml_backend_sched_t sched, ggml_backend_t backend) const; // bytes that it does not share
    size_t kept_size(const llama_context & ctx) const; // the same of those that are not current, on all backends

    std::vector<slot>::iterator oldest();

    static uint32_t max_nodes(const llama_context & ctx);

    void exchange(llama_context & ctx, slot & other);

    std::optional<llama_nextn_workspace> workspace;

    shape             current;
    uint64_t          clock = 0;
    std::vector<slot> slots; // those that are not current
};
