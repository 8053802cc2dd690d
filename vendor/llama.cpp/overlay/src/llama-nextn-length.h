#pragma once

#include "llama-nextn-acceptance.h"
#include "llama-nextn-costs.h"
#include "llama-nextn-probe.h"

#include <vector>

// Rounds without a draft, for what drafting is compared with: soon, but not at the cost of short answers, and again
// while drafting never stops.
class llama_nextn_plain_rounds {
public:
    bool is_due(int n_measured); // once a round
    void had_one() { since = 0; }

private:
    int since = 0;
};

// Chooses how many tokens to draft so that accepted tokens per second are highest.
//
// A round that verifies k drafted tokens yields E(k) = 1 + A_1 + … + A_k tokens on average, where A_j is the
// probability that the first j are all accepted, and takes T(k) = v(k + 1) + d(k): verifying k + 1 tokens and drafting
// k. The best long-run rate is the largest r for which some k has E(k) - r T(k) >= 0, so with r known every choice
// within a round maximises E - r T (renewal reward).
//
// Everything here is arithmetic on numbers handed in: no clock, no engine, no randomness.
class llama_nextn_length {
public:
    static constexpr int k_max = llama_nextn_acceptance::k_max;

    explicit llama_nextn_length(int n_max = k_max, const llama_nextn_acceptance * others = nullptr);

    // Upper bound on the tokens of the coming round; 0: decode plainly. Counts the round, so call it once a round.
    int plan();

    // With these probabilities drafted so far: does another draft step pay?
    bool go_on(const std::vector<float> & p) const;

    // How many of these drafted tokens are worth verifying?
    int keep(const std::vector<float> & p) const;

    // What became of a draft. p: probability of each drafted token; the first n_sent of them were verified.
    void saw(const std::vector<float> & p, int n_sent, int n_accepted);

    void set_n_max(int n);

    llama_nextn_costs      costs{k_max + 1};
    llama_nextn_acceptance acceptance;
    llama_nextn_probe      probe;

private:
    double rate() const; // r: tokens per time of the best length under average acceptance
    int    best_ahead(const std::vector<float> & p, bool drafted_only) const;

    int                      n_max;
    llama_nextn_plain_rounds plain_rounds;
};
