#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

// What a round costs, estimated from what is measured. Times are in any one unit.
//
//   v(n)   of verifying, per width n, because cost is not monotone on CPUs: four rows can be cheaper than three.
//          A line through all widths stands in for those that were not measured lately, so that an old bad sample
//          is tried again. Width 1 is a round without drafts. It counts behind another one, and from where such
//          rounds stop getting cheaper: they begin with caches that hold other things.
//   d(k)   of drafting: a first step, which includes catching up, and k - 1 further ones
class llama_nextn_costs {
    static constexpr double low_quantile = 0.25; // so that slow steps do not count, even on a busy machine

public:
    static constexpr double guess_per_token = 0.15; // of v(1), for each further token to verify

    // Widths are 1 to n_widths. per_token: guess of what each further one costs, as a share of v(1). draft_quantile: of
    // its last samples, which counts as the cost of a draft step.
    explicit llama_nextn_costs(int n_widths, double per_token = guess_per_token, double draft_quantile = low_quantile);

    void next_round() { round++; }
    void new_text() { plain_run.length = 0; }

    // What was measured; leave out what included the building of a graph.
    void verify_took(int width, double t);
    void first_draft_took(double t);
    void next_draft_took(double t);
    void catching_up_took(double t) { catch_up = t; } // before a draft, for rounds without one

    // What drafting once among rounds without drafts costs beside its own round: the head catches up before it, and the
    // plain rounds behind it begin cold.
    double beside_a_try() const { return catch_up + cold_start; }

    double verify(int width) const; // v(n)
    double draft(int n_draft) const;

    int n_plain() const { return samples[1].count; } // how often v(1) was measured

    // Of the present run of rounds without drafts.
    static constexpr int n_falling = 7; // after this many it is known whether they get cheaper
    bool                 plain_falls() const;
    double               newest_plain() const { return plain_run.newest; }

private:
    struct cost {
        static constexpr int n_max = 24;

        std::array<double, n_max> ring;
        int                       count    = 0;
        int64_t                   at_round = 0; // of the newest
        double                    typical  = 0; // a quantile of the last samples

        void   add(double sample, int64_t round, double quantile = low_quantile);
        void   forget(int n_newest) { count = std::max(count - n_newest, 0); }
        double weight(int64_t round) const; // as evidence, in samples
    };

    struct run {
        std::array<double, n_falling> first;
        int                           length = 0;
        double                        newest = 0;
    };

    int  clamp(int width) const;
    void plain_took(double t);
    void fit_line();
    void learn();

    double              per_token;
    double              draft_quantile;
    std::vector<cost>   samples; // by width
    std::vector<double> weights; // of the samples, as evidence
    std::vector<double> known;   // v(n), from both
    double              line_at_one;
    double              line_slope; // v(n) is about line_at_one + (n - 1) * line_slope
    cost                draft_first;
    cost                draft_next;
    run                 plain_run;
    double              cold_start = 0; // what the rounds at the beginning of a run took beyond its steady cost
    double              catch_up   = 0;
    int64_t             round      = 0;
};
