#pragma once

#include "llama-nextn-kalman.h"

#include <array>
#include <cstdint>
#include <initializer_list>
#include <vector>

// What a round costs, estimated from what is measured. Times are in any one unit.
//
//   v(n)   of verifying n tokens; v(1) is a round without drafts, when it is one of many in a row
//   d(k)   of drafting: a first step and k - 1 further ones
//   c      of catching up with one token more than the newest, in the first step
//
// The logarithms of the times are sums, in which a machine that slows down is one number:
//
//   log v(1) = level
//   log v(n) = level + log(1 + (n - 1) slope) + own(n), because cost is not monotone on CPUs: four rows can be cheaper
//              than three. Slope and own(n) go back to their guesses where they are not measured, so that a width with
//              an old bad sample is tried again.
//   log d(1) = level + first_step, level + first_step + next_step of a further step
//   level + first_step + log(1 + n row) of a first step that catches up with n tokens
//   level + cold(i) of the i-th round without drafts in a row. They begin with caches that hold other things.
//   + another, where as many tokens were not verified in the round before
//   + a share of cold_verify or cold_draft, where as many tokens were not verified or read lately. The graph of a width
//   has memory of its own, and leaves the caches in the meantime; with each use less is missing.
//   + warming in each of them at the beginning of a text. It is another number in each text, and fades.
//
// Behind the first text all but the level are guesses again: in a process that has just begun memory is mapped and
// graphs are made, and what shares of v(1) that seemed to show kept drafting off for a thousand tokens.
class llama_nextn_costs {
public:
    static constexpr double guess_per_token = 0.15; // of v(1), for each further token to verify

    // Widths are 1 to n_widths. per_token: guess of what each further one costs, as a share of v(1).
    explicit llama_nextn_costs(int n_widths, double per_token = guess_per_token);

    void next_round(int n = 1);               // what was measured until here is what the costs are asked for
    void run_ends() { plain_run.length = 0; } // of rounds without drafts
    void new_text();                          // the caches may hold anything

    // What was measured; 0 where it included the building of a graph.
    void verify_took(int width, double t);
    void first_draft_took(double t, int n_caught_up = 0);
    void next_draft_took(double t);
    void catching_up_took(double t); // before a draft, for rounds without one

    double verify(int width) const; // v(n)
    double draft(int n_draft) const;
    double another_width() const { return other_width; } // what verifying another number takes more, as a share
    double catch_up_row() const { return d_row; }        // c: while drafting goes on, of each accepted token

    // What it costs to change over, once: plain rounds begin with cold caches, and so does drafting, before which the
    // head catches up.
    double first_plain() const { return v_first; } // the whole first round of a run without drafts
    double to_plain() const { return cold_start; }
    double to_drafts() const { return catch_up + n_caught_up * d_row + cold_round; }
    double beside_a_try() const { return to_drafts() + to_plain(); } // of drafting once among plain rounds

    double elapsed() const { return time; } // all that was measured

    int n_plain() const { return n_plain_rounds; } // how often v(1) was measured behind another round without a draft

    // Of the present run of rounds without drafts.
    static constexpr int n_falling = 7; // after this many it is known whether they get cheaper
    bool                 plain_falls() const;
    double               newest_plain() const { return plain_run.newest; }
    bool                 plain_is_steady() const { return plain_run.length >= 1 << n_cold; }

private:
    static constexpr int n_cold = 4; // the first round of a run, the second and third, and so on in powers of two

    enum : int {
        level,
        warming,
        first_step,
        next_step,
        row,
        cold_draft,
        cold_verify,
        another,
        cold,
        slope = cold + n_cold,
        own
    };

    struct run {
        std::array<double, n_falling> first;
        int                           length = 0;
        double                        newest = 0;
    };

    struct warmth {        // of what a width works on
        double  gone = 0;  // how much of it is not in the caches, behind the last use: 0 to 1
        int64_t used = -1; // the round of that, or none

        double use(int64_t round); // how much of it was missing
        void   rest();             // all of it is, now
    };

    static std::vector<llama_nextn_kalman::guess> first_guesses(int n_widths, double per_token);

    int  clamp(int width) const;
    int  own_of(int width) const;
    void pass_time();
    void plain_took(double t);
    void took(std::initializer_list<llama_nextn_kalman::term> terms, double t);
    void took(std::initializer_list<llama_nextn_kalman::term> terms, double predicted, double t); // where it is no sum
    void learn();

    int                n_own;
    llama_nextn_kalman known;
    int64_t            round       = 0;
    int64_t            known_round = 0; // that the estimates are of
    bool               changed     = true;
    bool               settled     = false; // the first text is over

    double              time = 0;
    std::vector<warmth> verify_warmth; // by width, as the next
    std::vector<warmth> draft_warmth;
    int                 last_width = 1;

    std::vector<double> v; // by width
    double              d_first     = 0;
    double              d_next      = 0;
    double              d_row       = 0;
    double              other_width = 0;
    double              v_first     = 0; // of the first round of a run without drafts
    double              cold_start  = 0; // what the rounds at the beginning of a run take beyond their steady cost
    double              cold_round  = 0; // what a first step and verifying two tokens take more after a long rest
    double              catch_up    = 0; // with many tokens, apart
    int                 n_caught_up = 0; // in the last first step

    run plain_run;
    int n_plain_rounds = 0;
};
