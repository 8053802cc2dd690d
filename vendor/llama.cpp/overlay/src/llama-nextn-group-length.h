#pragma once

#include "llama-nextn-acceptance.h"
#include "llama-nextn-costs.h"
#include "llama-nextn-length.h"
#include "llama-nextn-probe.h"

#include <vector>

// Chooses how many tokens each of several sequences drafts that share a round: one decode of the target, and one of the
// draft head for each step. As llama_nextn_length, for the sum of their tokens: a drafted token is worth its row where
// the probability that it is accepted, and all before it, is more than what the row costs.
class llama_nextn_group_length {
public:
    struct member {
        const llama_nextn_acceptance * acceptance;
        llama_nextn_probe *            probe;
        int                            n_max; // tokens at most
        bool                           drawn; // keeps all that it drafted: to drop a token after a look would bend q

        std::vector<float> p;             // of the tokens drafted so far
        bool               going = false; // takes part in the next step
        int                n     = 0;     // tokens to verify
    };

    explicit llama_nextn_group_length(int n_members);

    // A round begins. Whether anyone drafts, and who.
    bool plan(std::vector<member> & members);

    // With these tokens drafted so far: whether another step pays, and for whom of those that are going.
    bool go_on(std::vector<member> & members) const;

    // How many of the drafted tokens are worth verifying.
    void keep(std::vector<member> & members) const;

    // The try of a member came to this.
    void tried(const member & m, int n_accepted) const;

    void verify_took(const std::vector<member> & members, double t);

    llama_nextn_costs costs;

private:
    double rate(const std::vector<member> & members) const;
    double drafting_rate(const std::vector<member> & members) const;
    void   divide(std::vector<member> & members, double r, bool drafted_only) const;
    int    width(int n_rows, int longest) const;

    int                      n_members;
    llama_nextn_plain_rounds plain_rounds;
};
