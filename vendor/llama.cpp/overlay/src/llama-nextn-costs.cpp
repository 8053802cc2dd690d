#include "llama-nextn-costs.h"

#include <algorithm>
#include <cmath>

static constexpr double guess_draft       = 0.1; // of v(1)
static constexpr double guess_next        = 0.8; // of the first draft step
static constexpr double guess_row         = 0.1; // of the first draft step
static constexpr double guess_warming     = 0.2; // logarithm of what the first round of a text takes more
static constexpr double guess_another     = 0.0;
static constexpr double guess_cold_draft  = 0.3; // logarithms of what a long rest adds
static constexpr double guess_cold_verify = 0.15;

// Standard deviations of the first guesses. Of a level in an unknown unit nothing is known.
static constexpr double level_sd       = 10;
static constexpr double slope_sd       = 0.5;
static constexpr double warming_sd     = 0.4;
static constexpr double another_sd     = 0.02;
static constexpr double first_step_sd  = 0.7;
static constexpr double next_step_sd   = 0.4;
static constexpr double row_sd         = 0.7;
static constexpr double cold_draft_sd  = 0.35;
static constexpr double cold_verify_sd = 0.2;
static constexpr double cold_sd        = 0.3; // of the first round of a run; half of it for the next two, and so on
static constexpr double own_sd         = 0.07;

// What changes in a round.
static constexpr double level_drift  = 0.02;
static constexpr double others_drift = 0.004;
static constexpr double rest_half    = 64; // rounds after which half of what a width works on has gone from the caches
static constexpr double warming_kept = 0.87;
static constexpr double left_by_use  = 0.6;
static constexpr double half_life    = 1600; // rounds, of how slope and own costs differ from their guesses

static constexpr int n_own_exact = 16; // widths with numbers of their own; of wider ones 8 share one, the widest all
static constexpr int n_own_most  = 20;

static int count_own(int n_widths) {
    return std::clamp(n_widths - 1, 1, n_own_most);
}

std::vector<llama_nextn_kalman::guess> llama_nextn_costs::first_guesses(int n_widths, double per_token) {
    std::vector<llama_nextn_kalman::guess> guesses(own + count_own(n_widths), {0, own_sd});
    guesses[level]       = {0, level_sd};
    guesses[warming]     = {guess_warming, warming_sd};
    guesses[another]     = {guess_another, another_sd};
    guesses[slope]       = {std::log(per_token), slope_sd};
    guesses[first_step]  = {std::log(guess_draft), first_step_sd};
    guesses[next_step]   = {std::log(guess_next), next_step_sd};
    guesses[row]         = {std::log(guess_row), row_sd};
    guesses[cold_draft]  = {guess_cold_draft, cold_draft_sd};
    guesses[cold_verify] = {guess_cold_verify, cold_verify_sd};
    for (int i = 0; i < n_cold; ++i) {
        guesses[cold + i] = {0, cold_sd / (1 << i)};
    }
    return guesses;
}

llama_nextn_costs::llama_nextn_costs(int n_widths, double per_token)
    : n_own(count_own(n_widths)), known(first_guesses(n_widths, per_token)), verify_warmth(n_widths + 1),
      draft_warmth(n_widths + 1), v(n_widths + 1) {
    known.fade(warming, 0);
    learn();
}

int llama_nextn_costs::clamp(int width) const {
    return std::clamp(width, 1, (int) v.size() - 1);
}

int llama_nextn_costs::own_of(int width) const {
    const int i = width - 2;
    return own + std::min(i < n_own_exact ? i : n_own_exact + (i - n_own_exact) / 8, n_own - 1);
}

void llama_nextn_costs::next_round(int n) {
    round += n;
    if (changed) {
        learn();
    }
}

void llama_nextn_costs::new_text() {
    static constexpr int few = 16; // rounds, which show little

    run_ends();
    pass_time();
    if (!settled && round >= few) {
        for (int i = first_step; i < own + n_own; ++i) {
            known.renew(i);
        }
        settled = true;
        changed = true;
    }
    known.renew(warming);
    for (auto * widths : {&verify_warmth, &draft_warmth}) {
        for (auto & width : *widths) {
            width.rest();
        }
    }
}

void llama_nextn_costs::learn() {
    const double at_one    = std::exp(known[level]);
    const double per_token = std::exp(known[slope]);

    // measured seldom while drafting pays, but never dearer than a wider one
    v[1] = at_one;
    for (int n = 2; n < (int) v.size(); ++n) {
        v[n] = at_one * std::exp(known[own_of(n)]) * (1 + (n - 1) * per_token);
        v[1] = std::min(v[1], v[n]);
    }
    d_first = at_one * std::exp(known[first_step]);
    d_next  = d_first * std::exp(known[next_step]);
    d_row   = d_first * std::exp(known[row]);

    other_width = std::max(std::expm1(known[another]), 0.0);
    v_first     = v[1] * std::exp(std::max(known[cold], 0.0));
    cold_start  = 0;
    for (int i = 0; i < n_cold; ++i) {
        cold_start += (1 << i) * std::max(std::expm1(known[cold + i]), 0.0) * v[1];
    }
    cold_round = d_first * std::max(std::expm1(known[cold_draft]), 0.0) +
                 verify(2) * std::max(std::expm1(known[cold_verify]), 0.0);
    changed    = false;
}

double llama_nextn_costs::warmth::use(int64_t round) {
    const double n = used < 0 ? 0 : (double) std::max<int64_t>(round - used - 1, 0);
    const double x = 1 - (1 - gone) * std::exp2(-n / rest_half);
    gone           = x * left_by_use;
    used           = round;
    return x;
}

void llama_nextn_costs::warmth::rest() {
    gone = used < 0 ? 0 : 1;
}

double llama_nextn_costs::verify(int width) const {
    return v[clamp(width)];
}

double llama_nextn_costs::draft(int n_draft) const {
    return n_draft <= 0 ? 0 : d_first + (n_draft - 1) * d_next;
}

void llama_nextn_costs::pass_time() {
    const double passed = (double) (round - known_round);
    if (passed > 0) {
        known.revert(slope, std::exp2(-passed / half_life));
        known.fade(warming, std::pow(warming_kept, passed));
        known.drift(level, passed * level_drift * level_drift);
        for (int i = first_step; i < slope; ++i) {
            known.drift(i, passed * others_drift * others_drift);
        }
        known_round = round;
    }
}

void llama_nextn_costs::took(std::initializer_list<llama_nextn_kalman::term> terms, double predicted, double t) {
    known.observe(terms, std::log(t) - predicted);
    // more tokens never cost more than one at a time, verified or read
    known.limit(slope, 0);
    known.limit(row, 0);
    changed = true;
}

void llama_nextn_costs::took(std::initializer_list<llama_nextn_kalman::term> terms, double t) {
    double predicted = 0;
    for (const auto & term : terms) {
        predicted += term.factor * known[term.i];
    }
    took(terms, predicted, t);
}

static bool is_time(double t) {
    return t > 0 && std::isfinite(t);
}

// The derivative of log(1 + further) by the logarithm of further.
static double share_of(double further) {
    return further / (1 + further);
}

void llama_nextn_costs::verify_took(int width, double t) {
    const int    n     = clamp(width);
    const double gone  = verify_warmth[n].use(round);
    const double other = n == last_width ? 0 : 1;
    last_width         = n;
    if (!is_time(t)) {
        return;
    }
    pass_time();
    time += t;
    if (n == 1) {
        plain_took(t);
        return;
    }
    run_ends();
    const int    i       = own_of(n);
    const double further = (n - 1) * std::exp(known[slope]);
    took({{level, 1}, {warming, 1}, {slope, share_of(further)}, {i, 1}, {another, other}, {cold_verify, gone}},
         known[level] + known[warming] + std::log1p(further) + known[i] + other * known[another] +
             gone * known[cold_verify],
         t);
}

void llama_nextn_costs::plain_took(double t) {
    auto & run = plain_run;
    run.newest = t;
    if (run.length < n_falling) {
        run.first[run.length] = t;
    }
    run.length++;
    n_plain_rounds += run.length > 1;

    int i = 0;
    while (i < n_cold && (2 << i) <= run.length) {
        i++;
    }
    if (i < n_cold) {
        took({{level, 1}, {warming, 1}, {cold + i, 1}}, t);
    } else {
        took({{level, 1}, {warming, 1}}, t);
    }
}

void llama_nextn_costs::first_draft_took(double t, int n) {
    n_caught_up       = std::max(n, 0);
    const double gone = draft_warmth[clamp(n_caught_up + 1)].use(round);
    if (is_time(t)) {
        pass_time();
        time += t;
        const double further = n_caught_up * std::exp(known[row]);
        took({{level, 1}, {warming, 1}, {first_step, 1}, {row, share_of(further)}, {cold_draft, gone}},
             known[level] + known[warming] + known[first_step] + std::log1p(further) + gone * known[cold_draft], t);
    }
}

void llama_nextn_costs::catching_up_took(double t) {
    catch_up = t;
    time += t;
}

void llama_nextn_costs::next_draft_took(double t) {
    const double gone = draft_warmth[1].use(round);
    if (is_time(t)) {
        pass_time();
        time += t;
        took({{level, 1}, {warming, 1}, {first_step, 1}, {next_step, 1}, {cold_draft, gone}}, t);
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
