#pragma once

// `--spec-type nextn`: what command line and server call besides common_speculative_*. Everything here does nothing, or
// gives the neutral answer, when the type is another one or spec is NULL.

#include "common.h"
#include "sampling.h"
#include "speculative.h"

#include <array>
#include <cstdint>
#include <string>
#include <vector>

// How a request's drafts are judged, see speculative-nextn-accept.h.
enum common_speculative_accept {
    COMMON_SPECULATIVE_ACCEPT_AUTO,
    COMMON_SPECULATIVE_ACCEPT_MATCH,
    COMMON_SPECULATIVE_ACCEPT_RATIO,
};

// Whether a NextN head drafts: nextn or draft-mtp.
bool common_speculative_uses_head(const std::vector<common_speculative_type> & types);

// Whether our engine drafts.
bool common_speculative_is_nextn(const std::vector<common_speculative_type> & types);

// Once the files are known: a draft model that is the model itself needs no second copy of the weights, and a longest
// draft of 0 needs no drafting. Throws std::invalid_argument for limits that the engine does not have.
void common_speculative_resolve_nextn(common_params & params);

// The longest draft that a request allows, at most n_max: its own limit counts with nextn and draft-mtp.
int32_t common_speculative_request_n_max(const common_params_speculative & params, int32_t n_max);

// The engine keeps the draft memory itself: ctx_dft, or NULL when the server has to leave it alone.
llama_context * common_speculative_server_ctx(const common_speculative * spec, llama_context * ctx_dft);

// A request begins, or its prompt goes on, behind these tokens of the slot's text (a negative one stands for a token of
// an image, and for which image), the next one at position pos. Takes the request's options.
void common_speculative_resume(common_speculative * spec, llama_seq_id seq_id, const llama_tokens & text, llama_pos pos,
                               const common_params_speculative & params, const common_params_sampling & sampling);

// The verdict on a draft whose rows are outputs idxs of the target: the accepted tokens and one of the target's.
llama_tokens common_speculative_sample(common_speculative * spec, llama_seq_id seq_id, common_sampler * smpl,
                                       llama_context * ctx_tgt, const std::vector<int> & idxs,
                                       const llama_tokens & draft);

// The arg-max of output idx of the target, when that is all that the requests under way want of it and no row was
// copied; LLAMA_TOKEN_NULL: there is a row of logits. Throws std::runtime_error when the model gave no numbers.
llama_token common_speculative_best(llama_context * ctx_tgt, int idx);

// A slot's request has ended.
void common_speculative_release(common_speculative * spec, llama_seq_id seq_id);

// Before the draft memory of a slot is saved, and after the target's memory of a slot was copied to another.
void common_speculative_flush(common_speculative * spec, llama_seq_id seq_id);
void common_speculative_copy(common_speculative * spec, llama_seq_id seq_id, llama_seq_id seq_id_to,
                             const common_params_speculative & params, const common_params_sampling & sampling);

// What belongs to a slot's file: the draft memory, in a file beside it. Without that file drafting starts afresh.
void common_speculative_save(common_speculative * spec, llama_seq_id seq_id, const std::string & path);
void common_speculative_load(common_speculative * spec, llama_seq_id seq_id, const std::string & path,
                             const llama_tokens & text);

// What a request's drafting came to.
struct common_speculative_phases {
    static constexpr int k_max = 16;

    bool    active      = false; // a head drafts in this server
    int64_t t_draft_us  = 0;
    int64_t t_verify_us = 0; // decodes of the target, drafts or none

    std::array<int64_t, k_max> n_drafted_per_pos{};
    std::array<int64_t, k_max> n_accepted_per_pos{};
};

common_speculative_phases common_speculative_get_phases(const common_speculative * spec, llama_seq_id seq_id);
