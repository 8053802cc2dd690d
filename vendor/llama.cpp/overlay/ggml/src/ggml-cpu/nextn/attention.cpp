#include "attention.h"

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
    constexpr int64_t CELLS = 512, PARTS = 8; // of the first size; the size doubles after so many
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
        : q(dst->src[0]), k(dst->src[1]), v(dst->src[2]), parts(n_parts(k->ne[1])) {}

    bool applies() const {
        return narrow_level() > 0 && q->ne[1] <= MAX_COLUMNS && q->ne[3] == 1 && q->type == GGML_TYPE_F32 &&
               k->type == v->type && (k->type == GGML_TYPE_F16 || k->type == GGML_TYPE_F32);
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

        // The query rows that share a head of the memory follow each other, part by part.
        const int64_t n_group = n_rows() / k->ne[2];
        const int64_t n_items = n_rows() * parts;
        for (int64_t i = params->ith; i < n_items; i = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            const int64_t group = i / (n_group * parts);
            const int64_t part  = i / n_group % parts;
            const int64_t ir    = group * n_group + i % n_group;
            const int64_t end   = std::min(part_start(part + 1), k->ne[1]);
            rows(params, dst, ir, ir + 1, part_start(part), end, parts == 1 ? nullptr : partial(params, ir, part), 0);
        }
        if (parts == 1) {
            return;
        }
        ggml_barrier(params->threadpool);
        for (int64_t ir = params->ith; ir < n_rows(); ir += params->nth) {
            merge(params, dst, ir);
        }
    }

private:
    int64_t n_rows() const { return q->ne[1] * q->ne[2]; }
    int64_t part_floats() const { return 2 + v->ne[0]; }
    // What the engine's function uses of the work buffer.
    int64_t engine_floats(int n_threads) const { return n_threads * (k->ne[0] + 2 * v->ne[0] + CACHE_LINE_SIZE_F32); }

    float * partial(const ggml_compute_params * params, int64_t ir, int64_t part) const {
        return (float *) params->wdata + engine_floats(params->nth) + (ir * parts + part) * part_floats();
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

        const int64_t head = ir / q->ne[1], token = ir % q->ne[1];
        memcpy((char *) dst->data + (head + token * dst->ne[1]) * dst->nb[1], total + 2, n * sizeof(float));
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
    const int64_t       parts;
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
