#include "llama-nextn-length.h"

#include <algorithm>
#include <array>

bool llama_nextn_plain_rounds::is_due(const llama_nextn_costs & costs, double even) {
    static constexpr std::array<int, 3> first = {2, 8, 24}; // rounds with drafts before a try

    if (trying && !goes_on(costs, even)) {
        trying = false;
        wait(costs, even);
    }
    if (!trying) {
        const int  n    = std::max(n_tries, costs.n_plain());
        const bool soon = changed || n < (int) first.size();
        const int  wait = first[std::min<int>(n, first.size() - 1)];
        if (++since < wait || (!soon && costs.elapsed() < next)) {
            return false;
        }
        trying  = true;
        changed = false;
        length  = 0;
        began   = costs.elapsed();
        n_tries++;
    }
    since = 0;
    length++;
    return true;
}

// Until the next try, so that tries take a share of the time: the smaller, the less plain decoding comes near.
void llama_nextn_plain_rounds::wait(const llama_nextn_costs & costs, double even) {
    static constexpr double share = 0.005;

    const double lost = std::max(costs.elapsed() - began - length * even, 0.0);
    const double near = std::min(even / costs.newest_plain(), 1.0);
    next              = costs.elapsed() + lost / (share * near * near);
}

bool llama_nextn_plain_rounds::goes_on(const llama_nextn_costs & costs, double even) const {
    static constexpr int    longest = 24;
    static constexpr double near    = 1.6;

    if (std::max(n_tries, costs.n_plain()) == 1) {
        return false; // an answer may be short
    }
    const bool is_near = costs.newest_plain() < near * even;
    return length < 2 || (is_near && length < (costs.plain_falls() ? longest : llama_nextn_costs::n_falling));
}

llama_nextn_length::llama_nextn_length(int n_max, const llama_nextn_acceptance * others)
    : acceptance(others), n_max(std::clamp(n_max, 0, k_max)) {}

void llama_nextn_length::new_text() {
    acceptance.new_text();
    costs.new_text();
    probe.ends();
    drafting = true;
    off      = false;
    n_rounds = 0;
    n_passed = 1;
    missed   = true;
}

void llama_nextn_length::set_n_max(int n) {
    n_max = std::clamp(n, 0, k_max);
}

double llama_nextn_length::share(double once) const {
    static constexpr int least = 64;
    return once / std::max(least, n_rounds);
}

double llama_nextn_length::plain() const {
    static constexpr double benefit = 1.02; // of the doubt

    const double t = costs.verify(1) + (drafting ? share(costs.to_plain()) : 0);
    return in_doubt ? std::max(t, benefit / usual_rate) : t;
}

double llama_nextn_length::to_change() const {
    return drafting ? 0 : share(costs.to_drafts());
}

double llama_nextn_length::rate() const {
    return std::max(1 / plain(), usual_rate);
}

void llama_nextn_length::choose_usual() {
    static constexpr double hardly = 0.25; // of what another length costs

    const double once      = to_change();
    double       all       = 1; // probability that everything so far is accepted
    double       e         = 1;
    int          best      = 0;
    double       best_rate = 0;
    double       same_rate = 0;
    for (int k = 1; k <= n_max; ++k) {
        all *= acceptance.ahead(k);
        e += all;
        const double rate = e / (costs.verify(k + 1) + costs.draft(k) + costs.catch_up_row() * (e - 1) + once);
        if (rate > best_rate) {
            best      = k;
            best_rate = rate;
        }
        if (k == usual) {
            same_rate = rate;
        }
    }
    const bool stays = best_rate <= same_rate * (1 + hardly * costs.another_width());
    usual            = stays ? usual : best;
    usual_rate       = stays ? same_rate : best_rate;
}

// The length with the largest E - r T given the probabilities of the tokens drafted already; their cost is sunk.
int llama_nextn_length::best_ahead(const std::vector<float> & p, bool drafted_only) const {
    const int    j     = (int) p.size();
    const double r     = rate();
    const double once  = to_change();
    const double other = 2 * costs.another_width(); // there and back

    // a draft that is dropped leaves one round without among those with drafts
    int    best  = 0;
    double all   = 1;
    double e     = 1;
    double value = e - r * (j > 0 && drafting ? std::max(costs.first_plain(), plain()) : plain());
    for (int k = 1; k <= (drafted_only ? j : n_max); ++k) {
        all *= k <= j ? acceptance.of(k, p[k - 1]) : acceptance.ahead(k);
        e += all;
        const double to_draft = k <= j ? 0 : costs.draft(k) - costs.draft(j);
        const double verify   = costs.verify(k + 1) * (k == usual ? 1 : 1 + other);
        const double v        = e - r * (verify + to_draft + costs.catch_up_row() * (e - 1) + once);
        if (v > value) {
            value = v;
            best  = k;
        }
    }
    return best;
}

int llama_nextn_length::plan() {
    static constexpr int patience = 4;

    const int n = n_passed;
    n_passed    = 1;
    off         = false;
    n_rounds += n;
    costs.next_round(n);
    acceptance.next_round(n);
    choose_usual();
    if (n_max > 0 && plain_rounds.is_due(costs, plain_rounds.is_trying() ? 1 / usual_rate : 0)) {
        probe.ends();
        return 0;
    }
    in_doubt        = false;
    const bool pays = best_ahead({}, false) > 0;
    in_doubt        = !pays && n_max > 0 && drafting && !missed && n_doubts < patience;
    n_doubts        = in_doubt ? n_doubts + 1 : 0;
    drafting        = pays || in_doubt;
    if (drafting) {
        probe.drafts();
        return n_max;
    }
    if (n_max == 0) {
        return 0;
    }
    if (probe.off(n)) {
        costs.run_ends(); // even if it is not measured
        return 1;
    }
    plain_rounds.had_one();
    off = true;
    return 0;
}

int llama_nextn_length::rest() {
    static constexpr int most = 7; // so that it is soon seen when drafting pays

    const int n = off && costs.plain_is_steady() ? std::clamp(probe.rounds_left() - 1, 0, most) : 0;
    off         = false;
    n_passed += n;
    return n;
}

bool llama_nextn_length::go_on(const std::vector<float> & p) const {
    return (int) p.size() < n_max && best_ahead(p, false) > (int) p.size();
}

int llama_nextn_length::keep(const std::vector<float> & p) const {
    const int best = best_ahead(p, true);
    return probe.is_trying() && !p.empty() ? std::max(best, 1) : best;
}

void llama_nextn_length::saw(const std::vector<float> & p, int n_sent, int n_accepted) {
    acceptance.saw(p, n_sent, n_accepted);
    missed = n_sent > 0 && n_accepted == 0;
    if (!probe.is_trying()) {
        return;
    }
    const double plain   = costs.verify(1);
    const auto   cost_of = [&](int k) {
        return costs.verify(k + 1) + costs.draft(k);
    };
    const double needed = probe.needed_acceptance(n_max, plain, costs.catch_up_row(), cost_of);
    probe.tried(n_accepted > 0, needed, (cost_of(1) - plain) / plain, costs.beside_a_try() / plain);
    if (n_accepted > 0 && cost_of(1) < 2 * plain) { // it took less than the two tokens would have
        probe.go_on();
    }
}
