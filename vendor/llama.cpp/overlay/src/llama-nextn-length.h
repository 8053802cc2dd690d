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
//   v(n)   per width, because cost is not monotone on CPUs (four rows can be cheaper than three); a line through all
//          widths stands in for those that were not measured lately, so that an old bad sample is tried again
//   A_j    from the head's own probability of the drafted token (binned, with the probability itself in the prior)
//          times a factor per position
//
// Everything here is arithmetic on numbers handed in: no clock, no engine, no randomness. Times are in any one unit.
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

    // What became of a draft. p: probability of each drafted token; the first n_sent of them were verified.
    void saw(const std::vector<float> & p, int n_sent, int n_accepted);

    // What was measured; leave out what included the building of a graph.
    void verify_took(int n_tokens, double t);
    void first_draft_took(double t); // includes catching up
    void next_draft_took(double t);

    void set_n_max(int n);

    // Another text begins, on which the head may be better or worse: what the one before taught counts little.
    void new_text();

    double cost_verify(int n_tokens) const;         // v(n)
    double cost_draft(int n_draft) const;           // d(k)
    double acceptance(int position, float p) const; // of the token at this position (from 1), given the ones before it

private:
    static constexpr int n_bins = 8;

    // a cost: the lower quartile of its last samples, so that slow steps do not count, even on a busy machine
    struct cost {
        static constexpr int n_max = 24;

        std::array<double, n_max> samples; // a ring
        int                       count    = 0;
        int64_t                   at_round = 0; // of the newest
        double                    typical  = 0;

        void   add(double sample, int64_t round);
        double weight(int64_t round) const; // as evidence, in samples
    };

    struct counts { // of trials, fading
        double accepted = 0;
        double trials   = 0;

        void add(double n_accepted, double n_trials);
        void fade(double factor);
        void limit(double n_trials);
    };

    static int bin_of(float p);

    bool   is_time_for_plain() const;
    bool   can_pay() const; // whether some length would pay if all of it were accepted
    int    longest_probe_interval() const;
    void   learn_expected();
    void   fit_line(const std::array<double, k_max + 2> & weights);
    void   learn_costs();
    double prior(float p) const;
    double rate() const; // r: tokens per time of the best length under average acceptance
    int    best_ahead(const std::vector<float> & p, bool drafted_only, double & value) const;
    int    n_max;

    std::array<cost, k_max + 2>   verify;      // by width
    std::array<double, k_max + 2> costs;       // v(n), from both
    double                        line_at_one; // v(n) is about line_at_one + (n - 1) * line_slope
    double                        line_slope;
    cost                          draft_first;
    cost                          draft_next;
    std::array<counts, n_bins>    by_bin;
    std::array<counts, k_max + 1> by_position; // accepted against what the bins expected
    std::array<counts, k_max + 1> outcomes;    // by position, whatever the probability
    std::array<double, k_max + 1> expected;    // acceptance at a position whose probability is not known yet

    int64_t round              = 0;
    int     rounds_since_plain = 0;
    int     rounds_off         = 0;
    int     probe_interval;
    bool    probing = false;
};
