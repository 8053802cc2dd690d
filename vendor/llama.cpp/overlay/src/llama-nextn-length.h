#pragma once

#include <array>
#include <cstdint>
#include <vector>

// Chooses how many tokens to draft so that accepted tokens per second are highest.
//
// A round that verifies k drafted tokens yields E(k) = 1 + A_1 + … + A_k tokens on average, where A_j is the
// probability that the first j are all accepted, and takes T(k) = v(k + 1) + d(k): verifying k + 1 tokens and drafting
// k. The best long-run rate is the largest r for which some k has E(k) - r T(k) >= 0, so with r known every choice
// within a round maximises E - r T (renewal reward). Both parts are estimated from what is measured:
//
//   v(n)   per width, because cost is not monotone on CPUs (four rows can be cheaper than three)
//   A_j    from the head's own probability of the drafted token (binned, with the probability itself as the prior)
//          times a factor per position
//
// Everything here is arithmetic on numbers handed in: no clock, no engine, no randomness.
class llama_nextn_length {
public:
    static constexpr int k_max = 16; // more drafted tokens than pay on any machine measured

    explicit llama_nextn_length(int n_max = k_max);

    // Upper bound on the tokens of the coming round; 0: decode plainly. Counts the round, so call it once a round.
    int plan();

    // With these probabilities drafted so far: does another draft step pay?
    bool go_on(const std::vector<float> & p) const;

    // How many of these drafted tokens are worth verifying?
    int keep(const std::vector<float> & p) const;

    // What a round came to. p: probability of each token sent to verification; times in microseconds; n_drafted counts
    // the draft steps paid, sent or not.
    void update(const std::vector<float> & p, int n_accepted, int n_drafted, double t_draft, double t_verify);

    void set_n_max(int n);

    double cost_verify(int n_tokens) const;         // v(n), microseconds
    double cost_draft(int n_draft) const;           // d(k), microseconds
    double acceptance(int position, float p) const; // of the token at this position (from 1), given the ones before it

private:
    static constexpr int n_bins = 8;

    // a cost: the median of its last samples, so that single slow steps do not count
    struct cost {
        static constexpr int n_max = 15;

        std::array<double, n_max> samples; // a ring
        int                       count  = 0;
        double                    median = 0;

        void add(double sample);
    };

    struct counts { // of trials, fading
        double accepted = 0;
        double trials   = 0;

        void add(double n_accepted, double n_trials);
    };

    static int bin_of(float p);

    void   learn_expected();
    double guess_verify(int n) const; // from the other widths
    double rate() const;              // r: tokens per microsecond of the best length under average acceptance
    int    best_ahead(const std::vector<float> & p, bool drafted_only, double & value) const;
    int    n_max;

    std::array<cost, k_max + 2>   verify;      // by width
    cost                          draft_first; // includes catching up
    cost                          draft_next;
    std::array<counts, n_bins>    by_bin;
    std::array<counts, k_max + 1> by_position; // accepted against what the bins expected
    std::array<counts, k_max + 1> outcomes;    // by position, whatever the probability
    std::array<double, k_max + 1> expected;    // acceptance at a position whose probability is not known yet

    int rounds_since_plain = 0;
    int rounds_off         = 0;
    int probe_interval     = 8;
};
