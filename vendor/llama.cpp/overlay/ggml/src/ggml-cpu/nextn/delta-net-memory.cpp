#include "delta-net-memory.h"

#include "narrow-kernel.h"

#include "ggml-cpu-impl.h"

#include <algorithm>

namespace nextn {

copied_delta_net::copied_delta_net(const ggml_cgraph * graph, int i_net)
    : graph(graph), net(graph->nodes[i_net]), i_copy(find_copy(i_net)) {
    if (i_copy >= 0 && !only_the_copy_reads_states(i_net)) {
        i_copy = -1;
    }
}

int64_t copied_delta_net::n_state() const {
    return net->src[5]->ne[0] * net->src[5]->ne[1] * net->src[5]->ne[2];
}

const char * copied_delta_net::states() const {
    return (const char *) net->data + ggml_nelements(net->src[2]) * sizeof(float);
}

// The copy follows behind nothing but views: [state, sequences, snapshots] of F32.
int copied_delta_net::find_copy(int i) const {
    for (++i; i < graph->n_nodes && graph->nodes[i]->op == GGML_OP_VIEW; ++i) {
    }
    if (i == graph->n_nodes || graph->nodes[i]->op != GGML_OP_CPY) {
        return -1;
    }
    const ggml_tensor * copy = graph->nodes[i];
    const ggml_tensor * from = copy->src[0];
    const bool          same = from->op == GGML_OP_VIEW && from->src[0] == net && from->data == states() &&
                               from->type == GGML_TYPE_F32 && ggml_is_contiguous(from);
    const bool rows = copy->type == GGML_TYPE_F32 && copy->nb[0] == sizeof(float) && copy->ne[0] == n_state() &&
                      copy->ne[1] == net->src[5]->ne[3] && copy->ne[3] == 1;
    return same && rows ? i : -1;
}

// The other user of the result must be a view of the outputs, soon after.
bool copied_delta_net::only_the_copy_reads_states(int i) const {
    const ggml_tensor * from   = graph->nodes[i_copy]->src[0];
    const int           i_from = std::find(graph->nodes + i, graph->nodes + i_copy, from) - graph->nodes;
    if (i_from == i_copy || ggml_node_get_use_count(graph, i_from) != 1 || ggml_node_get_use_count(graph, i) != 2) {
        return false;
    }
    for (int k = i + 1; k < std::min(i_copy + 16, graph->n_nodes); ++k) {
        const ggml_tensor * view = graph->nodes[k];
        if (view != from && view->src[0] == net) {
            return view->op == GGML_OP_VIEW && (const char *) view->data + ggml_nbytes(view) <= states();
        }
    }
    return false;
}

static constexpr int max_distance = 64; // nodes between the two

gathered_states::gathered_states(const ggml_cgraph * graph, int i_net)
    : graph(graph), net(graph->nodes[i_net]), i_gather(find_gather(i_net)) {
    if (i_gather >= 0 && is_written_between(i_gather, i_net)) {
        i_gather = -1;
    }
}

int gathered_states::find_net(const ggml_cgraph * graph, int i) {
    for (int k = i + 1; k < std::min(i + max_distance, graph->n_nodes); ++k) {
        if (graph->nodes[k]->op == GGML_OP_GATED_DELTA_NET) {
            return k;
        }
    }
    return -1;
}

void gathered_states::leave_numbers() const {
    const ggml_tensor * gather = graph->nodes[i_gather];
    std::copy_n((const int32_t *) gather->src[1]->data, gather->src[1]->ne[0], (int32_t *) gather->data);
}

const float * gathered_states::row(int64_t seq) const {
    const ggml_tensor * gather = graph->nodes[i_gather];
    const int32_t       id     = ((const int32_t *) gather->data)[seq];
    return (const float *) ((const char *) gather->src[0]->data + id * gather->src[0]->nb[1]);
}

// What the gathering would have done, shared among the threads.
void gathered_states::compute(const ggml_compute_params * params) const {
    const ggml_tensor * gather = graph->nodes[i_gather];
    const int64_t       n      = gather->ne[0];
    const int64_t       i0 = n * params->ith / params->nth, i1 = n * (params->ith + 1) / params->nth;
    const float *       rows[MAX_TOKENS];
    for (int64_t seq = 0; seq < gather->ne[1]; ++seq) {
        rows[seq] = row(seq);
    }
    ggml_barrier(params->threadpool); // all have the numbers, which the states go over
    for (int64_t seq = 0; seq < gather->ne[1]; ++seq) {
        std::copy(rows[seq] + i0, rows[seq] + i1, (float *) gather->data + seq * n + i0);
    }
    ggml_barrier(params->threadpool);
}

int gathered_states::find_gather(int i_net) const {
    const ggml_tensor * x = net->src[5];
    for (int i = i_net - 1; i >= std::max(0, i_net - max_distance); --i) {
        if (graph->nodes[i] != x) {
            continue;
        }
        if (ggml_node_get_use_count(graph, i) != 1 || (x->flags & GGML_TENSOR_FLAG_OUTPUT)) {
            return -1;
        }
        if (x->op == GGML_OP_RESHAPE) {
            x = x->src[0];
            continue;
        }
        return x->op == GGML_OP_GET_ROWS && is_rows_of_states(x) ? i : -1;
    }
    return -1;
}

bool gathered_states::is_rows_of_states(const ggml_tensor * x) const {
    const ggml_tensor *from = x->src[0], *ids = x->src[1], *state = net->src[5];
    return x->type == GGML_TYPE_F32 && from->type == GGML_TYPE_F32 && ids->type == GGML_TYPE_I32 &&
           ggml_is_contiguous(ids) && ids->ne[0] <= MAX_TOKENS && from->nb[0] == sizeof(float) &&
           ggml_is_contiguous(x) && ggml_nrows(x) == state->ne[3] && ids->ne[0] == state->ne[3] && ids->ne[1] == 1 &&
           from->ne[2] == 1 && from->ne[3] == 1;
}

bool gathered_states::is_written_between(int i0, int i1) const {
    const ggml_tensor * from   = graph->nodes[i0]->src[0];
    const ggml_tensor * memory = from->view_src ? from->view_src : from;
    for (int i = i0 + 1; i < i1; ++i) {
        const ggml_tensor * node = graph->nodes[i];
        if (!ggml_op_is_empty(node->op) && ggml_nelements(node) > 0 && node->view_src == memory) {
            return true;
        }
    }
    return false;
}

// A verification of a model with 6 delta nets of 64 KiB takes 0.9 of the time if what it keeps for 2 to 8 older tokens
// is written through the caches; with 12 of them 0.98 for 3 older tokens, and 1.03 for 8.
static constexpr size_t few_bytes = 3 << 20;

static bool find_few_states(const ggml_cgraph * graph) {
    size_t size = 0;
    for (int i = 0; i < graph->n_nodes && size <= few_bytes; ++i) {
        const ggml_tensor * net = graph->nodes[i];
        if (net->op == GGML_OP_GATED_DELTA_NET) {
            const int64_t n_kept = std::min<int64_t>(net->src[2]->ne[2], ggml_get_op_params_i32(net, 0));
            size += (size_t) std::max<int64_t>(n_kept - 1, 0) * ggml_nbytes(net->src[5]);
        }
    }
    return size <= few_bytes;
}

bool keeps_few_states(const ggml_cgraph * graph) {
    // asked by every delta net of a graph; if another graph has taken its place, only time can be lost
    static thread_local struct {
        ggml_tensor ** nodes   = nullptr;
        int            n_nodes = 0;
        bool           few     = false;
    } last;

    if (last.nodes != graph->nodes || last.n_nodes != graph->n_nodes) {
        last = {graph->nodes, graph->n_nodes, find_few_states(graph)};
    }
    return last.few;
}

} // namespace nextn
