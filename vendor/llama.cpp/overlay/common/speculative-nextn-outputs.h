#pragma once

// What a request reads of the target's rows.

#include "llama-nextn.h"

#include "sampling.h"

#include <algorithm>

// Whether a request's sampler takes the arg-max of each row whatever else it is told, so that no row has to be copied
// to it: the samplers that are left only cut tokens that are less likely.
inline bool common_nextn_by_argmax(const common_params_sampling & sampling, const llama_vocab * vocab) {
    const auto has = [&](common_sampler_type name) {
        return std::find(sampling.samplers.begin(), sampling.samplers.end(), name) != sampling.samplers.end();
    };
    int32_t n_suppressed = 0;
    llama_vocab_get_suppress_tokens(vocab, &n_suppressed);

    const bool greedy = sampling.temp <= 0 && sampling.dynatemp_range == 0 && sampling.mirostat == 0 &&
                        has(COMMON_SAMPLER_TYPE_TEMPERATURE) && !has(COMMON_SAMPLER_TYPE_INFILL) &&
                        !has(COMMON_SAMPLER_TYPE_ADAPTIVE_P);
    const bool as_is  = sampling.penalty_repeat == 1 && sampling.penalty_freq == 0 && sampling.penalty_present == 0 &&
                        sampling.dry_multiplier == 0 && sampling.xtc_probability == 0 && sampling.typ_p >= 1 &&
                        sampling.logit_bias.empty() && !sampling.ignore_eos && n_suppressed == 0;
    const bool free   = common_grammar_value(sampling.grammar).empty() && sampling.reasoning_budget_tokens < 0 &&
                        !sampling.reasoning_control;
    return greedy && as_is && free && sampling.n_probs == 0 && !sampling.backend_sampling;
}
