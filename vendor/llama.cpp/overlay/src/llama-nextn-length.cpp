#include "llama-nextn-length.h"

#include <algorithm>
#include <cmath>

static constexpr double fade_per_trial = 0.99;  // half of the evidence is at most 70 trials old
static constexpr double fade_per_round = 0.998; // of bins that are never sent: they get another chance
static constexpr double prior_trials   = 2;
static constexpr double trials_kept    = 8;     // of the evidence when another text begins
static constexpr double even_trials    = 20;    // of all positions being equally good
static constexpr double half_life      = 200;   // rounds after which a cost counts half
static constexpr double line_weight    = 0.5;   // of the line against a measured sample
static constexpr double slope_weight   = 2;     // of the guessed slope of the line
static constexpr int    probe_first    = 8;     // rounds without drafting before the head is tried again
static constexpr int    probe_last     = 256;   // at most
static constexpr double probe_share    = 0.003; // of the time that may go to trying
static constexpr int    plain_interval = 256;   // rounds with drafting before one without

// What is believed before anything was measured: low costs and a good head, so that drafting gets its try.
static constexpr double guess_per_token  = 0.15; // of one decode, for each further token to verify
static constexpr double guess_draft      = 0.1;  // of one decode
static constexpr double guess_acceptance = 0.8;

void llama_nextn_length::cost::add(double sample, int64_t round) {
    samples[count++ % n_max]          = sample;
    at_round                          = round;
    std::array<double, n_max> ordered = samples;
    const int                 n       = std::min(count, n_max);
    const auto quartile = ordered.begin() + (n - 1) / 4; // not the middle: what disturbs a measurement makes it longer
    std::nth_element(ordered.begin(), quartile, ordered.begin() + n);
    typical = *quartile;
}

double llama_nextn_length::cost::weight(int64_t round) const {
    return count == 0 ? 0 : std::min(count, n_max) * std::exp2(-(double) (round - at_round) / half_life);
}

void llama_nextn_length::counts::add(double n_accepted, double n_trials) {
    accepted = fade_per_trial * accepted + n_accepted;
    trials   = fade_per_trial * trials + n_trials;
}

void llama_nextn_length::counts::fade(double factor) {
    accepted *= factor;
    trials *= factor;
}

void llama_nextn_length::counts::limit(double n_trials) {
    if (trials > n_trials) {
        fade(n_trials / trials);
    }
}

llama_nextn_length::llama_nextn_length(int n_max) : n_max(std::clamp(n_max, 0, k_max)), probe_interval(probe_first) {
    learn_expected();
    learn_costs();
}

void llama_nextn_length::set_n_max(int n) {
    n_max = std::clamp(n, 0, k_max);
}

void llama_nextn_length::new_text() {
    for (auto & bin : by_bin) {
        bin.limit(trials_kept);
    }
    for (int i = 1; i <= k_max; ++i) {
        by_position[i].limit(trials_kept);
        outcomes[i].limit(trials_kept);
    }
    learn_expected();
}

int llama_nextn_length::bin_of(float p) {
    static constexpr std::array<float, n_bins - 1> edges = {0.2f, 0.4f, 0.6f, 0.8f, 0.9f, 0.97f, 0.995f};
    return (int) (std::upper_bound(edges.begin(), edges.end(), p) - edges.begin());
}

// Before a bin has evidence of its own: half what the head says, half how it has done so far.
double llama_nextn_length::prior(float p) const {
    return 0.5 * (p + expected[1]);
}

double llama_nextn_length::acceptance(int position, float p) const {
    const auto & bin  = by_bin[bin_of(p)];
    const double base = (bin.accepted + prior_trials * prior(p)) / (bin.trials + prior_trials);

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

// Weighted least squares, with some weight on the guessed slope.
void llama_nextn_length::fit_line(const std::array<double, k_max + 2> & weights) {
    double sum = 0, x_mean = 0, y_mean = 0;
    for (int n = 1; n <= k_max + 1; ++n) {
        sum += weights[n];
        x_mean += weights[n] * (n - 1);
        y_mean += weights[n] * verify[n].typical;
    }
    if (sum == 0) {
        line_at_one = 1;
        line_slope  = guess_per_token;
        return;
    }
    x_mean /= sum;
    y_mean /= sum;
    const double guess = guess_per_token * y_mean / (1 + guess_per_token * x_mean);
    double       xx = slope_weight, xy = slope_weight * guess;
    for (int n = 1; n <= k_max + 1; ++n) {
        xx += weights[n] * (n - 1 - x_mean) * (n - 1 - x_mean);
        xy += weights[n] * (n - 1 - x_mean) * (verify[n].typical - y_mean);
    }
    // more tokens cost more, but not more than one at a time
    line_slope  = std::clamp(xy / xx, 0.1 * guess, y_mean / (x_mean + 1));
    line_at_one = y_mean - line_slope * x_mean;
}

void llama_nextn_length::learn_costs() {
    std::array<double, k_max + 2> weights; // of the measured costs, as evidence
    for (int n = 1; n <= k_max + 1; ++n) {
        weights[n] = verify[n].weight(round);
    }
    fit_line(weights);
    for (int n = 1; n <= k_max + 1; ++n) {
        const double w = weights[n];
        costs[n] = (w * verify[n].typical + line_weight * (line_at_one + line_slope * (n - 1))) / (w + line_weight);
    }
    // measured seldom while drafting pays, but never dearer than a wider one
    costs[1] = *std::min_element(costs.begin() + 1, costs.end());
}

double llama_nextn_length::cost_verify(int n_tokens) const {
    return costs[std::clamp(n_tokens, 1, k_max + 1)];
}

double llama_nextn_length::cost_draft(int n_draft) const {
    if (n_draft <= 0) {
        return 0;
    }
    const double guess = guess_draft * cost_verify(1);
    const double first = draft_first.count > 0 ? draft_first.typical : guess;
    const double next  = draft_next.count > 0 ? draft_next.typical : std::min(first, guess);
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

// What drafting is compared with has to be known, soon but not at the cost of short answers, and to stay so while
// drafting never stops.
bool llama_nextn_length::is_time_for_plain() const {
    static constexpr std::array<int, 3> first = {2, 8, 24};

    const size_t n = verify[1].count;
    return rounds_since_plain >= (n < first.size() ? first[n] : plain_interval);
}

// Where a try costs little it comes more often, so that a head that only had bad luck is soon on again.
int llama_nextn_length::longest_probe_interval() const {
    const double extra = cost_verify(2) + cost_draft(1) - cost_verify(1);
    return (int) std::clamp(extra / (probe_share * cost_verify(1)), (double) probe_first, (double) probe_last);
}

bool llama_nextn_length::can_pay() const {
    for (int k = 1; k <= n_max; ++k) {
        if ((k + 1) * cost_verify(1) > cost_verify(k + 1) + cost_draft(k)) {
            return true;
        }
    }
    return false;
}

int llama_nextn_length::plan() {
    round++;
    for (auto & bin : by_bin) {
        bin.fade(fade_per_round);
    }
    probing = false;
    rounds_since_plain++;
    if (is_time_for_plain()) {
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
    rounds_off = 0;
    probing    = true;
    return 1;
}

bool llama_nextn_length::go_on(const std::vector<float> & p) const {
    double value;
    return (int) p.size() < n_max && best_ahead(p, false, value) > (int) p.size();
}

int llama_nextn_length::keep(const std::vector<float> & p) const {
    double    value;
    const int best = best_ahead(p, true, value);
    return probing && !p.empty() ? std::max(best, 1) : best;
}

void llama_nextn_length::saw(const std::vector<float> & p, int n_sent, int n_accepted) {
    const int n_drafted = std::min((int) p.size(), k_max);
    n_sent              = std::min(n_sent, n_drafted);

    for (int i = 0; i < std::min(n_sent, n_accepted + 1); ++i) {
        const double ok = i < n_accepted ? 1 : 0;

        auto & bin = by_bin[bin_of(p[i])];
        by_position[i + 1].add(ok, (bin.accepted + prior_trials * prior(p[i])) / (bin.trials + prior_trials));
        bin.add(ok, 1);
        outcomes[i + 1].add(ok, 1);
    }
    if (n_accepted == n_sent && n_sent < n_drafted) {
        // a draft step that was not worth verifying: without it a head would seem as good as its best tokens
        outcomes[n_sent + 1].add(acceptance(n_sent + 1, p[n_sent]), 1);
    }
    learn_expected();
    if (probing) {
        // where drafting is too dear, as with many slots, a good head is no reason to try more often
        probe_interval = n_accepted > 0 && can_pay() ? probe_interval / 2 : 2 * probe_interval;
        probe_interval = std::clamp(probe_interval, probe_first, longest_probe_interval());
        probing        = false;
    }
}

void llama_nextn_length::verify_took(int n_tokens, double t) {
    verify[std::clamp(n_tokens, 1, k_max + 1)].add(t, round);
    learn_costs();
}

void llama_nextn_length::first_draft_took(double t) {
    draft_first.add(t, round);
}

void llama_nextn_length::next_draft_took(double t) {
    draft_next.add(t, round);
}
