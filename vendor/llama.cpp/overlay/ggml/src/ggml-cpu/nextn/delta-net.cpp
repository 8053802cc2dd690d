#include "delta-net.h"

#include "delta-net-memory.h"
#include "narrow-kernel.h"

#include "ggml-cpu-impl.h"
#include "ggml-impl.h"
#include "vec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace nextn {

class narrow_delta_net {
public:
    // The states go to where copy has them, or without it behind the outputs.
    narrow_delta_net(ggml_tensor * dst, const ggml_tensor * copy)
        : q(dst->src[0]), k(dst->src[1]), v(dst->src[2]), gate(dst->src[3]), beta(dst->src[4]), state(dst->src[5]),
          live(dst->src[6]), n(v->ne[0]), n_head(v->ne[1]), n_tokens(v->ne[2]), n_seqs(v->ne[3]),
          outputs((float *) dst->data) {
        const int64_t n_state = n * n * n_head;
        n_kept                = copy ? copy->ne[2] : std::min<int64_t>(n_tokens, ggml_get_op_params_i32(dst, 0));
        states                = copy ? (float *) copy->data : outputs + ggml_nelements(v);
        seq_stride            = copy ? copy->nb[1] / sizeof(float) : n_state;
        kept_stride           = copy ? copy->nb[2] / sizeof(float) : n_state * n_seqs;
    }

    // A gate per head; the variant with a gate per value is left to the engine.
    static bool applies(const ggml_tensor * dst) {
        const ggml_tensor * v = dst->src[2];
        return narrow_level() > 0 && v->ne[2] <= MAX_TOKENS && v->ne[0] <= MAX_STATE && v->ne[0] > 1 &&
               dst->src[3]->ne[0] == 1;
    }

    // Begin with the states where the memory has them, unless that of one sequence is written before it is read.
    void begin_with(const gathered_states & gathered, const ggml_compute_params * params) {
        bool clash = false;
        for (int64_t seq = 0; seq < n_seqs; ++seq) {
            for (int64_t other = 0; other < n_seqs; ++other) {
                for (int64_t age = 0; age < n_kept && other != seq; ++age) {
                    clash = clash || gathered.row(seq) == states + age * kept_stride + other * seq_stride;
                }
            }
        }
        if (clash) {
            gathered.compute(params);
        } else {
            rows = &gathered;
        }
    }

    // Older states are read only if a rollback wants them: many of them had better not take the place of weights.
    void write_older_past_caches() { past_caches = true; }

    void compute(const ggml_compute_params * params) const {
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);
        for (int64_t i = params->ith; i < n_head * n_seqs; i = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            compute_head(i % n_head, i / n_head);
        }
    }

private:
    static constexpr int64_t MAX_STATE = 256; // columns this long fit the first-level cache, COLUMNS at a time
    static constexpr int64_t COLUMNS   = 8;

    const float * first_state(int64_t head, int64_t seq) const {
        return rows ? rows->row(seq) + head * n * n : at(state, 0, head, seq);
    }

    // Tokens of a sequence before its padding, see llama-nextn-padding.h.
    int64_t n_live(int64_t seq) const {
        if (!live) {
            return n_tokens;
        }
        const float * values = (const float *) live->data + seq * n_tokens;
        return std::count(values, values + n_tokens, 1.0f);
    }

    void compute_head(int64_t head, int64_t seq) const {
        const int64_t end = n_live(seq);
        float         decay[MAX_TOKENS];
        for (int64_t t = end; t < n_tokens; ++t) {
            std::fill_n(outputs + ((seq * n_tokens + t) * n_head + head) * n, n, 0.0f);
        }
        for (int64_t t = 0; t < end; ++t) {
            decay[t] = expf(*at(gate, head, t, seq));
        }
#if defined(__AVX512F__)
        if (n == 128) {
            for (int64_t j = 0; j < n; j += 2) {
                compute_in_registers<2, 8>(j, head, seq, end, decay);
            }
            return;
        }
#endif
        for (int64_t j = 0; j < n; j += COLUMNS) {
            compute_columns(j, std::min(COLUMNS, n - j), head, seq, end, decay);
        }
    }

#if defined(__AVX512F__)
    // As compute_columns(), for C columns of N vectors that stay in registers through all tokens.
    template <int C, int N>
    void compute_in_registers(int64_t j, int64_t head, int64_t seq, int64_t end, const float * decay) const {
        const int64_t head_q = head % q->ne[1], seq_q = seq / (n_seqs / q->ne[3]);
        const int64_t head_k = head % k->ne[1], seq_k = seq / (n_seqs / k->ne[3]);
        const float   scale = 1.0f / sqrtf((float) n);

        __m512        columns[C][N];
        const float * first = first_state(head, seq) + j * n;
        for (int c = 0; c < C; ++c) {
            for (int i = 0; i < N; ++i) {
                columns[c][i] = _mm512_loadu_ps(first + c * n + 16 * i);
            }
        }
        for (int64_t t = 0; t < end; ++t) {
            const float * key   = at(k, head_k, t, seq_k);
            const float * query = at(q, head_q, t, seq_q);
            const float * value = at(v, head, t, seq) + j;
            const float   learn = *at(beta, head, t, seq);
            float *       out   = outputs + ((seq * n_tokens + t) * n_head + head) * n + j;

            const __m512 fade = _mm512_set1_ps(decay[t]);
            __m512       sum[C][2];
            for (int c = 0; c < C; ++c) {
                sum[c][0] = sum[c][1] = _mm512_setzero_ps();
            }
            for (int i = 0; i < N; ++i) {
                const __m512 x = _mm512_loadu_ps(key + 16 * i);
                for (int c = 0; c < C; ++c) {
                    columns[c][i] = _mm512_mul_ps(columns[c][i], fade);
                    sum[c][i % 2] = _mm512_fmadd_ps(columns[c][i], x, sum[c][i % 2]);
                }
            }
            __m512 delta[C];
            for (int c = 0; c < C; ++c) {
                const float known = _mm512_reduce_add_ps(_mm512_add_ps(sum[c][0], sum[c][1]));
                delta[c]          = _mm512_set1_ps((value[c] - known) * learn);
                sum[c][0] = sum[c][1] = _mm512_setzero_ps();
            }
            for (int i = 0; i < N; ++i) {
                const __m512 x = _mm512_loadu_ps(key + 16 * i);
                const __m512 y = _mm512_loadu_ps(query + 16 * i);
                for (int c = 0; c < C; ++c) {
                    columns[c][i] = _mm512_fmadd_ps(x, delta[c], columns[c][i]);
                    sum[c][i % 2] = _mm512_fmadd_ps(columns[c][i], y, sum[c][i % 2]);
                }
            }
            for (int c = 0; c < C; ++c) {
                out[c] = _mm512_reduce_add_ps(_mm512_add_ps(sum[c][0], sum[c][1])) * scale;
            }
            const int64_t age = n_tokens - 1 - t;
            if (age >= n_kept) {
                continue;
            }
            float *    to     = states + age * kept_stride + seq * seq_stride + (head * n + j) * n;
            const bool stream = age > 0 && past_caches && (uintptr_t) to % sizeof(__m512) == 0;
            for (int c = 0; c < C; ++c) {
                for (int i = 0; i < N; ++i) {
                    if (stream) {
                        _mm512_stream_ps(to + c * n + 16 * i, columns[c][i]);
                    } else {
                        _mm512_storeu_ps(to + c * n + 16 * i, columns[c][i]);
                    }
                }
            }
        }
        _mm_sfence();
    }
#endif

    // Columns [j, j + count) of the state through all tokens; they also give these values of every token's output.
    void compute_columns(int64_t j, int64_t count, int64_t head, int64_t seq, int64_t end, const float * decay) const {
        const int64_t head_q = head % q->ne[1], seq_q = seq / (n_seqs / q->ne[3]);
        const int64_t head_k = head % k->ne[1], seq_k = seq / (n_seqs / k->ne[3]);
        const float   scale = 1.0f / sqrtf((float) n);

        alignas(64) float columns[COLUMNS * MAX_STATE];
        memcpy(columns, first_state(head, seq) + j * n, count * n * sizeof(float));
        for (int64_t t = 0; t < end; ++t) {
            const float * key   = at(k, head_k, t, seq_k);
            const float * query = at(q, head_q, t, seq_q);
            const float * value = at(v, head, t, seq) + j;
            const float   learn = *at(beta, head, t, seq);
            float *       out   = outputs + ((seq * n_tokens + t) * n_head + head) * n + j;

            float sum[COLUMNS];
            ggml_vec_scale_f32(count * n, columns, decay[t]);
            for (int64_t c = 0; c < count; ++c) {
                ggml_vec_dot_f32(n, &sum[c], 0, columns + c * n, 0, key, 0, 1);
            }
            for (int64_t c = 0; c < count; ++c) {
                const float delta = (value[c] - sum[c]) * learn;
                ggml_vec_mad_f32(n, columns + c * n, key, delta);
            }
            for (int64_t c = 0; c < count; ++c) {
                ggml_vec_dot_f32(n, &sum[c], 0, columns + c * n, 0, query, 0, 1);
                out[c] = sum[c] * scale;
            }
            const int64_t age = n_tokens - 1 - t;
            if (age < n_kept) { // the newest state first
                float * to = states + age * kept_stride + seq * seq_stride + (head * n + j) * n;
                if (age > 0 && past_caches) {
                    copy_past_caches(to, columns, count * n);
                } else {
                    memcpy(to, columns, count * n * sizeof(float));
                }
            }
        }
    }

    static void copy_past_caches(float * to, const float * from, int64_t count) {
        int64_t i = 0;
#if defined(__AVX__)
        if ((uintptr_t) to % sizeof(__m256) == 0) {
            for (; i + 8 <= count; i += 8) {
                _mm256_stream_ps(to + i, _mm256_loadu_ps(from + i));
            }
            _mm_sfence();
        }
#endif
        memcpy(to + i, from + i, (count - i) * sizeof(float));
    }

    static const float * at(const ggml_tensor * x, int64_t i1, int64_t i2, int64_t i3) {
        return (const float *) ((const char *) x->data + i1 * x->nb[1] + i2 * x->nb[2] + i3 * x->nb[3]);
    }

    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const ggml_tensor * gate;
    const ggml_tensor * beta;
    const ggml_tensor * state;
    const ggml_tensor * live; // [1, tokens] of all sequences: 1, or 0 for padding; NULL: there is none
    const int64_t       n;    // length of a head's keys and values
    const int64_t       n_head;
    const int64_t       n_tokens;
    const int64_t       n_seqs;
    float *             outputs;
    float *             states;
    int64_t             n_kept;
    int64_t             seq_stride;
    int64_t             kept_stride;

    const gathered_states * rows        = nullptr; // the first states, where the memory has them
    bool                    past_caches = false;
};

int gated_delta_net_and_copy(const ggml_compute_params * params, const ggml_cgraph * graph, int i) {
    ggml_tensor * dst = graph->nodes[i];
    if (!narrow_delta_net::applies(dst)) {
        return 0;
    }
    const copied_delta_net copied(graph, i);
    if (!copied.found()) {
        return 0;
    }
    narrow_delta_net      net(dst, copied.destination());
    const gathered_states gathered(graph, i);
    if (gathered.found()) {
        net.begin_with(gathered, params);
    }
    if (!keeps_few_states(graph)) {
        net.write_older_past_caches();
    }
    net.compute(params);
    return copied.n_nodes_after(i);
}

int spare_gathering(const ggml_compute_params * params, const ggml_cgraph * graph, int i) {
    const int i_net = gathered_states::find_net(graph, i);
    if (i_net < 0 || !narrow_delta_net::applies(graph->nodes[i_net]) || !copied_delta_net(graph, i_net).found()) {
        return 0;
    }
    const gathered_states gathered(graph, i_net);
    if (gathered.node() != i) {
        return 0;
    }
    if (params->ith == 0) {
        gathered.leave_numbers();
    }
    return -1;
}

} // namespace nextn

bool ggml_nextn_gated_delta_net(const ggml_compute_params * params, ggml_tensor * dst) {
    if (params->use_ref || !nextn::narrow_delta_net::applies(dst)) {
        return false;
    }
    nextn::narrow_delta_net(dst, nullptr).compute(params);
    return true;
}
