#pragma once

#include "llama-nextn-acceptance.h"
#include "llama-nextn-costs.h"
#include "llama-nextn-probe.h"

#include <vector>

// Rounds without a draft, for what drafting is compared with: soon, but not at the cost of short answers, and again
// while drafting never stops. Where plain decoding comes near, a try goes on while it gets cheaper: the caches that
// drafting filled with other things warm up, for a dozen rounds with a model of a few MB.
class llama_nextn_plain_rounds {
public:
    // Whether the coming round is one; once a round. even: what it may cost to be as good as one with drafts; only
    // looked at within a try.
    bool is_due(const llama_nextn_costs & costs, double even);
    bool is_trying() const { return trying; }
    void had_one() {
        since   = 0;
        changed = true;
    }

private:
    bool goes_on(const llama_nextn_costs & costs, double even) const;
    void wait(const llama_nextn_costs & costs, double even);

    int    since   = 0; // rounds with drafts
    int    n_tries = 0;
    int    length  = 0; // of the try, in rounds
    double began   = 0; // and its first moment
    double next    = 0; // no try before
    bool   trying  = false;
    bool   changed = false; // drafting began after rounds without, on what may be old measurements
};

// Chooses how many tokens to draft so that accepted tokens per second are highest.
//
// A round that verifies k drafted tokens yields E(k) = 1 + A_1 + … + A_k tokens on average, where A_j is the
// probability that the first j are all accepted, and takes T(k) = v(k + 1) + d(k) + c (E(k) - 1): verifying k + 1
// tokens, drafting k and, in the next round, catching up with what was accepted. The best long-run rate is the largest
// r for which some k has E(k) - r T(k) >= 0, so with r known every choice within a round maximises E - r T (renewal
// reward).
//
// To begin with drafts, or to end them, costs something once: a round bears a share of it. A text is expected to go on
// for as long as it has been going on, and for 64 rounds at least.
//
// As long as drafts are accepted, one slow round is no reason to stop: drafting goes on until a few more have shown the
// same. Stopped, it would be measured again in seldom tries only.
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

    // Behind a round: how many of the coming ones the caller leaves out, as they would have no draft. A decode of a
    // small model takes so little time that looking at every round would cost a hundredth of it.
    int rest();

    // Another text begins, behind a prompt.
    void new_text();

    void set_n_max(int n);

    llama_nextn_costs      costs{k_max + 1};
    llama_nextn_acceptance acceptance;
    llama_nextn_probe      probe;

private:
    void   choose_usual();
    double rate() const;             // r
    double plain() const;            // time of a round without a draft, in a run of such
    double to_change() const;        // what a round with a draft bears of the cost to begin with them
    double share(double once) const; // that a round bears
    int    best_ahead(const std::vector<float> & p, bool drafted_only) const;

    int                      n_max;
    llama_nextn_plain_rounds plain_rounds;

    // The best length under average acceptance, or the one before where it is hardly worse; and its tokens per time.
    int    usual      = 0;
    double usual_rate = 0;

    int  n_rounds = 0;     // of this text
    int  n_passed = 1;     // rounds since the last plan, with the coming one
    bool drafting = true;  // it paid in the last plan, or a text begins
    bool off      = false; // it did not, and the coming round is not a try either
    bool in_doubt = false; // it did not, but goes on for a few rounds
    int  n_doubts = 0;     // such rounds in a row
    bool missed   = true;  // the last draft was rejected as a whole, or there was none in this text
};
