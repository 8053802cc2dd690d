#pragma once

#include "llama-nextn-head.h"
#include "llama-nextn.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

// The distribution that a drafted token is drawn from: ids ascending, probabilities that add up to 1.
struct llama_nextn_q {
    std::vector<llama_token> ids;
    std::vector<float>       q;
    std::vector<float>       open;      // q where the target seems to have a choice; else all of q is on the best token
    size_t                   best  = 0; // index of the head's best token
    float                    p_max = 1; // and its probability
};

// Whether the target has a choice to make where the head is unsure. In most texts it has none: it is sure of one token,
// and the head's best one is the best guess. Where it has one, a token drawn from the head's distribution is accepted
// more often. For each judged token both shares are known, whatever was drawn: this keeps their difference, fading,
// for ranges of the head's largest probability. Any q is right as long as it is fixed before the draw.
class llama_nextn_choice {
public:
    // Beyond the ranges there is nothing to learn: the best token is taken.
    static bool is_sure(float p_max) { return range_of(p_max) == n_ranges; }

    bool is_open(float p_max) const {
        const size_t i = range_of(p_max);
        return i < n_ranges && gains[i] > 0;
    }

    // p: what the target gave to the ids of dist.
    void saw(const llama_nextn_q & dist, const float * p) {
        const size_t range = range_of(dist.p_max);
        if (range == n_ranges) {
            return;
        }
        double gain = -p[dist.best];
        for (size_t i = 0; i < dist.ids.size(); ++i) {
            gain += std::min(p[i], dist.open[i]);
        }
        if (std::isfinite(gain)) {
            gains[range] += (1 - fade) * (start[range] - gains[range]) + gain;
        }
    }

private:
    static constexpr size_t n_ranges = 4;
    static constexpr double fade     = 0.99;

    static constexpr std::array<float, n_ranges>  ends  = {0.3f, 0.5f, 0.7f, 0.9f};
    static constexpr std::array<double, n_ranges> start = {1, -1, -1, -1}; // in tokens

    static size_t range_of(float p_max) { return std::upper_bound(ends.begin(), ends.end(), p_max) - ends.begin(); }

    std::array<double, n_ranges> gains = start;
};

// Draws tokens from rows of a draft head's logits, cut as the target's sampler cuts its own rows: top_k, top_p and
// min_p on the probabilities at temperature 1, then the temperature. What resembles the target's p is accepted more
// often, and that is a little sharper than what the head gives.
class llama_nextn_drawer {
public:
    explicit llama_nextn_drawer(const llama_nextn_draw & params) : params(params), rng(params.seed) {}

    void restart() { rng.seed(params.seed); }

    bool steady() const { return params.steady; }

    // The distribution of a row [prefix; extra]; best: its best token and the probability of that at temperature 1.
    void read(const float * row, int64_t n_row, const llama_nextn_shortlist * list, const llama_nextn_best & best,
              const llama_nextn_choice & choice);

    size_t draw(); // index into get_q()

    const llama_nextn_q & get_q() const { return dist; }

private:
    static constexpr float  sharpness = 1.5f;
    static constexpr float  reach     = 12;  // less likely than e^-12 of the best: not worth a look
    static constexpr size_t n_max     = 256; // ids kept

    struct candidate {
        llama_token id;
        float       logit;
    };

    void keep_best(size_t n);

    static void normalize(std::vector<float> & p);

    llama_nextn_draw       params;
    std::mt19937_64        rng;
    std::vector<candidate> candidates;
    llama_nextn_q          dist;
};

// Sorted, best first; of equal ones the lowest id.
inline void llama_nextn_drawer::keep_best(size_t n) {
    const auto better = [](const candidate & a, const candidate & b) {
        return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
    };
    n = std::min(n, candidates.size());
    std::partial_sort(candidates.begin(), candidates.begin() + n, candidates.end(), better);
    candidates.resize(n);
}

inline void llama_nextn_drawer::read(const float * row, int64_t n_row, const llama_nextn_shortlist * list,
                                     const llama_nextn_best & best, const llama_nextn_choice & choice) {
    const int64_t n_prefix    = list ? list->get_n_prefix() : n_row;
    const float   temperature = std::max(params.temperature, 1e-6f);

    dist.ids.assign(1, best.id);
    dist.q.assign(1, 1.0f);
    dist.open       = dist.q;
    dist.best       = 0;
    dist.p_max      = 1;
    const float max = n_row > 0 ? *std::max_element(row, row + n_row) : NAN;
    if (!std::isfinite(max)) {
        return; // whatever is proposed, the target decides
    }
    const float least = max + std::max(-reach * temperature, params.min_p > 0 ? std::log(params.min_p) : -INFINITY);
    candidates.clear();
    for (int64_t i = 0; i < n_row; ++i) {
        if (row[i] >= least) {
            const llama_token id = list ? list->token_of(i) : (llama_token) i;
            if (i < n_prefix || id >= n_prefix) { // an added token that the prefix has come to cover counts once
                candidates.push_back({id, row[i]});
            }
        }
    }
    keep_best(params.top_k > 0 ? std::min<size_t>(n_max, params.top_k) : n_max);
    if (params.top_p < 1) {
        size_t n   = 0;
        float  sum = 0;
        while (n < candidates.size() && sum < params.top_p) {
            sum += best.p * std::exp(candidates[n++].logit - max);
        }
        candidates.resize(std::max<size_t>(n, 1));
    }
    std::sort(candidates.begin(), candidates.end(), [](const auto & a, const auto & b) { return a.id < b.id; });

    dist.ids.clear();
    dist.q.clear();
    dist.open.clear();
    for (const auto & c : candidates) {
        dist.ids.push_back(c.id);
        dist.q.push_back(std::exp((c.logit - max) / temperature));
        dist.open.push_back(std::pow(dist.q.back(), sharpness));
    }
    normalize(dist.q);
    normalize(dist.open);
    dist.best  = std::max_element(dist.q.begin(), dist.q.end()) - dist.q.begin();
    dist.p_max = dist.q[dist.best];
    if (choice.is_open(dist.p_max)) {
        dist.q = dist.open;
    } else if (llama_nextn_choice::is_sure(dist.p_max)) {
        dist.ids.assign(1, dist.ids[dist.best]);
        dist.q.assign(1, 1.0f);
        dist.open = dist.q;
        dist.best = 0;
    } else {
        dist.q.assign(dist.ids.size(), 0.0f);
        dist.q[dist.best] = 1;
    }
}

inline void llama_nextn_drawer::normalize(std::vector<float> & p) {
    double sum = 0;
    for (const float x : p) {
        sum += x;
    }
    for (float & x : p) {
        x = (float) (x / sum);
    }
}

inline size_t llama_nextn_drawer::draw() {
    double total = 0;
    for (const float q : dist.q) {
        total += q;
    }
    const double u    = (double) (rng() >> 11) * 0x1p-53 * total; // 53 bits: the same on every platform
    double       sum  = 0;
    size_t       last = 0;
    for (size_t i = 0; i < dist.q.size(); ++i) {
        if (dist.q[i] > 0) {
            sum += dist.q[i];
            last = i;
            if (u < sum) {
                break;
            }
        }
    }
    return last;
}
