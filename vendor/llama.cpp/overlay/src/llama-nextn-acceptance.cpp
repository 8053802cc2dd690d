#include "llama-nextn-acceptance.h"

#include <algorithm>
#include <cmath>

static constexpr double fade_per_trial   = 0.99;  // half of the evidence is at most 70 trials old
static constexpr double fade_per_round   = 0.998; // of bins that are never sent: they get another chance
static constexpr double like_others      = 6;     // trials
static constexpr double like_itself      = 4;
static constexpr double first_kept       = 8; // trials of the evidence, when another text begins
static constexpr double min_kept         = 6;
static constexpr double max_kept         = 100; // more than fading leaves
static constexpr double min_trials       = 8;   // of a text that shows anything
static constexpr double spread_rate      = 0.1; // of what a text shows of the spread
static constexpr double even_trials      = 20;  // of all positions being equally good
static constexpr double guess_acceptance = 0.8; // a good head, so that drafting gets its try
static constexpr double guess_trials     = 40;  // that this guess is worth

void llama_nextn_acceptance::counts::add(double n_accepted, double n_trials) {
    accepted = fade_per_trial * accepted + n_accepted;
    trials   = fade_per_trial * trials + n_trials;
}

void llama_nextn_acceptance::counts::fade(double factor) {
    accepted *= factor;
    trials *= factor;
}

void llama_nextn_acceptance::counts::limit(double n_trials) {
    if (trials > n_trials) {
        fade(n_trials / trials);
    }
}

llama_nextn_acceptance::llama_nextn_acceptance(const llama_nextn_acceptance * others)
    : others(others), spread(1 / first_kept) {
    learn_expected();
    current = text{expected};
}

void llama_nextn_acceptance::next_round(int n) {
    const double factor = std::pow(fade_per_round, n);
    for (auto & bin : by_bin) {
        bin.fade(factor);
    }
}

// With a variance s among texts and v within one, what was learnt of another text is worth v / s trials of this one. A
// text of n trials whose surplus is d shows (d^2 - n v) / n^2 of s.
void llama_nextn_acceptance::learn_spread() {
    if (current.trials < min_trials) {
        return;
    }
    const double excess = current.surplus * current.surplus - current.variance;
    const double shown  = excess / (current.trials * current.variance);
    spread += spread_rate * (std::clamp(shown, -1.0, 1.0) - spread);
    spread = std::clamp(spread, 1 / max_kept, 1 / min_kept);
}

void llama_nextn_acceptance::new_text() {
    learn_spread();
    const double trials_kept = 1 / spread;
    for (auto & bin : by_bin) {
        bin.limit(trials_kept);
    }
    for (int i = 1; i <= k_max; ++i) {
        by_position[i].limit(trials_kept);
        outcomes[i].limit(trials_kept);
    }
    learn_expected();
    current = text{expected};
}

int llama_nextn_acceptance::bin_of(float p) {
    static constexpr std::array<float, n_bins - 1> edges = {0.2f, 0.4f, 0.6f, 0.8f, 0.9f, 0.97f, 0.995f};
    return (int) (std::upper_bound(edges.begin(), edges.end(), p) - edges.begin());
}

// Before a bin has evidence of its own: half what the head says, half how it has done so far.
double llama_nextn_acceptance::prior(float p) const {
    if (others) {
        const auto & bin = others->by_bin[bin_of(p)];
        return (bin.accepted + like_itself * others->prior(p)) / (bin.trials + like_itself);
    }
    return 0.5 * (p + expected[1]);
}

double llama_nextn_acceptance::prior_trials() const {
    return others ? like_others : like_itself;
}

double llama_nextn_acceptance::of(int position, float p) const {
    const auto & bin  = by_bin[bin_of(p)];
    const double base = (bin.accepted + prior_trials() * prior(p)) / (bin.trials + prior_trials());

    const auto & pos    = by_position[std::min(position, k_max)];
    const double factor = (pos.accepted + even_trials) / (pos.trials + even_trials);
    return std::clamp(base * factor, 0.0, 1.0);
}

double llama_nextn_acceptance::ahead(int position) const {
    return expected[std::min(position, k_max)];
}

// A position that is seldom reached is judged by the one before it.
void llama_nextn_acceptance::learn_expected() {
    if (others) {
        expected[0] = others->expected[1];
    } else {
        expected[0] = (all_texts.accepted + guess_trials * guess_acceptance) / (all_texts.trials + guess_trials);
    }
    for (int i = 1; i <= k_max; ++i) {
        const double weight = i == 1 ? prior_trials() : even_trials;
        expected[i]         = (outcomes[i].accepted + weight * expected[i - 1]) / (outcomes[i].trials + weight);
    }
}

void llama_nextn_acceptance::saw(const std::vector<float> & p, int n_sent, int n_accepted) {
    const int n_drafted = std::min((int) p.size(), k_max);
    n_sent              = std::min(n_sent, n_drafted);

    for (int i = 0; i < std::min(n_sent, n_accepted + 1); ++i) {
        const double ok = i < n_accepted ? 1 : 0;

        const double likely = std::clamp(current.expected[i + 1], 0.05, 0.95);
        current.trials += 1;
        current.surplus += ok - likely;
        current.variance += likely * (1 - likely);

        auto & bin = by_bin[bin_of(p[i])];
        by_position[i + 1].add(ok, (bin.accepted + prior_trials() * prior(p[i])) / (bin.trials + prior_trials()));
        bin.add(ok, 1);
        outcomes[i + 1].add(ok, 1);
        if (i == 0) {
            all_texts.add(ok, 1);
        }
    }
    if (n_accepted == n_sent && n_sent < n_drafted) {
        // a draft step that was not worth verifying: without it a head would seem as good as its best tokens
        outcomes[n_sent + 1].add(of(n_sent + 1, p[n_sent]), 1);
    }
    learn_expected();
}
