#include "convolution.h"

#include "narrow-kernel.h"

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "vec.h"

#include <algorithm>
#include <cstring>

namespace nextn {

namespace {

constexpr int64_t LANES    = 16; // channels side by side; the engine's activation takes whole vectors of them, too
constexpr int64_t MAX_TAPS = 8;

// The channels of one thread.
struct channel_range {
    channel_range(const ggml_compute_params * params, int64_t n_channels) {
        const int64_t n_blocks = (n_channels + LANES - 1) / LANES;
        begin                  = n_blocks * params->ith / params->nth * LANES;
        end                    = std::min(n_blocks * (params->ith + 1) / params->nth * LANES, n_channels);
    }

    int64_t begin;
    int64_t end;
};

bool is_plain(const ggml_tensor * x) {
    return x->type == GGML_TYPE_F32 && ggml_is_contiguous(x) && x->ne[3] == 1;
}

const ggml_tensor * memory_of(const ggml_tensor * x) {
    return x->view_src ? x->view_src : x;
}

// [older inputs, those of the tokens] of each channel and sequence, and the copies to the memory behind it.
class convolution_inputs {
public:
    convolution_inputs(const ggml_cgraph * graph, int i)
        : inputs(graph->nodes[i]), older(inputs->src[0]), newer(inputs->src[1]) {
        const bool applies = ggml_get_op_params_i32(inputs, 0) == 0 && is_plain(inputs) && is_plain(older) &&
                             newer->type == GGML_TYPE_F32 && newer->ne[0] <= MAX_TOKENS && older->ne[0] < MAX_TAPS;
        for (int k = i + 1; applies && k < graph->n_nodes && n_copies < MAX_TOKENS; ++k) {
            const ggml_tensor * node = graph->nodes[k];
            if (node->op == GGML_OP_CPY && is_copy(node)) {
                copies[n_copies++] = node;
                n_nodes            = k - i;
            } else if (!ggml_op_is_empty(node->op)) {
                break;
            }
        }
    }

    int n_nodes_after() const { return n_nodes; }

    void compute(const ggml_compute_params * params) const {
        const channel_range channels(params, inputs->ne[1]);
        if (older->ne[0] == 3) {
            compute_channels<3>(channels);
        } else {
            compute_channels<0>(channels);
        }
    }

private:
    // N: how many values each channel begins with and each copy takes, 0: not known. A call of memcpy() for three
    // values of each of thousands of channels would take longer than the copying.
    template <int64_t N>
    void compute_channels(const channel_range & channels) const {
        const int64_t n_older = N > 0 ? N : older->ne[0], n_newer = newer->ne[0];
        for (int64_t seq = 0; seq < inputs->ne[2]; ++seq) {
            for (int64_t c = channels.begin; c < channels.end; ++c) {
                const float * tokens = at(newer, c, seq);
                float *       row    = at(inputs, c, seq);
                memcpy(row, at(older, c, seq), n_older * sizeof(float));
                for (int64_t t = 0; t < n_newer; ++t) {
                    row[n_older + t] = *(const float *) ((const char *) tokens + t * newer->nb[0]);
                }
                for (int k = 0; k < n_copies; ++k) {
                    float * to = (float *) ((char *) copies[k]->data + seq * copies[k]->nb[1]) + c * n_older;
                    memcpy(to, row + first_kept(copies[k]), n_older * sizeof(float));
                }
            }
        }
    }

    // Of some inputs of every channel, one channel after the other, to a place that is none of the sources.
    bool is_copy(const ggml_tensor * copy) const {
        const ggml_tensor * from = copy->src[0];
        return from->op == GGML_OP_VIEW && from->src[0] == inputs && from->type == GGML_TYPE_F32 &&
               from->ne[0] == older->ne[0] && from->ne[1] == inputs->ne[1] && from->ne[2] == inputs->ne[2] &&
               from->ne[3] == 1 && from->nb[0] == inputs->nb[0] && from->nb[1] == inputs->nb[1] &&
               from->nb[2] == inputs->nb[2] && first_kept(copy) + from->ne[0] <= inputs->ne[0] &&
               copy->type == GGML_TYPE_F32 && copy->ne[0] == from->ne[0] * from->ne[1] && copy->ne[1] == from->ne[2] &&
               copy->ne[2] == 1 && copy->ne[3] == 1 && copy->nb[0] == sizeof(float) &&
               memory_of(copy) != memory_of(older) && memory_of(copy) != memory_of(newer);
    }

    int64_t first_kept(const ggml_tensor * copy) const {
        return ((const char *) copy->src[0]->data - (const char *) inputs->data) / (int64_t) sizeof(float);
    }

    static float * at(const ggml_tensor * x, int64_t channel, int64_t seq) {
        return (float *) ((char *) x->data + channel * x->nb[1] + seq * x->nb[2]);
    }

    const ggml_tensor * inputs;
    const ggml_tensor * older;
    const ggml_tensor * newer;
    const ggml_tensor * copies[MAX_TOKENS];
    int                 n_copies = 0;
    int                 n_nodes  = 0;
};

class narrow_convolution {
public:
    narrow_convolution(const ggml_tensor * conv, ggml_tensor * dst)
        : inputs(conv->src[0]), weights(conv->src[1]), dst(dst), n_taps(weights->ne[0]), n_inputs(inputs->ne[0]),
          n_tokens(dst->ne[1]) {}

    static bool applies(const ggml_cgraph * graph, int i) {
        const ggml_tensor * conv = graph->nodes[i];
        const ggml_tensor * next = i + 1 < graph->n_nodes ? graph->nodes[i + 1] : nullptr;
        return next && next->op == GGML_OP_UNARY && ggml_get_unary_op(next) == GGML_UNARY_OP_SILU &&
               next->src[0] == conv && ggml_node_get_use_count(graph, i) == 1 &&
               !(conv->flags & GGML_TENSOR_FLAG_OUTPUT) && is_plain(next) && is_plain(conv->src[0]) &&
               is_plain(conv->src[1]) && conv->ne[1] <= MAX_TOKENS && conv->src[1]->ne[0] <= MAX_TAPS;
    }

    void compute(const ggml_compute_params * params) const {
        const channel_range channels(params, dst->ne[0]);
        for (int64_t seq = 0; seq < dst->ne[2]; ++seq) {
            for (int64_t c = channels.begin; c < channels.end; c += LANES) {
                compute_block(c, std::min(LANES, channels.end - c), seq);
            }
        }
    }

private:
    void compute_block(int64_t c, int64_t n, int64_t seq) const {
        float window[MAX_TAPS + MAX_TOKENS][LANES];
        float taps[MAX_TAPS][LANES];
        turn(window, row(inputs, c, seq), n, n_inputs);
        turn(taps, row(weights, c, 0), n, n_taps);
        for (int64_t t = 0; t < n_tokens; ++t) {
            float sum[LANES] = {};
            for (int64_t i = 0; i < n_taps; ++i) {
                for (int64_t l = 0; l < LANES; ++l) {
                    sum[l] += window[t + i][l] * taps[i][l];
                }
            }
            ggml_vec_silu_f32((int) n, row(dst, t, seq) + c, sum);
        }
    }

    // Rows become columns, the last one also those that are missing.
    static void turn(float (*to)[LANES], const float * from, int64_t n, int64_t length) {
        for (int64_t l = 0; l < LANES; ++l) {
            for (int64_t i = 0; i < length; ++i) {
                to[i][l] = from[std::min(l, n - 1) * length + i];
            }
        }
    }

    static float * row(const ggml_tensor * x, int64_t i1, int64_t i2) {
        return (float *) ((char *) x->data + i1 * x->nb[1] + i2 * x->nb[2]);
    }

    const ggml_tensor * inputs;  // [tokens + taps - 1, channels, sequences]
    const ggml_tensor * weights; // [taps, channels]
    ggml_tensor *       dst;     // [channels, tokens, sequences]
    const int64_t       n_taps;
    const int64_t       n_inputs;
    const int64_t       n_tokens;
};

} // namespace

int convolution_inputs_and_copies(const ggml_compute_params * params, const ggml_cgraph * graph, int i) {
    const convolution_inputs inputs(graph, i);
    if (inputs.n_nodes_after() > 0) {
        inputs.compute(params);
    }
    return inputs.n_nodes_after();
}

int convolution_and_silu(const ggml_compute_params * params, const ggml_cgraph * graph, int i) {
    if (!narrow_convolution::applies(graph, i)) {
        return 0;
    }
    narrow_convolution(graph->nodes[i], graph->nodes[i + 1]).compute(params);
    return 1;
}

} // namespace nextn
