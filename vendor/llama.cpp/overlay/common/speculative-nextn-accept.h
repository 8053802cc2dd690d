#pragma once

// How drafts are judged: by the token that the sampler takes at each place (match), or by the ratio of probabilities
// (Leviathan et al. 2023, Chen et al. 2023). Both leave the text's distribution as it is; the second accepts more of
// tokens that were drawn, the first gives the text that the same seed has without drafts.

#include "llama-nextn.h"

#include "sampling.h"
#include "speculative-nextn.h"

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

// Whether the ratio decides: asked for or, as long as no seed is given, wherever all of the target's probabilities are
// at hand. A grammar is asked about single tokens, other selecting samplers have no probabilities.
inline bool common_nextn_by_ratio(const common_params_speculative & params, const common_params_sampling & sampling) {
    const auto & names    = sampling.samplers;
    const bool   possible = sampling.temp > 0 && sampling.mirostat == 0 && !sampling.backend_sampling &&
                            common_grammar_value(sampling.grammar).empty() &&
                            std::find(names.begin(), names.end(), COMMON_SAMPLER_TYPE_ADAPTIVE_P) == names.end();
    switch (params.draft.accept) {
        case COMMON_SPECULATIVE_ACCEPT_RATIO: return possible;
        case COMMON_SPECULATIVE_ACCEPT_MATCH: return false;
        default:                              return possible && sampling.seed == LLAMA_DEFAULT_SEED;
    }
}

// What a request's drafted tokens are drawn from: a q that resembles the target's p.
inline llama_nextn_draw common_nextn_draw(const common_params_sampling & sampling, uint64_t seed) {
    return {
        /*.temperature =*/sampling.temp,
        /*.top_k       =*/std::max(sampling.top_k, 0),
        /*.top_p       =*/std::clamp(sampling.top_p, 0.0f, 1.0f),
        /*.min_p       =*/std::clamp(sampling.min_p, 0.0f, 1.0f),
        /*.seed        =*/seed,
        /*.steady      =*/false,
    };
}

// A distribution that a token was drawn from: ids ascending. n 0: all of it was on the token.
struct common_nextn_q {
    int32_t             n   = 0;
    const llama_token * ids = nullptr;
    const float *       q   = nullptr;

    float of(llama_token id, llama_token drafted) const {
        if (n == 0) {
            return id == drafted ? 1.0f : 0.0f;
        }
        const int32_t i = find(id);
        return i < n ? q[i] : 0.0f;
    }

    // What the target gives to the ids [n].
    std::vector<float> of_ids(const llama_token_data_array & p) const {
        std::vector<float> found(n, 0.0f);
        for (size_t c = 0; c < p.size; ++c) {
            if (p.sorted && p.data[c].p < negligible) {
                break;
            }
            const int32_t i = find(p.data[c].id);
            if (i < n) {
                found[i] = p.data[c].p;
            }
        }
        return found;
    }

private:
    static constexpr float negligible = 1e-4f;

    int32_t find(llama_token id) const { // n: not there
        const auto * it = std::lower_bound(ids, ids + n, id);
        return it != ids + n && *it == id ? (int32_t) (it - ids) : n;
    }
};

class common_nextn_judge {
public:
    explicit common_nextn_judge(uint64_t seed) : rng(seed) {}

    // The drafted token with probability min(1, p / q), else one from the positive part of p - q. p: the sampler's
    // candidates with their probabilities, one of them selected.
    llama_token operator()(const llama_token_data_array & p, const common_nextn_q & q, llama_token drafted) {
        const auto * begin = p.data;
        const auto * end   = begin + p.size;
        const auto * it    = std::find_if(begin, end, [&](const auto & c) { return c.id == drafted; });
        if (it != end && uniform(rng) * q.of(drafted, drafted) < it->p) {
            return drafted;
        }
        const auto rest = [&](const llama_token_data & c) {
            return std::max(0.0f, c.p - q.of(c.id, drafted));
        };
        double total = 0;
        for (const auto * c = begin; c != end; ++c) {
            total += rest(*c);
        }
        const double u   = uniform(rng) * total;
        double       sum = 0;
        for (const auto * c = begin; c != end; ++c) {
            sum += rest(*c);
            if (u < sum) {
                return c->id;
            }
        }
        return p.data[p.selected].id; // p and q are the same but for rounding
    }

private:
    std::mt19937_64                        rng;
    std::uniform_real_distribution<double> uniform{0.0, 1.0};
};
