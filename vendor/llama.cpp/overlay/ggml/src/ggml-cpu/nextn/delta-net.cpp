#include "delta-net.h"

#include "narrow-kernel.h"

#include "ggml-cpu-impl.h"
#include "vec.h"

#include <cmath>
#include <cstring>

namespace nextn {

constexpr int64_t MAX_STATE = 256; // length of a state column that fits the stack

class narrow_delta_net {
public:
    explicit narrow_delta_net(ggml_tensor * dst)
        : dst(dst), q(dst->src[0]), k(dst->src[1]), v(dst->src[2]), gate(dst->src[3]), beta(dst->src[4]),
          state(dst->src[5]), n(v->ne[0]), n_head(v->ne[1]), n_tokens(v->ne[2]), n_seqs(v->ne[3]),
          n_snapshots(ggml_get_op_params_i32(dst, 0)) {}

    // A gate per head; the variant with a gate per value is left to the engine.
    bool applies() const {
        return narrow_level() > 0 && n_tokens <= MAX_COLUMNS && n <= MAX_STATE && gate->ne[0] == 1 && n > 1;
    }

    void compute_head(int64_t head, int64_t seq) const {
        float decay[MAX_COLUMNS];
        for (int64_t t = 0; t < n_tokens; ++t) {
            decay[t] = expf(*at(gate, head, t, seq));
        }
        const float * in = (const float *) state->data + seq * state->nb[3] / sizeof(float) + head * n * n;
        for (int64_t j = 0; j < n; ++j) {
            compute_column(in + j * n, j, head, seq, decay);
        }
    }

private:
    // Column j of the state through all tokens; also value j of every token's output.
    void compute_column(const float * in, int64_t j, int64_t head, int64_t seq, const float * decay) const {
        const int64_t head_qk = head % q->ne[1], seq_q = seq / (n_seqs / q->ne[3]);
        const int64_t head_k = head % k->ne[1], seq_k = seq / (n_seqs / k->ne[3]);
        const float   scale = 1.0f / sqrtf((float) n);

        alignas(64) float column[MAX_STATE];
        memcpy(column, in, n * sizeof(float));
        for (int64_t t = 0; t < n_tokens; ++t) {
            const float * key = at(k, head_k, t, seq_k);

            float sum;
            ggml_vec_scale_f32(n, column, decay[t]);
            ggml_vec_dot_f32(n, &sum, 0, column, 0, key, 0, 1);
            const float delta = (at(v, head, t, seq)[j] - sum) * *at(beta, head, t, seq);
            ggml_vec_mad_f32(n, column, key, delta);
            ggml_vec_dot_f32(n, &sum, 0, column, 0, at(q, head_qk, t, seq_q), 0, 1);

            ((float *) dst->data)[((seq * n_tokens + t) * n_head + head) * n + j] = sum * scale;
            if (float * out = snapshot(t)) {
                memcpy(out + ((seq * n_head + head) * n + j) * n, column, n * sizeof(float));
            }
        }
    }

    static const float * at(const ggml_tensor * x, int64_t i1, int64_t i2, int64_t i3) {
        return (const float *) ((const char *) x->data + i1 * x->nb[1] + i2 * x->nb[2] + i3 * x->nb[3]);
    }

    // The states follow the output in dst, the newest first; nullptr for a state that is not kept.
    float * snapshot(int64_t t) const {
        const int64_t slot = n_tokens - 1 - t;
        return slot < n_snapshots ? (float *) dst->data + n * n_head * n_seqs * (n_tokens + slot * n) : nullptr;
    }

    ggml_tensor *       dst;
    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const ggml_tensor * gate;
    const ggml_tensor * beta;
    const ggml_tensor * state;
    const int64_t       n; // length of a head's keys and values
    const int64_t       n_head;
    const int64_t       n_tokens;
    const int64_t       n_seqs;
    const int64_t       n_snapshots;
};

} // namespace nextn

bool ggml_nextn_gated_delta_net(const ggml_compute_params * params, ggml_tensor * dst, int64_t ir0, int64_t ir1) {
    const nextn::narrow_delta_net net(dst);
    if (params->use_ref || !net.applies()) {
        return false;
    }
    const int64_t n_head = dst->src[2]->ne[1];
    for (int64_t ir = ir0; ir < ir1; ++ir) {
        net.compute_head(ir % n_head, ir / n_head);
    }
    return true;
}
