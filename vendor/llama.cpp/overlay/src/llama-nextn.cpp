#include "llama-nextn-state.h"

#include "llama-context.h"
#include "llama-ext.h"
#include "llama-impl.h"
#include "llama-kv-cache-iswa.h"
#include "llama-kv-cache.h"
#include "llama-memory-hybrid.h"
#include "llama-memory-recurrent.h"
#include "llama-model.h"
#include "llama-nextn-stamp.h"

#include <algorithm>
#include <limits>

//
// which models and parameters fit
//

static bool nextn_arch_known(const llama_model & model) {
    return model.arch == LLM_ARCH_QWEN35 || model.arch == LLM_ARCH_QWEN35MOE || model.arch == LLM_ARCH_QWEN3NEXT;
}

static const char * nextn_head_refusal(const llama_model & model) {
    const auto & hparams = model.hparams;

    if (hparams.n_layer_nextn == 0) {
        return "the model has no NextN layer";
    }
    if (!nextn_arch_known(model)) {
        return "the NextN layer of this architecture is not supported";
    }
    if (hparams.n_layer_nextn != 1) {
        return "models with more than one NextN layer are not supported";
    }
    const auto & nextn = model.layers[hparams.n_layer()].nextn;
    if (!nextn.eh_proj || !nextn.enorm || !nextn.hnorm) {
        return "the model was loaded without its NextN layer (llama_model_params.load_mtp)";
    }
    return nullptr;
}

const char * llama_nextn_build_stamp(void) {
    return LLAMA_NEXTN_BUILD_STAMP;
}

bool llama_model_has_nextn_layer(const llama_model * model) {
    return model && !model->hparams.vocab_only && !nextn_head_refusal(*model);
}

bool llama_model_is_nextn_only(const llama_model * model) {
    return model && !model->hparams.vocab_only && nextn_arch_known(*model) && model->hparams.n_layer_nextn > 0 &&
           model->hparams.n_layer() > 0 && !model->layers[0].attn_norm;
}

const char * llama_nextn_refusal(const llama_model * model, llama_context_params params) {
    if (!model) {
        return "there is no model";
    }
    const bool is_draft = params.nextn_draft || (params.ctx_type == LLAMA_CONTEXT_TYPE_MTP && nextn_arch_known(*model));
    if (is_draft) {
        return nextn_head_refusal(*model);
    }
    if (llama_model_is_nextn_only(model)) {
        return "the file holds only the NextN layer: it can draft for its full model, not decode";
    }
    return nullptr;
}

llama_context_params llama_nextn_apply(llama_context_params params) {
    if (params.nextn_draft) {
        params.ctx_type = LLAMA_CONTEXT_TYPE_MTP;
        params.n_rs_seq = 0; // one attention layer: nothing recurrent to roll back
    }
    return params;
}

//
// graph
//

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

//
// memory
//

// the recurrent half of a memory, or NULL
static const llama_memory_recurrent * nextn_recurrent(llama_memory_t mem) {
    if (const auto * hybrid = dynamic_cast<const llama_memory_hybrid *>(mem)) {
        return hybrid->get_mem_recr();
    }
    return dynamic_cast<const llama_memory_recurrent *>(mem);
}

// a memory from which any suffix can be removed at any time
static bool nextn_is_plain_kv(llama_memory_t mem) {
    return dynamic_cast<const llama_kv_cache *>(mem) || dynamic_cast<const llama_kv_cache_iswa *>(mem);
}

//
// exported rows
//

void llama_nextn_state::decode_begin(uint32_t n_tokens_all) {
    snapshots.clear();
    row_order.clear();
    best_index.clear();
    best_parts.clear();
    short_rows.clear();
    n_rows   = 0;
    n_tokens = ctx.get_cparams().nextn.fill ? 0 : (int32_t) n_tokens_all; // a batch that only fills has no rows
}

void llama_nextn_state::ubatch_done(const llama_ubatch & ubatch, const llm_graph_result & res,
                                    ggml_backend_sched_t sched) {
    n_ubatches++;

    if (const auto * recr = nextn_recurrent(ctx.get_memory())) {
        for (uint32_t s = 0; s < ubatch.n_seqs_unq; ++s) {
            const llama_seq_id seq_id = ubatch.seq_id_unq[s];
            const snapshot snap = {(int32_t) ubatch.n_seq_tokens, recr->seq_pos_max(seq_id), recr->cells[seq_id].tail};

            auto it =
                std::find_if(snapshots.begin(), snapshots.end(), [&](const auto & e) { return e.first == seq_id; });
            if (it == snapshots.end()) {
                snapshots.emplace_back(seq_id, snap);
            } else {
                it->second = snap;
            }
        }
    }

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

void llama_nextn_state::forget_snapshots() {
    snapshots.clear();
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
    if (i < 0) {
        i += n_tokens;
    }
    return 0 <= i && i < n_tokens;
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

//
// pairing and rollback
//

llama_nextn_state::~llama_nextn_state() {
    pair(nullptr);
    if (ctx_tgt) {
        ctx_tgt->nextn.ctx_dft = nullptr;
    }
}

bool llama_nextn_state::pair(llama_context * dft) {
    if (dft) {
        const auto & model_tgt = ctx.get_model();
        const auto & model_dft = dft->get_model();

        const bool fits = dft != &ctx && dft->get_cparams().ctx_type == LLAMA_CONTEXT_TYPE_MTP &&
                          ctx.get_cparams().ctx_type != LLAMA_CONTEXT_TYPE_MTP &&
                          model_tgt.hparams.n_embd_out() == model_dft.hparams.n_embd_out() &&
                          model_tgt.vocab.n_tokens() == model_dft.vocab.n_tokens();
        if (!fits || (dft->nextn.ctx_tgt && dft->nextn.ctx_tgt != &ctx)) {
            return false;
        }
    }
    if (ctx_dft) {
        ctx_dft->nextn.ctx_tgt = nullptr;
    }
    ctx_dft = dft;
    if (ctx_dft) {
        ctx_dft->nextn.ctx_tgt = &ctx;
    }
    return true;
}

const llama_nextn_state::snapshot * llama_nextn_state::find_snapshot(llama_seq_id seq_id) const {
    for (const auto & [id, snap] : snapshots) {
        if (id == seq_id) {
            return &snap;
        }
    }
    return nullptr;
}

int32_t llama_nextn_state::max_rollback(llama_seq_id seq_id) const {
    auto * mem = ctx.get_memory();
    if (seq_id < 0 || (uint32_t) seq_id >= ctx.n_seq_max()) {
        return 0;
    }
    if (nextn_is_plain_kv(mem)) {
        return std::numeric_limits<int32_t>::max();
    }
    const auto * recr = nextn_recurrent(mem);
    const auto * snap = find_snapshot(seq_id);
    // anything that moved the sequence since its last batch (a rollback, a copy, a shift) took it off its snapshots
    if (!recr || !snap || recr->rs_idx[seq_id] != 0 || recr->cells[seq_id].tail != snap->cell ||
        recr->seq_pos_max(seq_id) != snap->pos) {
        return 0;
    }
    return std::min<int32_t>(snap->n_tokens, 1 + (int32_t) recr->n_rs_seq) - 1;
}

bool llama_nextn_state::seq_rm(llama_seq_id seq_id, llama_pos p0, llama_pos p1) {
    auto * mem = ctx.get_memory();
    if (!mem || seq_id < 0 || (uint32_t) seq_id >= ctx.n_seq_max()) {
        return false;
    }
    p0 = std::max(p0, 0);
    p1 = p1 < 0 ? std::numeric_limits<llama_pos>::max() : p1;

    // the recurrent half decides: an aborted decode can leave it ahead of the attention half
    const auto *    recr    = nextn_recurrent(mem);
    const llama_pos pos_max = recr ? recr->seq_pos_max(seq_id) : mem->seq_pos_max(seq_id);

    const bool whole   = p0 == 0 && p1 > pos_max;
    const bool nothing = p0 > pos_max || p0 >= p1;
    const bool suffix  = p1 > pos_max && pos_max - p0 + 1 <= max_rollback(seq_id);
    if (!whole && !nothing && !suffix && !nextn_is_plain_kv(mem)) {
        return false;
    }
    if (!nothing && !mem->seq_rm(seq_id, whole ? -1 : p0, whole || p1 > pos_max ? -1 : p1)) {
        return false;
    }
    if (ctx_dft && p0 < p1) {
        ctx_dft->get_memory()->seq_rm(seq_id, p0, p1); // a plain KV cache: removing a range cannot fail
    }
    return true;
}

//
// C interface
//

void llama_set_nextn_tap(llama_context * ctx, llama_nextn_tap tap) {
    ctx->nextn.set_tap(tap);
}

llama_nextn_tap llama_get_nextn_tap(const llama_context * ctx) {
    return ctx->nextn.get_tap();
}

void llama_set_nextn_hidden(llama_context * ctx, bool value) {
    ctx->nextn.set_hidden(value);
}

float * llama_get_nextn_hidden(llama_context * ctx) {
    return llama_get_nextn_hidden_ith(ctx, 0);
}

float * llama_get_nextn_hidden_ith(llama_context * ctx, int32_t i) {
    return const_cast<float *>(ctx->nextn.get_hidden(i));
}

void llama_set_embeddings_pre_norm(llama_context * ctx, bool value) {
    ctx->nextn.set_pre_norm(value);
}

float * llama_get_embeddings_pre_norm(llama_context * ctx) {
    return llama_get_embeddings_pre_norm_ith(ctx, 0);
}

float * llama_get_embeddings_pre_norm_ith(llama_context * ctx, int32_t i) {
    return const_cast<float *>(ctx->nextn.get_pre_norm(i));
}

void llama_set_nextn_best(llama_context * ctx, bool value, bool with_p, bool keep_logits) {
    ctx->nextn.set_best(value, with_p, keep_logits);
}

bool llama_get_nextn_best_ith(llama_context * ctx, int32_t i, llama_token * id, float * p) {
    llama_nextn_best best;
    if (!ctx->nextn.get_best(i, best)) {
        return false;
    }
    *id = best.id;
    if (p) {
        *p = best.p;
    }
    return true;
}

bool llama_set_nextn(llama_context * ctx_tgt, llama_context * ctx_dft) {
    return ctx_tgt && ctx_tgt->nextn.pair(ctx_dft);
}

llama_context * llama_get_nextn(const llama_context * ctx_tgt) {
    return ctx_tgt->nextn.get_ctx_dft();
}

int32_t llama_nextn_max_rollback(const llama_context * ctx_tgt, llama_seq_id seq_id) {
    return ctx_tgt->nextn.max_rollback(seq_id);
}

bool llama_context_nextn_seq_rm(llama_context * ctx_tgt, llama_seq_id seq_id, llama_pos p0, llama_pos p1) {
    return ctx_tgt && ctx_tgt->nextn.seq_rm(seq_id, p0, p1);
}

int32_t llama_nextn_n_graph_builds(const llama_context * ctx) {
    return ctx->nextn.get_n_graph_builds();
}

int32_t llama_nextn_n_graph_reuses(const llama_context * ctx) {
    return ctx->nextn.get_n_ubatches() - ctx->nextn.get_n_graph_builds();
}
