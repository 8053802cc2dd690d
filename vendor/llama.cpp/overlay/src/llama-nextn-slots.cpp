// The part of the drafter that a server needs: texts that are cut, kept for later, copied and exchanged.

#include "llama-context.h"
#include "llama-nextn-drafter.h"

#include <algorithm>

int32_t llama_nextn_drafter::draft_many(llama_nextn_draft_request * reqs, int32_t n_reqs) {
    ctx_tgt->nextn.pad_next();
    if (n_reqs > 1) {
        return draft_group(reqs, n_reqs);
    }
    int32_t result = 0;
    for (int32_t i = 0; i < n_reqs; ++i) {
        auto & req  = reqs[i];
        req.n_draft = 0;

        const int32_t n = draft(req.seq_id, req.id_last, req.n_room, req.out, nullptr);
        if (n < 0) {
            result = n;
        } else {
            req.n_draft = n;
        }
    }
    return result;
}

void llama_nextn_drafter::set_limits(llama_seq_id seq_id, int32_t n_max, int32_t n_min, float p_min) {
    auto & seq = seqs[seq_id];
    seq.n_max  = std::clamp(n_max, 0, params.n_max);
    seq.n_min  = std::clamp(n_min, 0, seq.n_max);
    seq.p_min  = std::clamp(p_min, 0.0f, 1.0f);
    seq.length.set_n_max(seq.n_max);
}

llama_pos llama_nextn_drafter::n_past(llama_seq_id seq_id) const {
    const auto & seq = seqs[seq_id];
    return seq.n_true + (llama_pos) seq.tokens.size() - (seq.ahead != LLAMA_TOKEN_NULL ? 1 : 0);
}

int32_t llama_nextn_drafter::flush_all(llama_seq_id seq_id) {
    auto & seq = seqs[seq_id];
    if (seq.ahead != LLAMA_TOKEN_NULL) {
        seq.n_true--; // of a token that is not kept yet
        seq.ahead = LLAMA_TOKEN_NULL;
    }
    return flush(seq_id);
}

void llama_nextn_drafter::rewind(llama_seq_id seq_id, llama_pos n_past, const float * carry, const llama_token * tokens,
                                 int32_t n_tokens) {
    const std::vector<float> zeros(n_embd, 0.0f);
    restart(seq_id, std::max(n_past, 0), carry && n_past > 0 ? carry : zeros.data());
    coverage.note_text(seq_id, tokens, n_tokens);
}
