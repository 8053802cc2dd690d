// What a decode leaves behind for nextn: hidden rows, the best token of each row, the rows they were found in.

#include "llama-context.h"
#include "llama-nextn-state.h"

#include <algorithm>

void llama_nextn_set_outputs(llm_graph_result & res, const llama_nextn_cparams & cparams) {
    auto & nextn = res.nextn;

    // Rows that may be exported are outputs always: the allocator keeps its plan while the shape of the graph stays,
    // and would let a later operation write over rows that were no output when the plan was made.
    for (ggml_tensor * t : {nextn.pre_norm, nextn.pre_norm ? res.t_h_nextn : nullptr,
                            cparams.best ? res.t_logits : nullptr, cparams.best ? nextn.extra_logits : nullptr}) {
        if (t) {
            ggml_set_output(t);
        }
    }
    if (nextn.pre_norm && cparams.tap_pre && res.t_h_nextn) {
        res.t_h_nextn = nextn.pre_norm;
    }
    if (cparams.best && res.t_logits) {
        nextn.best =
            llama_nextn_build_best(res.get_ctx(), res.t_logits, nextn.extra_logits, cparams.shortlist, cparams.best_p);
        ggml_set_output(nextn.best);
        ggml_build_forward_expand(res.get_gf(), nextn.best);
        nextn.short_logits = cparams.row ? res.t_logits : nullptr;
        if (cparams.no_logits) {
            res.t_logits = nullptr;
        }
    }
}

void llama_nextn_state::decode_begin(uint32_t n_tokens_all) {
    snapshots.clear();
    row_order.clear();
    best_index.clear();
    best_parts.clear();
    short_rows.clear();
    n_rows    = 0;
    n_padding = 0;
    n_tokens  = ctx.get_cparams().nextn.fill ? 0 : (int32_t) n_tokens_all; // a batch that only fills has no rows
}

void llama_nextn_state::ubatch_done(const llama_ubatch & ubatch, const llm_graph_result & res,
                                    ggml_backend_sched_t sched) {
    n_ubatches++;

    take_snapshots(ubatch);
    collect_best(ubatch, res, sched);
    collect_rows(res, sched);

    ggml_tensor * t = ctx.get_cparams().nextn.pre_norm ? res.nextn.pre_norm : nullptr;
    // fewer rows than tokens: the graph was told to keep only the output rows, so there is no row per token to export
    if (!t || t->ne[1] != (int64_t) ubatch.n_tokens || !ubatch.data) {
        return;
    }
    const size_t n_embd = t->ne[0];
    rows.resize(n_embd * n_tokens);
    ggml_backend_tensor_get_async(ggml_backend_sched_get_tensor_backend(sched, t), t, rows.data() + n_embd * n_rows, 0,
                                  n_embd * ubatch.n_tokens * sizeof(float));
    row_order.insert(row_order.end(), ubatch.data->batch_idxs.begin(), ubatch.data->batch_idxs.end());
    n_rows += (int32_t) ubatch.n_tokens;
}

void llama_nextn_state::collect_best(const llama_ubatch & ubatch, const llm_graph_result & res,
                                     ggml_backend_sched_t sched) {
    ggml_tensor * t = res.nextn.best;
    if (!t || !ubatch.data) {
        return;
    }
    const size_t n_old = best_index.size();
    for (uint32_t i = 0; i < ubatch.n_tokens; ++i) {
        if (ubatch.output[i]) {
            best_index.push_back(ubatch.data->batch_idxs[i]);
        }
    }
    const size_t n_row = 4 * llama_nextn_best_parts;
    if (best_index.size() - n_old != (size_t) t->ne[2]) {
        best_index.resize(n_old); // rows that no output was asked for
        return;
    }
    best_parts.resize(best_index.size() * n_row);
    ggml_backend_tensor_get_async(ggml_backend_sched_get_tensor_backend(sched, t), t, best_parts.data() + n_old * n_row,
                                  0, ggml_nbytes(t));
}

void llama_nextn_state::collect_rows(const llm_graph_result & res, ggml_backend_sched_t sched) {
    const auto *  list = shortlist.get();
    ggml_tensor * t[2] = {res.nextn.short_logits, res.nextn.extra_logits};
    if (!t[0] || t[0]->ne[1] == 0) {
        return;
    }
    // rows of the matrix beyond the valid ones are zeros, or of forgotten tokens
    const bool   all_extra = list && list->get_n_prefix() == 0;
    const size_t n[2]      = {all_extra ? (size_t) list->get_n_extra() : (size_t) t[0]->ne[0],
                              t[1] ? (size_t) list->get_n_extra() : 0};
    size_t       at        = short_rows.size();
    short_rows.resize(at + t[0]->ne[1] * (n[0] + n[1]));
    for (int64_t row = 0; row < t[0]->ne[1]; ++row) {
        for (int part = 0; part < 2; ++part) {
            if (n[part] > 0) {
                ggml_backend_tensor_get_async(ggml_backend_sched_get_tensor_backend(sched, t[part]), t[part],
                                              short_rows.data() + at, row * t[part]->nb[1], n[part] * sizeof(float));
                at += n[part];
            }
        }
    }
}

void llama_nextn_state::decode_failed() {
    decode_begin(0);
}

void llama_nextn_state::order_rows() {
    if (row_order.empty()) {
        return;
    }
    if (!std::is_sorted(row_order.begin(), row_order.end())) {
        const size_t       n_embd = rows.size() / row_order.size();
        std::vector<float> ordered(rows.size());
        for (size_t i = 0; i < row_order.size(); ++i) {
            std::copy_n(rows.data() + i * n_embd, n_embd, ordered.data() + row_order[i] * n_embd);
        }
        rows.swap(ordered);
    }
    row_order.clear();
}

bool llama_nextn_state::row_in_range(int32_t & i) const {
    const int32_t n = n_tokens - n_padding;
    if (i < 0) {
        i += n;
    }
    return 0 <= i && i < n;
}

void llama_nextn_state::set_tap(llama_nextn_tap tap) {
    ctx.cparams.nextn.tap_pre = tap == LLAMA_NEXTN_TAP_PRE;
}

llama_nextn_tap llama_nextn_state::get_tap() const {
    return ctx.get_cparams().nextn.tap_pre ? LLAMA_NEXTN_TAP_PRE : LLAMA_NEXTN_TAP_POST;
}

void llama_nextn_state::set_hidden(bool value) {
    ctx.set_embeddings_nextn(value, /*masked =*/false);
    n_tokens = 0; // rows of an earlier batch were not kept
    n_rows   = 0;
}

const float * llama_nextn_state::get_hidden(int32_t i) {
    const auto & cparams = ctx.get_cparams();
    if (!cparams.embeddings_nextn || cparams.embeddings_nextn_masked || !row_in_range(i)) {
        return nullptr;
    }
    ctx.synchronize();
    return ctx.get_embeddings_nextn_ith(i);
}

void llama_nextn_state::set_pre_norm(bool value) {
    ctx.cparams.nextn.pre_norm = value;
    n_rows                     = 0;
}

const float * llama_nextn_state::get_pre_norm(int32_t i) {
    if (n_rows == 0 || n_rows != n_tokens || !row_in_range(i)) {
        return nullptr;
    }
    ctx.synchronize();
    order_rows();
    return rows.data() + (size_t) i * (rows.size() / n_rows);
}

void llama_nextn_state::set_best(bool value, bool with_p, bool keep_logits) {
    auto & cparams    = ctx.cparams.nextn;
    cparams.best      = value;
    cparams.best_p    = value && with_p;
    cparams.no_logits = value && !keep_logits;
}

bool llama_nextn_state::get_best(int32_t i, llama_nextn_best & best) {
    if (!row_in_range(i)) {
        return false;
    }
    const auto it = std::find(best_index.begin(), best_index.end(), i);
    if (it == best_index.end()) {
        return false;
    }
    ctx.synchronize();
    best = llama_nextn_combine_best(best_parts.data() + (it - best_index.begin()) * 4 * llama_nextn_best_parts,
                                    shortlist.get());
    return true;
}

void llama_nextn_state::set_row(bool value) {
    ctx.cparams.nextn.row = value;
}

void llama_nextn_state::set_fill(bool value) {
    ctx.cparams.nextn.fill = value;
}

llama_nextn_state::row_view llama_nextn_state::get_row(int32_t i) {
    const auto it = row_in_range(i) ? std::find(best_index.begin(), best_index.end(), i) : best_index.end();
    if (it == best_index.end()) {
        return {nullptr, 0};
    }
    ctx.synchronize();
    const size_t n = short_rows.size() / best_index.size();
    return {short_rows.data() + (it - best_index.begin()) * n, (int64_t) n};
}

void llama_nextn_state::settle() noexcept {
    for (ggml_backend_t backend : ctx.backend_ptrs) {
        try {
            ggml_backend_synchronize(backend);
        } catch (const std::exception &) {
            // its worker is lost, and with it what was pending
        }
    }
}

void llama_nextn_state::set_shortlist(std::unique_ptr<llama_nextn_shortlist> list) {
    settle();
    shortlist = std::move(list);
    shortlist_changed();
}

void llama_nextn_state::shortlist_changed() {
    auto & cparams       = ctx.cparams.nextn;
    cparams.shortlist    = shortlist.get();
    cparams.n_prefix     = shortlist ? shortlist->get_n_prefix() : 0;
    cparams.n_extra_rows = shortlist ? shortlist->get_n_extra_rows() : 0;
}
