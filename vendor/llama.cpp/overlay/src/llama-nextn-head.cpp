#include "llama-nextn-head.h"

#include "llama-graph.h"
#include "llama-impl.h"
#include "llama-kv-cache.h"
#include "llama-nextn-state.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>
#include <stdexcept>

//
// shortlist
//

static constexpr int32_t extra_step = 128; // rows by which the added part of the graph grows

static bool is_repacked(const ggml_tensor * t) {
    return strcmp(ggml_backend_buft_name(ggml_backend_buffer_get_type(t->buffer)), "CPU_REPACK") == 0;
}

bool llama_nextn_shortlist::supports(const ggml_tensor * head) {
    if (!head || !head->buffer || head->ne[2] != 1 || head->ne[3] != 1 ||
        head->ne[1] > std::numeric_limits<int32_t>::max()) {
        return false;
    }
    if (is_repacked(head)) {
        return head->ne[1] % 8 == 0;
    }
    return ggml_backend_buffer_is_host(
        head->buffer); // elsewhere a full head is cheap, and rows are laid out in other ways
}

llama_nextn_shortlist::llama_nextn_shortlist(ggml_tensor * head, const std::vector<llama_token> & pinned,
                                             int32_t n_ring)
    : head(head), n_vocab((int32_t) head->ne[1]), group_rows(is_repacked(head) ? 8 : 1), n_prefix(n_vocab) {
    // a repacked matrix interleaves 4 or 8 rows; 8 are whole groups of either
    std::set<int32_t> groups;
    for (const llama_token id : pinned) {
        groups.insert(id / group_rows);
    }
    n_pinned             = (int32_t) groups.size();
    const int64_t n_want = std::min<int64_t>((int64_t) n_pinned * group_rows + n_ring, n_vocab);
    const int64_t n_rows = (n_want + extra_step - 1) / extra_step * extra_step;
    n_slots              = (int32_t) (n_rows / group_rows);

    ctx.reset(ggml_init({ggml_tensor_overhead() * 2, nullptr, /*no_alloc =*/true}));
    extra       = ggml_new_tensor_2d(ctx.get(), head->type, head->ne[0], n_rows);
    auto * buft = is_repacked(head) ? ggml_backend_buffer_get_type(head->buffer) : ggml_backend_cpu_buffer_type();
    buf.reset(ggml_backend_alloc_ctx_tensors_from_buft(ctx.get(), buft));
    if (!buf) {
        throw std::runtime_error("no memory for the shortlist of the draft head");
    }
    memset(extra->data, 0, ggml_nbytes(extra));

    slot_group.assign(n_slots, -1);
    group_slot.assign((n_vocab + group_rows - 1) / group_rows, -1);
    for (const int32_t group : groups) {
        copy_rows(group, next_slot++);
    }
    n_extra = n_pinned * group_rows;
}

void llama_nextn_shortlist::set_prefix(int32_t n) {
    // whole groups of interleaved rows, and enough of them to share among threads
    n_prefix = n >= n_vocab ? n_vocab : n / 256 * 256;
}

bool llama_nextn_shortlist::contains(llama_token id) const {
    return 0 <= id && id < n_vocab && (id < n_prefix || group_slot[id / group_rows] >= 0);
}

bool llama_nextn_shortlist::add(llama_token id) {
    if (id < 0 || id >= n_vocab || n_slots == n_pinned || contains(id)) {
        return false;
    }
    const int32_t slot = next_slot;
    if (slot_group[slot] >= 0) {
        group_slot[slot_group[slot]] = -1;
    }
    copy_rows(id / group_rows, slot);
    next_slot = slot + 1 < n_slots ? slot + 1 : n_pinned;
    n_extra   = std::max(n_extra, (slot + 1) * group_rows);
    return true;
}

void llama_nextn_shortlist::copy_rows(int32_t group, int32_t slot) {
    const size_t size = group_rows * head->nb[1];
    memcpy((char *) extra->data + slot * size, (const char *) head->data + group * size, size);
    slot_group[slot]  = group;
    group_slot[group] = slot;
}

void llama_nextn_shortlist::clear() {
    for (int32_t slot = n_pinned; slot < n_slots; ++slot) {
        if (slot_group[slot] >= 0) {
            group_slot[slot_group[slot]] = -1;
        }
        slot_group[slot] = -1;
    }
    n_extra   = n_pinned * group_rows;
    next_slot = n_pinned;
}

size_t llama_nextn_shortlist::get_n_bytes() const {
    return ggml_backend_buffer_get_size(buf.get()) + (slot_group.size() + group_slot.size()) * sizeof(int32_t);
}

int32_t llama_nextn_shortlist::get_n_extra_rows() const {
    return n_prefix == n_vocab ? 0 : (n_extra + extra_step - 1) / extra_step * extra_step;
}

// A view of whole rows that computes like the matrix it views: a repacked matrix is known by its buffer and its traits.
static ggml_tensor * view_rows(ggml_context * ctx0, ggml_tensor * matrix, int64_t n_rows) {
    ggml_tensor * view = ggml_view_2d(ctx0, matrix, matrix->ne[0], n_rows, matrix->nb[1], 0);
    view->buffer       = matrix->buffer;
    view->data         = matrix->data;
    view->extra        = matrix->extra;
    return view;
}

ggml_tensor * llama_nextn_shortlist::build_prefix(ggml_context * ctx0) const {
    return n_prefix == 0 ? nullptr : n_prefix == n_vocab ? head : view_rows(ctx0, head, n_prefix);
}

ggml_tensor * llama_nextn_shortlist::build_extra(ggml_context * ctx0) const {
    return get_n_extra_rows() == 0 ? nullptr : view_rows(ctx0, extra, get_n_extra_rows());
}

llama_token llama_nextn_shortlist::token_of(int64_t row) const {
    if (row < n_prefix) {
        return (llama_token) row;
    }
    const int64_t slot = (row - n_prefix) / group_rows;
    return (llama_token) (slot_group[slot] * group_rows + (row - n_prefix) % group_rows);
}

ggml_tensor * llama_nextn_short_head(ggml_context * ctx0, llm_graph_result & res, const llama_nextn_cparams & cparams,
                                     ggml_tensor * head, ggml_tensor * cur) {
    const auto * shortlist = cparams.shortlist;
    if (!shortlist) {
        return head;
    }
    ggml_tensor * prefix = shortlist->build_prefix(ctx0);
    ggml_tensor * extra  = shortlist->build_extra(ctx0);
    if (prefix && extra) {
        res.nextn.extra_logits = ggml_mul_mat(ctx0, extra, cur);
    }
    return prefix ? prefix : extra;
}

void llama_nextn_build_fill(ggml_context * ctx0, ggml_cgraph * gf, const llm_graph_input_attn_kv & inp,
                            ggml_tensor * out_ids, ggml_tensor * k, ggml_tensor * v, int il) {
    if (inp.self_k_rot) {
        k = llama_mul_mat_hadamard(ctx0, k, inp.self_k_rot);
    }
    if (inp.self_v_rot) {
        v = llama_mul_mat_hadamard(ctx0, v, inp.self_v_rot);
    }
    ggml_build_forward_expand(gf, inp.mctx->cpy_k(ctx0, k, inp.get_k_idxs(), il));
    ggml_build_forward_expand(gf, inp.mctx->cpy_v(ctx0, v, inp.get_v_idxs(), il));
    ggml_build_forward_expand(gf, out_ids); // an input that is written even when it is empty
}

//
// best token of a row
//

namespace {

struct row_part {
    const float * data;
    int64_t       n;
    int64_t       offset; // of data[0] in [prefix; extra]
};

// exp(x) for x <= 0, to about 1e-6 relative. Plain arithmetic, so that the compiler vectorizes the loop around it:
// 2^t = 2^round(t) * 2^f with |f| <= 1/2 and the Taylor polynomial of 2^f.
inline float exp_nonpositive(float x) {
    const float   t = std::max(x, -87.0f) * 1.44269504f;
    const int32_t k = (int32_t) (t - 0.5f);
    const float   f = t - (float) k;
    const float   y = 1.0f + f * (0.693147181f +
                                  f * (0.240226507f + f * (0.0555041087f + f * (0.00961812911f + f * 0.00133335581f))));
    const int32_t bits = (k + 127) << 23;
    float         scale;
    memcpy(&scale, &bits, sizeof(scale));
    return y * scale;
}

float max_of(const float * x, int64_t n) {
    constexpr int lanes = 16;
    float         best[lanes];
    std::fill(best, best + lanes, -INFINITY);
    int64_t i = 0;
    for (; i + lanes <= n; i += lanes) {
        for (int l = 0; l < lanes; ++l) {
            best[l] = x[i + l] > best[l] ? x[i + l] : best[l];
        }
    }
    for (; i < n; ++i) {
        best[0] = x[i] > best[0] ? x[i] : best[0];
    }
    return *std::max_element(best, best + lanes);
}

float sum_exp(const float * x, int64_t n, float max) {
    constexpr int lanes      = 16;
    float         sum[lanes] = {};
    int64_t       i          = 0;
    for (; i + lanes <= n; i += lanes) {
        for (int l = 0; l < lanes; ++l) {
            sum[l] += exp_nonpositive(x[i + l] - max);
        }
    }
    for (; i < n; ++i) {
        sum[0] += exp_nonpositive(x[i] - max);
    }
    float all = 0;
    for (const float s : sum) {
        all += s;
    }
    return all;
}

void search_part(float * out, const row_part & part, bool with_p) {
    const float   max = max_of(part.data, part.n);
    const int64_t at  = std::find(part.data, part.data + part.n, max) - part.data;
    out[0]            = max;
    out[1]            = at < part.n ? (float) (part.offset + at) : -1.0f; // rows are below 2^24: exact
    out[2]            = with_p && at < part.n && std::isfinite(max) ? sum_exp(part.data, part.n, max) : 0.0f;
    out[3]            = 0.0f;
}

// Part i of n of a row of [logits; extra]: parts do not cross from one into the other.
row_part part_of(const ggml_tensor * logits, const ggml_tensor * extra, int64_t n_extra, int64_t row, int64_t i) {
    const int64_t n_first = extra ? llama_nextn_best_parts - 1 : llama_nextn_best_parts;
    if (i >= n_first) {
        return {(const float *) ((const char *) extra->data + row * extra->nb[1]), n_extra, logits->ne[0]};
    }
    const int64_t n   = logits->ne[0];
    const int64_t beg = n * i / n_first;
    const int64_t end = n * (i + 1) / n_first;
    return {(const float *) ((const char *) logits->data + row * logits->nb[1]) + beg, end - beg, beg};
}

template <bool with_p>
void op_best(ggml_tensor * dst, int ith, int nth, void * userdata) {
    const auto * shortlist = static_cast<const llama_nextn_shortlist *>(userdata);
    const auto * logits    = dst->src[0];
    const auto * extra     = dst->src[1];

    // rows beyond the valid ones are zeros, or of forgotten tokens
    const int64_t n_extra = shortlist ? shortlist->get_n_extra() : 0;
    const bool    alone   = shortlist && shortlist->get_n_prefix() == 0;

    for (int64_t k = ith; k < dst->ne[1] * dst->ne[2]; k += nth) {
        const int64_t row  = k / dst->ne[1];
        const int64_t i    = k % dst->ne[1];
        row_part      part = part_of(logits, extra, n_extra, row, i);
        if (alone) {
            part.n = std::clamp<int64_t>(n_extra - part.offset, 0, part.n);
        }
        search_part((float *) ((char *) dst->data + row * dst->nb[2] + i * dst->nb[1]), part, with_p);
    }
}

} // namespace

ggml_tensor * llama_nextn_build_best(ggml_context * ctx0, ggml_tensor * logits, ggml_tensor * extra,
                                     const llama_nextn_shortlist * shortlist, bool with_p) {
    ggml_tensor * args[2] = {logits, extra};
    return ggml_custom_4d(ctx0, GGML_TYPE_F32, 4, llama_nextn_best_parts, logits->ne[1], 1, args, extra ? 2 : 1,
                          with_p ? op_best<true> : op_best<false>, GGML_N_TASKS_MAX,
                          const_cast<llama_nextn_shortlist *>(shortlist));
}

llama_nextn_best llama_nextn_combine_best(const float * parts, const llama_nextn_shortlist * shortlist) {
    float max = -INFINITY;
    float row = -1;
    for (int64_t i = 0; i < llama_nextn_best_parts; ++i) {
        const float * part = parts + 4 * i;
        if (part[1] >= 0 && (row < 0 || part[0] > max)) {
            max = part[0];
            row = part[1];
        }
    }
    if (row < 0) {
        return {LLAMA_TOKEN_NULL, 0.0f};
    }
    float sum = 0;
    for (int64_t i = 0; i < llama_nextn_best_parts; ++i) {
        sum += parts[4 * i + 2] > 0 ? parts[4 * i + 2] * std::exp(parts[4 * i] - max) : 0.0f;
    }
    const auto id = shortlist ? shortlist->token_of((int64_t) row) : (llama_token) row;
    return {id, sum > 0 ? 1 / sum : 0.0f};
}
