#include "llama-nextn-costs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

static constexpr double half_life       = 200; // rounds after which a cost counts half
static constexpr double line_weight     = 0.5; // of the line against a measured sample
static constexpr double slope_weight    = 2;   // of the guessed slope of the line
static constexpr double cold_start_rate = 0.3; // of the newest in the estimate
static constexpr double guess_draft     = 0.1; // of v(1), until a draft was measured

llama_nextn_costs::llama_nextn_costs(int n_widths, double per_token, double draft_quantile)
    : per_token(per_token), draft_quantile(draft_quantile), samples(n_widths + 1), weights(n_widths + 1),
      known(n_widths + 1) {
    learn();
}

void llama_nextn_costs::cost::add(double sample, int64_t round, double quantile) {
    ring[count++ % n_max]             = sample;
    at_round                          = round;
    std::array<double, n_max> ordered = ring;
    const int                 n       = std::min(count, n_max);
    const auto                chosen  = ordered.begin() + (int) (quantile * (n - 1));
    std::nth_element(ordered.begin(), chosen, ordered.begin() + n);
    typical = *chosen;
}

double llama_nextn_costs::cost::weight(int64_t round) const {
    return count == 0 ? 0 : std::min(count, n_max) * std::exp2(-(double) (round - at_round) / half_life);
}

int llama_nextn_costs::clamp(int width) const {
    return std::clamp(width, 1, (int) known.size() - 1);
}

// Weighted least squares, with some weight on the guessed slope.
void llama_nextn_costs::fit_line() {
    double sum = 0, x_mean = 0, y_mean = 0;
    for (size_t n = 1; n < samples.size(); ++n) {
        sum += weights[n];
        x_mean += weights[n] * (n - 1);
        y_mean += weights[n] * samples[n].typical;
    }
    if (sum == 0) {
        line_at_one = 1;
        line_slope  = per_token;
        return;
    }
    x_mean /= sum;
    y_mean /= sum;
    const double guess = per_token * y_mean / (1 + per_token * x_mean);
    double       xx = slope_weight, xy = slope_weight * guess;
    for (size_t n = 1; n < samples.size(); ++n) {
        xx += weights[n] * (n - 1 - x_mean) * (n - 1 - x_mean);
        xy += weights[n] * (n - 1 - x_mean) * (samples[n].typical - y_mean);
    }
    // more tokens cost more, but not more than one at a time
    line_slope  = std::clamp(xy / xx, 0.1 * guess, y_mean / (x_mean + 1));
    line_at_one = y_mean - line_slope * x_mean;
}

void llama_nextn_costs::learn() {
    for (size_t n = 1; n < samples.size(); ++n) {
        weights[n] = samples[n].weight(round);
    }
    fit_line();
    for (size_t n = 1; n < samples.size(); ++n) {
        const double w = weights[n];
        known[n] = (w * samples[n].typical + line_weight * (line_at_one + line_slope * (n - 1))) / (w + line_weight);
    }
    // measured seldom while drafting pays, but never dearer than a wider one
    known[1] = *std::min_element(known.begin() + 1, known.end());
}

double llama_nextn_costs::verify(int width) const {
    return known[clamp(width)];
}

double llama_nextn_costs::draft(int n_draft) const {
    if (n_draft <= 0) {
        return 0;
    }
    const double guess = guess_draft * verify(1);
    const double first = draft_first.count > 0 ? draft_first.typical : guess;
    const double next  = draft_next.count > 0 ? draft_next.typical : std::min(first, guess);
    return first + (n_draft - 1) * next;
}

void llama_nextn_costs::verify_took(int width, double t) {
    const int n = clamp(width);
    if (n == 1) {
        plain_took(t);
    } else {
        plain_run.length = 0;
        samples[n].add(t, round);
    }
    learn();
}

void llama_nextn_costs::plain_took(double t) {
    auto & run = plain_run;
    run.newest = t;
    if (run.length < n_falling) {
        run.first[run.length] = t;
    }
    run.length++;
    if (run.length == n_falling && plain_falls()) {
        samples[1].forget(n_falling - 2);
    }
    if (run.length > 1 || samples[1].count == 0) {
        samples[1].add(t, round);
    }
    if (run.length == n_falling) {
        const double beyond = std::accumulate(run.first.begin(), run.first.end(), -n_falling * samples[1].typical);
        cold_start += cold_start_rate * (std::max(beyond, 0.0) - cold_start);
    }
}

static double median_of_three(const double * x) {
    return std::max(std::min(x[0], x[1]), std::min(std::max(x[0], x[1]), x[2]));
}

bool llama_nextn_costs::plain_falls() const {
    static constexpr double least = 0.1; // by which later rounds are cheaper

    const auto & x = plain_run.first;
    return plain_run.length >= n_falling && median_of_three(&x[n_falling - 3]) < (1 - least) * (x[0] + x[1]) / 2;
}

void llama_nextn_costs::first_draft_took(double t) {
    draft_first.add(t, round, draft_quantile);
}

void llama_nextn_costs::next_draft_took(double t) {
    draft_next.add(t, round, draft_quantile);
}
