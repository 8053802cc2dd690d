#include "narrow.h"

#include "narrow-kernel.h"

#include "ggml-cpu-impl.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

namespace nextn {

// The engine's single-column kernel: the definition of the result, and the fallback.
struct engine_kernel {
    weight_layout                       layout;
    ggml_type                           column_type;
    ggml_vec_dot_t                      vec_dot; // plain layout
    decltype(ggml_nextn_repacked::gemv) gemv;    // interleaved layouts

    void run(const narrow_product & p, int64_t r0, int64_t r1) const {
        for (int c = 0; c < p.n_columns; ++c) {
            if (gemv) {
                gemv(p.n, p.out[c] + r0, 0, p.weights + r0 * p.row_stride, p.columns[c], 1, r1 - r0);
                continue;
            }
            for (int64_t r = r0; r < r1; ++r) {
                vec_dot(p.n, p.out[c] + r, 0, p.weights + r * p.row_stride, 0, p.columns[c], 0, 1);
            }
        }
    }
};

static engine_kernel plain_engine_kernel(ggml_type type) {
    const ggml_type_traits_cpu * traits = ggml_get_type_traits_cpu(type);
    return {{type, 1, 1}, traits->vec_dot_type, traits->vec_dot, nullptr};
}

static engine_kernel repacked_engine_kernel(ggml_type type, const ggml_nextn_repacked & layout) {
    return {{type, layout.n_rows, layout.interleave}, layout.column_type, nullptr, layout.gemv};
}

//
// kernel lookup: a kernel is used only after it reproduced the engine's bits here, on this machine, from this compiler
//

static bool reproduces_engine(const narrow_kernel & kernel, const engine_kernel & engine) {
    const ggml_type_traits * type      = ggml_get_type_traits(engine.layout.type);
    const ggml_type_traits * column    = ggml_get_type_traits(engine.column_type);
    const ggml_from_float_t  to_column = ggml_get_type_traits_cpu(engine.column_type)->from_float;

    const int64_t n      = 4 * std::max<int64_t>(kernel.block, 64) + (type->blck_size == 1 ? 21 : 0);
    const int64_t n_rows = engine.layout.n_rows == 1 ? 19 : 24;

    uint32_t state  = 1;
    auto     random = [&state] {
        return (state = state * 1664525u + 1013904223u) >> 8;
    };

    // With bit 6 of every byte clear, no scale or float read from the bytes is infinite or NaN.
    const size_t         row_stride = n / type->blck_size * type->type_size;
    std::vector<uint8_t> weights(n_rows * row_stride + 64);
    std::generate(weights.begin(), weights.end(), [&] { return (uint8_t) (random() & 0xBF); });

    const size_t         column_size = n / column->blck_size * column->type_size;
    std::vector<uint8_t> columns(MAX_COLUMNS * column_size);
    std::vector<float>   values(n);
    for (int c = 0; c < MAX_COLUMNS; ++c) {
        std::generate(values.begin(), values.end(), [&] { return (float) random() * 0x1p-23f - 1.0f; });
        to_column(values.data(), columns.data() + c * column_size, n);
    }

    std::vector<float>   expected(MAX_COLUMNS * n_rows);
    std::vector<float>   actual(MAX_COLUMNS * n_rows);
    std::vector<uint8_t> panel(kernel.panel_size(n, MAX_COLUMNS) + 64);

    narrow_product p = {};
    p.n              = n;
    p.weights        = (const char *) weights.data();
    p.row_stride     = row_stride;
    p.panel          = (void *) GGML_PAD((uintptr_t) panel.data(), 64);
    for (int c = 0; c < MAX_COLUMNS; ++c) {
        p.columns[c] = columns.data() + c * column_size;
    }
    for (p.n_columns = 1; p.n_columns <= MAX_COLUMNS; ++p.n_columns) {
        for (std::vector<float> * result : {&expected, &actual}) {
            std::fill(result->begin(), result->end(), 0.0f);
            for (int c = 0; c < p.n_columns; ++c) {
                p.out[c] = result->data() + c * n_rows;
            }
            if (result == &expected) {
                engine.run(p, 0, n_rows);
            } else {
                kernel.prepare(p);
                kernel.run(p, 0, n_rows);
            }
        }
        if (memcmp(expected.data(), actual.data(), expected.size() * sizeof(float)) != 0) {
            return false;
        }
    }
    return true;
}

int narrow_level() {
    static const int level = [] {
        const char * value = getenv("GGML_NEXTN_NARROW");
        return value ? atoi(value) : 2;
    }();
    return level;
}

static const narrow_kernel * checked_kernel(const engine_kernel & engine) {
    const narrow_kernel * kernel = narrow_kernel_x86(engine.layout);
    if (!kernel) {
        kernel = narrow_kernel_float(engine.layout);
    }
    if (!kernel || narrow_level() < 2) {
        return nullptr;
    }
    if (!reproduces_engine(*kernel, engine)) {
        GGML_LOG_WARN(
            "%s: the %s kernel (%d rows) does not reproduce the engine's bits in this build and is not used\n",
            __func__, ggml_type_name(engine.layout.type), engine.layout.n_rows);
        return nullptr;
    }
    return kernel;
}

static const narrow_kernel * find_kernel(const engine_kernel & engine, int64_t n) {
    struct entry {
        std::once_flag        once;
        const narrow_kernel * kernel = nullptr;
    };
    // One slot per type for plain weights, one for repacked: a build repacks a type in one way only.
    static entry entries[2][GGML_TYPE_COUNT];

    entry & e = entries[engine.gemv != nullptr][engine.layout.type];
    std::call_once(e.once, [&] { e.kernel = checked_kernel(engine); });
    return e.kernel && n % e.kernel->block == 0 ? e.kernel : nullptr;
}

//
// one product, seen by one thread
//

class narrow_task {
public:
    narrow_task(const ggml_compute_params * params, ggml_tensor * dst, const engine_kernel & engine)
        : params(params), dst(dst), src0(dst->src[0]), src1(dst->src[1]), engine(engine),
          kernel(find_kernel(engine, src0->ne[0])) {}

    // Columns of the whole batch; the columns of one expert are some of them.
    static int64_t width(const ggml_tensor * dst) {
        return dst->op == GGML_OP_MUL_MAT_ID ? dst->src[2]->ne[1] : dst->src[1]->ne[1];
    }

    static bool applies(const ggml_tensor * dst, const engine_kernel & engine) {
        // Convolutions call the engine's product too, with their own data in the work buffer.
        if (dst->op != GGML_OP_MUL_MAT && dst->op != GGML_OP_MUL_MAT_ID) {
            return false;
        }
        const int64_t m = width(dst);
        if (narrow_level() < 1 || m < 1 || m > MAX_TOKENS || !(engine.vec_dot || engine.gemv)) {
            return false;
        }
        if (m == 1 && !find_kernel(engine, dst->src[0]->ne[0])) {
            return false; // the engine's own way with one column
        }
        const ggml_type type = dst->src[1]->type;
        return type == engine.column_type || type == GGML_TYPE_F32 || engine.column_type == GGML_TYPE_F32;
    }

    size_t work_size(int n_threads) const {
        return converted_size() + GGML_PAD(groups_size(), 64) + n_threads * panel_size() + 64;
    }

    void mul_mat() {
        find_live();
        begin();
        const int64_t n_chunks = (dst->ne[0] + chunk_rows() - 1) / chunk_rows();
        const int64_t n_planes = dst->ne[2] * dst->ne[3];
        for_each_chunk(n_planes, n_chunks, [&](int64_t plane, int turn) { return plane_product(plane, turn); });
    }

    void mul_mat_id() {
        if (params->ith == 0) {
            group_by_expert();
        }
        begin();
        const int64_t n_chunks = (dst->ne[0] + chunk_rows() - 1) / chunk_rows();
        for_each_chunk(groups()->n_groups, n_chunks, [&](int64_t group, int) { return expert_product(group); });
    }

private:
    // The columns that chose the same expert.
    struct expert_group {
        int32_t expert;
        int32_t n_columns;
        struct {
            int32_t slot;
            int32_t token;
        } columns[MAX_COLUMNS];
    };

    struct expert_groups {
        int64_t      n_groups;
        expert_group group[1];
    };

    bool   converts() const { return src1->type != engine.column_type; }
    size_t column_size() const { return ggml_row_size(engine.column_type, src1->ne[0]); }
    size_t converted_size() const { return converts() ? GGML_PAD(ggml_nrows(src1) * column_size(), 64) : 0; }

    // Turns that the columns of a product take, at most.
    int max_turns() const {
        return dst->op == GGML_OP_MUL_MAT_ID ? 1 : (int) ((width(dst) + MAX_COLUMNS - 1) / MAX_COLUMNS);
    }
    int n_turns() const { return dst->op == GGML_OP_MUL_MAT_ID ? 1 : (n_live + MAX_COLUMNS - 1) / MAX_COLUMNS; }

    size_t turn_panel_size() const {
        const int64_t n_columns = std::min<int64_t>(width(dst), MAX_COLUMNS);
        return kernel ? GGML_PAD(kernel->panel_size(src0->ne[0], (int) n_columns), 64) : 0;
    }
    size_t panel_size() const { return max_turns() * turn_panel_size(); }

    size_t groups_size() const {
        if (dst->op != GGML_OP_MUL_MAT_ID) {
            return 0;
        }
        const int64_t n_pairs = dst->src[2]->ne[0] * dst->src[2]->ne[1];
        return sizeof(expert_groups) + n_pairs * sizeof(expert_group);
    }

    char *          work() const { return (char *) GGML_PAD((uintptr_t) params->wdata, 64); }
    expert_groups * groups() const { return (expert_groups *) (work() + converted_size()); }
    char *          panel(int turn) const {
        return work() + converted_size() + GGML_PAD(groups_size(), 64) + params->ith * panel_size() +
               turn * turn_panel_size();
    }

    // A column of zeros, as the rows are that pad a sequence (llama-nextn-padding.h): its product is zero, too.
    bool is_zero(int64_t i1, int64_t i2) const {
        if (src1->type != GGML_TYPE_F32) {
            return false;
        }
        const float * values = (const float *) source_column(i1, i2, 0);
        return std::all_of(values, values + src1->ne[0], [](float value) { return value == 0.0f; });
    }

    static void clear(char * out, int64_t n) { std::fill_n((float *) out, n, 0.0f); }

    void find_live() {
        const bool one_plane = src1->ne[2] * src1->ne[3] == 1 && width(dst) > 1;
        for (int c = 0; c < (int) width(dst); ++c) {
            if (!one_plane || !is_zero(c, 0)) {
                live[n_live++] = (int8_t) c;
            } else if (params->ith == 0) {
                clear((char *) dst->data + c * dst->nb[1], dst->ne[0]);
            }
        }
    }

    // Convert this thread's share of the activations; when it returns, all shares are done.
    void begin() {
        GGML_ASSERT(params->wsize >= work_size(params->nth));
        if (converts()) {
            convert();
        }
        if (params->ith == 0) {
            ggml_threadpool_chunk_set(params->threadpool, params->nth);
        }
        ggml_barrier(params->threadpool);
    }

    void convert() {
        const ggml_type_traits *     from    = ggml_get_type_traits(src1->type);
        const ggml_type_traits_cpu * to      = ggml_get_type_traits_cpu(engine.column_type);
        const int64_t                blck    = ggml_blck_size(engine.column_type);
        const int64_t                n_block = src1->ne[0] / blck;
        const int64_t                b0      = n_block * params->ith / params->nth;
        const int64_t                b1      = n_block * (params->ith + 1) / params->nth;

        const bool skips = dst->op == GGML_OP_MUL_MAT && n_live < (int) width(dst);

        char * out = work() + b0 * ggml_type_size(engine.column_type);
        for (int64_t i = 0; i < ggml_nrows(src1); ++i, out += column_size()) {
            if (skips && !std::binary_search(live, live + n_live, (int8_t) i)) {
                continue;
            }
            const int64_t i1 = i % src1->ne[1];
            const int64_t i2 = i / src1->ne[1] % src1->ne[2];
            const int64_t i3 = i / src1->ne[1] / src1->ne[2];
            const char *  in = source_column(i1, i2, i3) + b0 * blck * src1->nb[0];
            if (src1->type == GGML_TYPE_F32) {
                to->from_float((const float *) in, out, (b1 - b0) * blck);
            } else {
                from->to_float(in, (float *) out, (b1 - b0) * blck);
            }
        }
    }

    const char * source_column(int64_t i1, int64_t i2, int64_t i3) const {
        return (const char *) src1->data + i1 * src1->nb[1] + i2 * src1->nb[2] + i3 * src1->nb[3];
    }

    const void * column(int64_t i1, int64_t i2, int64_t i3) const {
        if (!converts()) {
            return source_column(i1, i2, i3);
        }
        return work() + ((i3 * src1->ne[2] + i2) * src1->ne[1] + i1) * column_size();
    }

    // Collect the (expert slot, token) pairs of each chosen expert.
    void group_by_expert() {
        const ggml_tensor * ids = dst->src[2];
        expert_groups *     all = groups();
        all->n_groups           = 0;
        for (int32_t token = 0; token < ids->ne[1]; ++token) {
            for (int32_t slot = 0; slot < ids->ne[0]; ++slot) {
                const int32_t expert =
                    *(const int32_t *) ((const char *) ids->data + token * ids->nb[1] + slot * ids->nb[0]);
                GGML_ASSERT(expert >= 0 && expert < src0->ne[2]);
                if (is_zero(slot % src1->ne[1], token)) {
                    clear((char *) dst->data + slot * dst->nb[1] + token * dst->nb[2], dst->ne[0]);
                    continue;
                }
                expert_group * end = all->group + all->n_groups;
                expert_group * g   = std::find_if(all->group, end, [&](const expert_group & g) {
                    return g.expert == expert && g.n_columns < MAX_COLUMNS;
                });
                if (g == end) {
                    all->n_groups++;
                    g->expert    = expert;
                    g->n_columns = 0;
                }
                g->columns[g->n_columns++] = {slot, token};
            }
        }
    }

    narrow_product plane_product(int64_t plane, int turn) const {
        const int64_t  i2 = plane % dst->ne[2];
        const int64_t  i3 = plane / dst->ne[2];
        const int64_t  c0 = turn * MAX_COLUMNS;
        narrow_product p  = product(i2 / (dst->ne[2] / src0->ne[2]), i3 / (dst->ne[3] / src0->ne[3]), turn);
        p.n_columns       = (int) std::min<int64_t>(n_live - c0, MAX_COLUMNS);
        for (int c = 0; c < p.n_columns; ++c) {
            const int64_t i1 = live[c0 + c];
            p.columns[c]     = column(i1, i2, i3);
            p.out[c]         = (float *) ((char *) dst->data + i1 * dst->nb[1] + i2 * dst->nb[2] + i3 * dst->nb[3]);
        }
        return p;
    }

    narrow_product expert_product(int64_t group) const {
        const expert_group & g = groups()->group[group];
        narrow_product       p = product(g.expert, 0, 0);
        p.n_columns            = g.n_columns;
        for (int c = 0; c < p.n_columns; ++c) {
            const auto & pair = g.columns[c];
            p.columns[c]      = column(pair.slot % src1->ne[1], pair.token, 0);
            p.out[c]          = (float *) ((char *) dst->data + pair.slot * dst->nb[1] + pair.token * dst->nb[2]);
        }
        return p;
    }

    narrow_product product(int64_t i2, int64_t i3, int turn) const {
        narrow_product p = {};
        p.n              = src0->ne[0];
        p.weights        = (const char *) src0->data + i2 * src0->nb[2] + i3 * src0->nb[3];
        p.row_stride     = src0->nb[1];
        p.panel          = panel(turn);
        return p;
    }

    // Small enough that a late thread costs little, large enough that a thread reads long runs of memory.
    int64_t chunk_rows() const {
        const int64_t rows = dst->ne[0] / (4 * params->nth);
        return std::clamp(GGML_PAD(rows, ROW_UNIT), ROW_UNIT, 16 * ROW_UNIT);
    }

    // Work on the row chunks of n_products products, the threads taking the next chunk as they become free.
    template <typename F>
    void for_each_chunk(int64_t n_products, int64_t n_chunks, F get_product) {
        constexpr int  MAX_TURNS = (MAX_TOKENS + MAX_COLUMNS - 1) / MAX_COLUMNS;
        int64_t        current   = -1;
        narrow_product turns[MAX_TURNS];
        for (int64_t i = params->ith; i < n_products * n_chunks; i = ggml_threadpool_chunk_add(params->threadpool, 1)) {
            if (i / n_chunks != current) {
                current = i / n_chunks;
                for (int turn = 0; turn < n_turns(); ++turn) {
                    turns[turn] = get_product(current, turn);
                    if (kernel) {
                        kernel->prepare(turns[turn]);
                    }
                }
            }
            const int64_t r0 = i % n_chunks * chunk_rows();
            const int64_t r1 = std::min(r0 + chunk_rows(), dst->ne[0]);
            for (int turn = 0; turn < n_turns(); ++turn) {
                if (kernel) {
                    kernel->run(turns[turn], r0, r1);
                } else {
                    engine.run(turns[turn], r0, r1);
                }
            }
        }
    }

    const ggml_compute_params * params;
    ggml_tensor *               dst;
    const ggml_tensor *         src0;
    const ggml_tensor *         src1;
    const engine_kernel &       engine;
    const narrow_kernel *       kernel;
    int                         n_live = 0; // columns of a product that are not all zeros
    int8_t                      live[MAX_TOKENS];
};

static bool forward(const ggml_compute_params * params, ggml_tensor * dst, const engine_kernel & engine) {
    if (params->use_ref || !narrow_task::applies(dst, engine)) {
        return false;
    }
    narrow_task task(params, dst, engine);
    if (dst->op == GGML_OP_MUL_MAT_ID) {
        task.mul_mat_id();
    } else {
        task.mul_mat();
    }
    return true;
}

static size_t work_size(int n_threads, const ggml_tensor * dst, const engine_kernel & engine) {
    if (!narrow_task::applies(dst, engine)) {
        return 0;
    }
    return narrow_task(nullptr, const_cast<ggml_tensor *>(dst), engine).work_size(n_threads);
}

} // namespace nextn

bool ggml_nextn_mul_mat(const ggml_compute_params * params, ggml_tensor * dst) {
    return nextn::forward(params, dst, nextn::plain_engine_kernel(dst->src[0]->type));
}

bool ggml_nextn_mul_mat_id(const ggml_compute_params * params, ggml_tensor * dst) {
    return nextn::forward(params, dst, nextn::plain_engine_kernel(dst->src[0]->type));
}

size_t ggml_nextn_work_size(int n_threads, const ggml_tensor * dst) {
    return nextn::work_size(n_threads, dst, nextn::plain_engine_kernel(dst->src[0]->type));
}

bool ggml_nextn_forward_repacked(const ggml_compute_params * params, ggml_tensor * dst,
                                 const ggml_nextn_repacked & layout) {
    return nextn::forward(params, dst, nextn::repacked_engine_kernel(dst->src[0]->type, layout));
}

size_t ggml_nextn_work_size_repacked(int n_threads, const ggml_tensor * dst, const ggml_nextn_repacked & layout) {
    return nextn::work_size(n_threads, dst, nextn::repacked_engine_kernel(dst->src[0]->type, layout));
}
