#include "attention.h"

#include "attention-kernel.h"
#include "narrow-kernel.h"

#include "ggml-cpu-impl.h"
#include "ops.h"
#include "vec.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace nextn {

// The first cell of part i of the memory. Parts of a long memory are longer, so that there are few of them.
static int64_t part_start(int64_t i) {
    constexpr int64_t CELLS = 64, PARTS = 8; // of the first size; the size doubles after so many
    const int64_t     level = i / PARTS;
    return CELLS * (PARTS * ((1 << level) - 1) + (i % PARTS << level));
}

static int64_t n_parts(int64_t n_cells) {
    int64_t n = 1;
    while (part_start(n) < n_cells) {
        ++n;
    }
    return n;
}

class narrow_attention {
public:
    narrow_attention(const ggml_tensor * dst)
        : q(dst->src[0]), k(dst->src[1]), v(dst->src[2]), mask(dst->src[3]), parts(n_parts(k->ne[1])) {
        memcpy(&scale, dst->op_params, sizeof(scale));
        float alibi_and_softcap[2];
        memcpy(alibi_and_softcap, dst->op_params + 1, sizeof(alibi_and_softcap));

        const bool plain = alibi_and_softcap[0] == 0.0f && alibi_and_softcap[1] == 0.0f && !dst->src[4] /*sinks*/ &&
                           k->ne[2] == v->ne[2] && k->ne[3] == q->ne[3] && v->ne[3] == q->ne[3];
        kernel           = plain ? attention_kernel_x86(k->type, v->type, k->ne[0], v->ne[0]) : nullptr;
    }

    bool applies() const {
        const bool engine_can_cut =
            q->ne[3] == 1 && k->type == v->type && (k->type == GGML_TYPE_F16 || k->type == GGML_TYPE_F32);
        return narrow_level() > 0 && q->ne[1] <= MAX_TOKENS && q->type == GGML_TYPE_F32 && (kernel || engine_can_cut);
    }

    size_t work_size(int n_threads) const {
        return (engine_floats(n_threads) + n_rows() * parts * part_floats()) * sizeof(float);
    }

    void compute(const ggml_compute_params * params, ggml_tensor * dst, ggml_nextn_attention_rows rows) const {
        GGML_ASSERT(params->wsize >= work_size(params->nth));
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);

        const int64_t n_items = k->ne[2] * q->ne[3] * parts;
        for (int64_t i = params->ith; i < n_items; i = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            const int64_t group = i / parts;
            const int64_t part  = i % parts;
            const int64_t end   = std::min(part_start(part + 1), k->ne[1]);
            if (kernel) {
                attend(params, group, part, end);
                continue;
            }
            for (int64_t ir = group * n_group(); ir < (group + 1) * n_group(); ++ir) {
                rows(params, dst, ir, ir + 1, part_start(part), end, partial(params, ir, part), 0);
            }
        }
        ggml_barrier(params->threadpool);
        for (int64_t ir = params->ith; ir < n_rows(); ir += params->nth) {
            merge(params, dst, ir);
        }
    }

private:
    // Rows count heads of a sequence, and the tokens of a head; those that share a head of the memory follow each
    // other.
    int64_t n_rows() const { return q->ne[1] * q->ne[2] * q->ne[3]; }
    int64_t n_group() const { return q->ne[1] * q->ne[2] / k->ne[2]; }
    int64_t part_floats() const { return 2 + v->ne[0]; }
    // What the engine's function uses of the work buffer.
    int64_t engine_floats(int n_threads) const {
        return kernel ? 0 : n_threads * (k->ne[0] + 2 * v->ne[0] + CACHE_LINE_SIZE_F32);
    }

    float * partial(const ggml_compute_params * params, int64_t ir, int64_t part) const {
        return (float *) params->wdata + engine_floats(params->nth) + (ir * parts + part) * part_floats();
    }

    struct place {
        int64_t token, head, sequence;
    };

    place place_of(int64_t ir) const { return {ir % q->ne[1], ir / q->ne[1] % q->ne[2], ir / (q->ne[1] * q->ne[2])}; }

    // The rows of a group over the cells of a part.
    void attend(const ggml_compute_params * params, int64_t group, int64_t part, int64_t end) const {
        const int64_t head     = group % k->ne[2];
        const int64_t sequence = group / k->ne[2];
        const int64_t ir0      = group * n_group();

        attention_tile t = {};
        t.d_k            = k->ne[0];
        t.d_v            = v->ne[0];
        t.scale          = scale;
        t.k_stride       = k->nb[1];
        t.v_stride       = v->nb[1];
        for (int64_t r = 0; r < n_group(); ++r) {
            float * state = partial(params, ir0 + r, part);
            std::fill_n(state, part_floats(), 0.0f);
            state[0] = -INFINITY;
        }
        for (int64_t c = part_start(part); c < end; c += ATTENTION_CELLS) {
            t.n_cells = (int) std::min<int64_t>(ATTENTION_CELLS, end - c);
            t.k       = (const char *) k->data + c * k->nb[1] + head * k->nb[2] + sequence * k->nb[3];
            t.v       = (const char *) v->data + c * v->nb[1] + head * v->nb[2] + sequence * v->nb[3];
            for (int64_t r0 = 0; r0 < n_group(); r0 += ATTENTION_ROWS) {
                t.n_rows = (int) std::min<int64_t>(ATTENTION_ROWS, n_group() - r0);
                for (int r = 0; r < t.n_rows; ++r) {
                    const int64_t ir = ir0 + r0 + r;
                    const place   at = place_of(ir);
                    t.q[r]     = (const float *) ((const char *) q->data + at.token * q->nb[1] + at.head * q->nb[2] +
                                                  at.sequence * q->nb[3]);
                    t.mask[r]  = mask_row(at, c);
                    t.state[r] = partial(params, ir, part);
                }
                kernel(t);
            }
        }
    }

    const ggml_fp16_t * mask_row(const place & at, int64_t cell) const {
        if (!mask) {
            return nullptr;
        }
        return (const ggml_fp16_t *) ((const char *) mask->data + at.token * mask->nb[1] +
                                      at.head % mask->ne[2] * mask->nb[2] + at.sequence % mask->ne[3] * mask->nb[3]) +
               cell;
    }

    // Add the parts of a row up in order, into the first that saw a cell; one that saw none changes nothing.
    void merge(const ggml_compute_params * params, ggml_tensor * dst, int64_t ir) const {
        const int64_t n     = v->ne[0];
        float *       total = partial(params, ir, 0);
        for (int64_t part = 1; part < parts; ++part) {
            float * next = partial(params, ir, part);
            if (total[1] == 0.0f) {
                total = next;
            } else if (next[1] != 0.0f) {
                add(total, next, n);
            }
        }
        ggml_vec_scale_f32(n, total + 2, total[1] == 0.0f ? 0.0f : 1.0f / total[1]);

        const place at = place_of(ir);
        memcpy((char *) dst->data + at.head * dst->nb[1] + at.token * dst->nb[2] + at.sequence * dst->nb[3], total + 2,
               n * sizeof(float));
    }

    static void add(float * total, const float * next, int64_t n) {
        const float max         = std::max(total[0], next[0]);
        const float scale_total = expf(total[0] - max);
        const float scale_next  = expf(next[0] - max);
        for (int64_t i = 1; i < 2 + n; ++i) {
            total[i] = total[i] * scale_total + next[i] * scale_next;
        }
        total[0] = max;
    }

    const ggml_tensor * q;
    const ggml_tensor * k;
    const ggml_tensor * v;
    const ggml_tensor * mask;
    const int64_t       parts;
    float               scale;
    attention_kernel    kernel;
};

} // namespace nextn

bool ggml_nextn_flash_attn(const ggml_compute_params * params, ggml_tensor * dst, ggml_nextn_attention_rows rows) {
    const nextn::narrow_attention attention(dst);
    if (params->use_ref || !attention.applies()) {
        return false;
    }
    attention.compute(params, dst, rows);
    return true;
}

size_t ggml_nextn_flash_attn_work_size(int n_threads, const ggml_tensor * dst) {
    const nextn::narrow_attention attention(dst);
    return attention.applies() ? attention.work_size(n_threads) : 0;
}
