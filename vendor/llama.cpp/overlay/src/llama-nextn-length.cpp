#include "llama-nextn-length.h"

#include <algorithm>
#include <cmath>

static constexpr double fade_per_trial = 0.99; // half of the evidence is at most 70 trials old
static constexpr double prior_trials   = 2;    // of the head's own probability
static constexpr double even_trials    = 20;   // of all positions being equally good
static constexpr int    sure_samples   = 3;    // a cost with fewer may be one slow step
static constexpr int    probe_first    = 8;    // rounds without drafting before the head is tried again
static constexpr int    probe_last     = 256;
static constexpr int    plain_interval = 256; // rounds with drafting before one without

// What is believed before anything was measured: low costs and a good head, so that drafting gets its try.
static constexpr double guess_per_token  = 0.15; // of one decode, for each further token to verify
static constexpr double guess_draft      = 0.1;  // of one decode
static constexpr double guess_acceptance = 0.8;

void llama_nextn_length::cost::add(double sample) {
    samples[count++ % n_max]         = sample;
    std::array<double, n_max> sorted = samples;
    const int                 n      = std::min(count, n_max);
    std::nth_element(sorted.begin(), sorted.begin() + n / 2, sorted.begin() + n);
    median = sorted[n / 2];
}

void llama_nextn_length::counts::add(double n_accepted, double n_trials) {
    accepted = fade_per_trial * accepted + n_accepted;
    trials   = fade_per_trial * trials + n_trials;
}

llama_nextn_length::llama_nextn_length(int n_max) : n_max(std::clamp(n_max, 0, k_max)) {
    learn_expected();
}

void llama_nextn_length::set_n_max(int n) {
    n_max = std::clamp(n, 0, k_max);
}

int llama_nextn_length::bin_of(float p) {
    static constexpr std::array<float, n_bins - 1> edges = {0.2f, 0.4f, 0.6f, 0.8f, 0.9f, 0.97f, 0.995f};
    return (int) (std::upper_bound(edges.begin(), edges.end(), p) - edges.begin());
}

double llama_nextn_length::acceptance(int position, float p) const {
    const auto & bin  = by_bin[bin_of(p)];
    const double base = (bin.accepted + prior_trials * p) / (bin.trials + prior_trials);

    const auto & pos    = by_position[std::min(position, k_max)];
    const double factor = (pos.accepted + even_trials) / (pos.trials + even_trials);
    return std::clamp(base * factor, 0.0, 1.0);
}

// A position that is seldom reached is judged by the one before it.
void llama_nextn_length::learn_expected() {
    expected[0] = guess_acceptance;
    for (int i = 1; i <= k_max; ++i) {
        const double weight = i == 1 ? prior_trials : even_trials;
        expected[i]         = (outcomes[i].accepted + weight * expected[i - 1]) / (outcomes[i].trials + weight);
    }
}

double llama_nextn_length::guess_verify(int n) const {
    // from the widest measured width below, else the narrowest above
    for (int m = n - 1; m >= 1; --m) {
        if (verify[m].count > 0) {
            return verify[m].median * (1 + guess_per_token * (n - 1)) / (1 + guess_per_token * (m - 1));
        }
    }
    for (int m = n + 1; m <= k_max + 1; ++m) {
        if (verify[m].count > 0) {
            return verify[m].median / (1 + guess_per_token * (m - n));
        }
    }
    return 1 + guess_per_token * (n - 1);
}

double llama_nextn_length::cost_verify(int n_tokens) const {
    const int    n = std::clamp(n_tokens, 1, k_max + 1);
    const auto & c = verify[n];
    if (c.count >= sure_samples) {
        return c.median;
    }
    const double guess = guess_verify(n);
    return c.count == 0 ? guess : std::min(c.median, 1.5 * guess);
}

double llama_nextn_length::cost_draft(int n_draft) const {
    if (n_draft <= 0) {
        return 0;
    }
    const double guess = guess_draft * cost_verify(1);
    const double first = draft_first.count > 0 ? draft_first.median : guess;
    const double next  = draft_next.count > 0 ? draft_next.median : std::min(first, guess);
    return first + (n_draft - 1) * next;
}

double llama_nextn_length::rate() const {
    double best = 1 / cost_verify(1);
    double all  = 1; // probability that everything so far is accepted
    double e    = 1;
    for (int k = 1; k <= n_max; ++k) {
        all *= expected[k];
        e += all;
        best = std::max(best, e / (cost_verify(k + 1) + cost_draft(k)));
    }
    return best;
}

// The length with the largest E - r T given the probabilities of the tokens drafted already; their cost is sunk.
int llama_nextn_length::best_ahead(const std::vector<float> & p, bool drafted_only, double & value) const {
    const int    j = (int) p.size();
    const double r = rate();

    int    best = 0;
    double all  = 1;
    double e    = 1;
    value       = e - r * cost_verify(1);
    for (int k = 1; k <= (drafted_only ? j : n_max); ++k) {
        all *= k <= j ? acceptance(k, p[k - 1]) : expected[k];
        e += all;
        const double to_draft = k <= j ? 0 : cost_draft(k) - cost_draft(j);
        const double v        = e - r * (cost_verify(k + 1) + to_draft);
        if (v > value) {
            value = v;
            best  = k;
        }
    }
    return best;
}

int llama_nextn_length::plan() {
    // what drafting is compared with has to be known, and to stay so while drafting never stops
    if (verify[1].count < sure_samples || ++rounds_since_plain >= plain_interval) {
        rounds_since_plain = 0;
        return 0;
    }
    double    value;
    const int k = best_ahead({}, false, value);
    if (k > 0) {
        rounds_off     = 0;
        probe_interval = std::max(probe_interval / 2, probe_first); // a head that is good again earns its trust back
        return n_max;
    }
    if (n_max == 0) {
        return 0;
    }
    if (++rounds_off < probe_interval) {
        rounds_since_plain = 0;
        return 0;
    }
    rounds_off     = 0;
    probe_interval = std::min(2 * probe_interval, probe_last);
    return 1;
}

bool llama_nextn_length::go_on(const std::vector<float> & p) const {
    double value;
    return (int) p.size() < n_max && best_ahead(p, false, value) > (int) p.size();
}

int llama_nextn_length::keep(const std::vector<float> & p) const {
    double value;
    return best_ahead(p, true, value);
}

void llama_nextn_length::update(const std::vector<float> & p, int n_accepted, int n_drafted, double t_draft,
                                double t_verify) {
    const int n_sent = std::min((int) p.size(), k_max);

    verify[std::min(n_sent + 1, k_max + 1)].add(t_verify);

    if (n_drafted == 1) {
        draft_first.add(t_draft);
    } else if (n_drafted > 1) {
        const double first = draft_first.count > 0 ? std::min(draft_first.median, t_draft / 2) : t_draft / n_drafted;
        draft_next.add((t_draft - first) / (n_drafted - 1));
        if (draft_first.count == 0) {
            draft_first.add(first);
        }
    }

    for (int i = 0; i < std::min(n_sent, n_accepted + 1); ++i) {
        const double ok = i < n_accepted ? 1 : 0;

        auto & bin = by_bin[bin_of(p[i])];
        by_position[i + 1].add(ok, (bin.accepted + prior_trials * p[i]) / (bin.trials + prior_trials));
        bin.add(ok, 1);
        outcomes[i + 1].add(ok, 1);
    }
    learn_expected();
}
