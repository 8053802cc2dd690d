#pragma once

#include <algorithm>

// When a head that does not pay is tried again: seldom while it stays bad, soon once it had luck.
class llama_nextn_probe {
public:
    static constexpr int first = 8; // rounds without drafting before the first try

    void drafts() { // because it pays
        rounds_off = 0;
        interval   = std::max(interval / 2, first); // a head that is good again earns its trust back
        trying     = false;
    }

    // Another round in which drafting does not pay. Whether the head should be tried in it.
    bool off() {
        trying = ++rounds_off >= interval;
        if (trying) {
            rounds_off = 0;
        }
        return trying;
    }

    void try_now() { // in company of another try
        rounds_off = 0;
        trying     = true;
    }

    bool is_trying() const { return trying; }

    // What became of a try. extra: what it costs in all, in rounds without drafts.
    void tried(bool good, double extra) {
        if (trying) {
            const int longest = (int) std::clamp(extra / share, (double) first, (double) last);
            interval          = std::clamp(good ? interval / 2 : 2 * interval, first, longest);
            trying            = false;
        }
    }

    // Whether some length up to n_max would pay with a good head. plain: cost of a round without drafts; cost_of(k): of
    // one with k drafted tokens in each sequence.
    template <typename F>
    static bool can_pay(int n_max, double plain, F cost_of) {
        double all = 1, e = 1;
        for (int k = 1; k <= n_max; ++k) {
            all *= good_acceptance;
            e += all;
            if (e * plain > cost_of(k)) {
                return true;
            }
        }
        return false;
    }

private:
    static constexpr double good_acceptance = 0.95;

    // Where a try costs little it comes more often, so that a head that only had bad luck is soon on again.
    static constexpr int    last  = 1024;
    static constexpr double share = 0.003; // of the time that may go to trying

    int  rounds_off = 0;
    int  interval   = first;
    bool trying     = false;
};
