// Target and draft context as a pair, and how far both memories go back.

#include "llama-context.h"
#include "llama-kv-cache-iswa.h"
#include "llama-kv-cache.h"
#include "llama-memory-hybrid.h"
#include "llama-memory-recurrent.h"
#include "llama-model.h"
#include "llama-nextn-state.h"

#include <algorithm>
#include <limits>

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

void llama_nextn_state::take_snapshots(const llama_ubatch & ubatch) {
    const auto * recr = nextn_recurrent(ctx.get_memory());
    for (uint32_t s = 0; recr && s < ubatch.n_seqs_unq; ++s) {
        const llama_seq_id seq_id = ubatch.seq_id_unq[s];
        const snapshot snap = {(int32_t) ubatch.n_seq_tokens, recr->seq_pos_max(seq_id), recr->cells[seq_id].tail, 0};

        auto it = std::find_if(snapshots.begin(), snapshots.end(), [&](const auto & e) { return e.first == seq_id; });
        if (it == snapshots.end()) {
            snapshots.emplace_back(seq_id, snap);
        } else {
            it->second = snap;
        }
    }
}

bool llama_nextn_state::pads(const llama_batch_ext & batch) {
    return padding.applies(ctx, batch) && ctx.sampling.samplers.empty(); // those allow a sequence so many outputs only
}

int llama_nextn_state::decode_padded(const llama_batch_ext & batch) {
    const llama_batch_ext padded = padding.pad(batch);

    ctx.cparams.nextn.ends = padding.get_ends();
    const int ret          = ctx.decode(padded);
    ctx.cparams.nextn.ends = nullptr;
    if (ret == 0) {
        take_back_padding();
    }
    return ret == 1 ? ctx.decode(batch) : ret; // 1: no room
}

void llama_nextn_state::take_back_padding() {
    const auto * recr = nextn_recurrent(ctx.get_memory());
    for (const auto & span : padding.get_spans()) {
        if (span.n_padding == 0) {
            continue;
        }
        ctx.get_memory()->seq_rm(span.seq_id, span.end, -1); // within the snapshots: padding.applies() saw to that
        n_padding += span.n_padding;
        for (auto & [id, snap] : snapshots) {
            if (id == span.seq_id) {
                snap = {span.n_tokens, span.end - 1, snap.cell, recr->rs_idx[id]};
            }
        }
    }
}

int32_t llama_nextn_state::max_snapshots() const {
    const auto * recr = nextn_recurrent(ctx.get_memory());
    return recr ? (int32_t) recr->n_rs_seq + 1 : 0;
}

void llama_nextn_state::forget_snapshots() {
    snapshots.clear();
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
    if (!recr || !snap || recr->rs_idx[seq_id] != snap->rs_idx || recr->cells[seq_id].tail != snap->cell ||
        recr->seq_pos_max(seq_id) != snap->pos) {
        return 0;
    }
    return std::min<int32_t>(snap->n_tokens, max_snapshots() - (int32_t) snap->rs_idx) - 1;
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
