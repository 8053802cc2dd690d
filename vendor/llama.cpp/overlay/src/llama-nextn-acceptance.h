#pragma once

#include <array>
#include <vector>

// How likely a drafted token of a sequence is accepted, given that those before it are: from the head's own probability
// of it (binned, with the probability itself in the prior) times a factor per position. Learnt from what became of
// drafts, older ones fading.
class llama_nextn_acceptance {
public:
    static constexpr int k_max = 16; // more drafted tokens than pay on any machine measured

    // others: what is known of all sequences together, which this one is taken to be like until it shows otherwise.
    explicit llama_nextn_acceptance(const llama_nextn_acceptance * others = nullptr);

    void next_round(int n = 1);

    // What became of a draft. p: probability of each drafted token; the first n_sent of them were verified.
    void saw(const std::vector<float> & p, int n_sent, int n_accepted);

    // Another text begins, on which the head may be better or worse: what those before taught counts as much as texts
    // were alike until now.
    void new_text();

    double of(int position, float p) const; // of the token at this position (from 1)
    double ahead(int position) const;       // of one whose probability is not known yet

private:
    static constexpr int n_bins = 8;

    struct counts { // of trials, fading
        double accepted = 0;
        double trials   = 0;

        void add(double n_accepted, double n_trials);
        void fade(double factor);
        void limit(double n_trials);
    };

    // How this text differs from what those before let expect.
    struct text {
        std::array<double, k_max + 1> expected; // as the text began

        double trials   = 0;
        double surplus  = 0; // accepted more than expected
        double variance = 0; // of the surplus, if it is chance
    };

    static int bin_of(float p);

    double prior(float p) const;
    double prior_trials() const;
    void   learn_expected();
    void   learn_spread();

    const llama_nextn_acceptance * others;

    std::array<counts, n_bins>    by_bin;
    std::array<counts, k_max + 1> by_position; // accepted against what the bins expected
    std::array<counts, k_max + 1> outcomes;    // by position, whatever the probability
    counts                        all_texts;   // of first tokens, not limited where a text begins
    std::array<double, k_max + 1> expected;    // acceptance at a position whose probability is not known yet

    text   current;
    double spread; // variance of acceptance among texts, over that of one trial within a text
};
