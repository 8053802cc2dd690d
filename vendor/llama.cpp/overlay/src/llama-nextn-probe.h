#pragma once

#include <algorithm>
#include <cmath>

// When a head that does not pay is tried again: seldom while it stays bad, soon where it is nearly as good as needed.
class llama_nextn_probe {
public:
    void drafts() { // because it pays
        rounds_off = 0;
        interval   = std::max(interval / 2, first); // a head that is good again earns its trust back
        trying     = false;
        goes_on    = false;
    }

    // Another n rounds in which drafting does not pay. Whether the head should be tried in the last of them.
    bool off(int n = 1) {
        rounds_off += n;
        trying = goes_on || rounds_off >= interval;
        if (trying) {
            rounds_off = 0;
        }
        if (!goes_on) {
            beside_try = 0;
        }
        goes_on = false;
        return trying;
    }

    // The next round is a try, too, if drafting does not pay in it: the head has caught up, so it costs less than one
    // later.
    void go_on() { goes_on = true; }

    void ends() { // whatever became of it
        goes_on = false;
        trying  = false;
    }

    void try_now() { // in company of another try
        rounds_off = 0;
        trying     = true;
    }

    bool is_trying() const { return trying; }
    int  rounds_left() const { return (int) std::ceil(interval) - rounds_off; } // until a try

    // What became of a try: whether its first token was accepted. needed: acceptance from which drafting pays. extra
    // and beside: what its round costs more than one without a draft, and what the try costs beside it, in such rounds.
    // The interval doubles after a failure, and shrinks after a success by so much that it would stay where acceptance
    // is a little less than needed.
    void tried(bool accepted, double needed, double extra, double beside) {
        if (trying) {
            beside_try            = std::max(beside_try, beside);
            const double even     = std::max(needed - tolerance, step);
            const double longest  = std::clamp((extra + beside_try) / share, first, last);
            const double shortest = std::clamp(beside_try / share_of_good, first, longest);
            const double steps    = accepted && needed < 1 ? -(1 - even) / even : 1;
            interval              = std::clamp(interval * std::exp2(steps), shortest, longest);
            trying                = false;
        }
    }

    // Acceptance from which some length up to n_max pays; 1: none. plain: cost of a round without drafts; cost_of(k):
    // of one with k drafted tokens in each sequence, and per_accepted of each that is accepted.
    template <typename F>
    static double needed_acceptance(int n_max, double plain, double per_accepted, F cost_of) {
        for (double acceptance = step; acceptance < 1 - step / 2; acceptance += step) {
            double all = 1, e = 1;
            for (int k = 1; k <= n_max; ++k) {
                all *= acceptance;
                e += all;
                if (e * plain > cost_of(k) + (e - 1) * per_accepted) {
                    return acceptance;
                }
            }
        }
        return 1;
    }

private:
    static constexpr double step      = 0.05;
    static constexpr double tolerance = 0.1;

    // Rounds between two tries. Where a try costs little it comes more often, so that a head that only had bad luck is
    // soon on again.
    static constexpr double first         = 8;
    static constexpr double last          = 1024;
    static constexpr double share         = 0.003; // of the time that may go to trying a bad head
    static constexpr double share_of_good = 0.01;  // and one that is nearly as good as needed

    int    rounds_off = 0;
    double interval   = first;
    bool   trying     = false;
    bool   goes_on    = false;
    double beside_try = 0; // of the dearest round of a try that goes on
};
