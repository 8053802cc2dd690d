// The drafter's C interface: checks what a caller can get wrong, and passes on.

#include "llama-impl.h"
#include "llama-nextn-drafter.h"

#include <cmath>
#include <exception>

llama_nextn_draft_params llama_nextn_draft_default_params(void) {
    return {
        /*.n_max       =*/8,
        /*.n_min       =*/0,
        /*.p_min       =*/0.0f,
        /*.adaptive    =*/true,
        /*.n_vocab     =*/0,
        /*.vocab_ids   =*/nullptr,
        /*.n_vocab_ids =*/0,
    };
}

llama_nextn_drafter * llama_nextn_drafter_init(llama_context * ctx_tgt, llama_context * ctx_dft,
                                               llama_nextn_draft_params params) {
    const bool in_range = 1 <= params.n_max && params.n_max <= llama_nextn_length::k_max && 0 <= params.n_min &&
                          params.n_min <= params.n_max && 0.0f <= params.p_min && params.p_min <= 1.0f &&
                          -1 <= params.n_vocab && 0 <= params.n_vocab_ids &&
                          (params.vocab_ids || params.n_vocab_ids == 0);
    if (!ctx_tgt || !ctx_dft || llama_get_nextn(ctx_tgt) != ctx_dft || !in_range) {
        return nullptr;
    }
    try {
        return new llama_nextn_drafter(ctx_tgt, ctx_dft, params);
    } catch (const std::exception & err) {
        LLAMA_LOG_ERROR("%s: %s\n", __func__, err.what());
        return nullptr;
    }
}

void llama_nextn_drafter_free(llama_nextn_drafter * drafter) {
    delete drafter;
}

void llama_nextn_drafter_begin(llama_nextn_drafter * drafter, llama_seq_id seq_id) {
    drafter->begin(seq_id);
}

const float * llama_nextn_drafter_get_carry(llama_nextn_drafter * drafter, llama_seq_id seq_id) {
    return drafter->get_carry(seq_id);
}

bool llama_nextn_drafter_resume(llama_nextn_drafter * drafter, llama_seq_id seq_id, const llama_token * tokens,
                                int32_t n_tokens, const float * carry) {
    return drafter->resume(seq_id, tokens, n_tokens, carry);
}

int32_t llama_nextn_drafter_feed(llama_nextn_drafter * drafter, llama_seq_id seq_id, const llama_token * tokens,
                                 int32_t n_tokens, const float * hidden) {
    return drafter->feed(seq_id, tokens, n_tokens, hidden);
}

int32_t llama_nextn_draft(llama_nextn_drafter * drafter, llama_seq_id seq_id, llama_token id_last, int32_t n_room,
                          llama_token * out, float * p) {
    return drafter->draft(seq_id, id_last, n_room, out, p);
}

void llama_nextn_drafter_accept(llama_nextn_drafter * drafter, llama_seq_id seq_id, int32_t n_sent, int32_t n_accepted,
                                double t_verify_us) {
    drafter->accept(seq_id, n_sent, n_accepted, t_verify_us);
}

int32_t llama_nextn_drafter_rest(llama_nextn_drafter * drafter, llama_seq_id seq_id) {
    return drafter->rest(seq_id);
}

bool llama_nextn_drafter_set_draw(llama_nextn_drafter * drafter, llama_seq_id seq_id, const llama_nextn_draw * draw) {
    if (draw && !(draw->temperature > 0 && std::isfinite(draw->temperature) && draw->top_k >= 0 && draw->top_p >= 0 &&
                  draw->top_p <= 1 && draw->min_p >= 0 && draw->min_p <= 1)) {
        return false;
    }
    drafter->set_draw(seq_id, draw);
    return true;
}

int32_t llama_nextn_drafter_get_q(const llama_nextn_drafter * drafter, llama_seq_id seq_id, int32_t i,
                                  const llama_token ** ids, const float ** q) {
    const auto * dist = drafter->get_q(seq_id, i);
    if (!dist) {
        return 0;
    }
    *ids = dist->ids.data();
    *q   = dist->q.data();
    return (int32_t) dist->ids.size();
}

int32_t llama_nextn_drafter_get_row(llama_nextn_drafter * drafter, const llama_token ** ids, const float ** logits) {
    return drafter->get_row(ids, logits);
}

int32_t llama_nextn_draft_many(llama_nextn_drafter * drafter, llama_nextn_draft_request * reqs, int32_t n_reqs) {
    return drafter->draft_many(reqs, n_reqs);
}

void llama_nextn_drafter_set_limits(llama_nextn_drafter * drafter, llama_seq_id seq_id, int32_t n_max, int32_t n_min,
                                    float p_min) {
    drafter->set_limits(seq_id, n_max, n_min, p_min);
}

llama_pos llama_nextn_drafter_n_past(const llama_nextn_drafter * drafter, llama_seq_id seq_id) {
    return drafter->n_past(seq_id);
}

int32_t llama_nextn_drafter_flush(llama_nextn_drafter * drafter, llama_seq_id seq_id) {
    return drafter->flush_all(seq_id);
}

void llama_nextn_drafter_rewind(llama_nextn_drafter * drafter, llama_seq_id seq_id, llama_pos n_past,
                                const float * carry, const llama_token * tokens, int32_t n_tokens) {
    drafter->rewind(seq_id, n_past, carry, tokens, n_tokens);
}

bool llama_nextn_drafter_saw_p(llama_nextn_drafter * drafter, llama_seq_id seq_id, int32_t i, const float * p) {
    return drafter->saw_p(seq_id, i, p);
}

llama_nextn_draft_stats llama_nextn_drafter_get_stats(const llama_nextn_drafter * drafter, llama_seq_id seq_id) {
    return drafter->get_stats(seq_id);
}
