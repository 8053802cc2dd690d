#pragma once

#include "llama-nextn-head.h"
#include "llama-nextn.h"

#include <cstdint>
#include <vector>

struct llama_context;

// Keeps the shortlist of a draft context such that it covers what the target says: the likely tokens of the vocabulary,
// those of the text, and more of the vocabulary while the target says too much that is on neither. Does nothing where
// the whole vocabulary is scored.
class llama_nextn_coverage {
public:
    // Gives the context the shortlist that params ask for, where its output matrix allows one.
    llama_nextn_coverage(llama_context & ctx_dft, const llama_nextn_draft_params & params, size_t n_seqs);
    ~llama_nextn_coverage();

    llama_nextn_coverage(const llama_nextn_coverage &)             = delete;
    llama_nextn_coverage & operator=(const llama_nextn_coverage &) = delete;

    // The tokens of a sequence's text become candidates of all sequences; negative ones are no tokens.
    void note_text(llama_seq_id seq_id, const llama_token * tokens, int32_t n_tokens);

    // The target said a token, which becomes a candidate, or accepted n drafted ones, which were candidates.
    void note_emitted(llama_token id);
    void note_accepted(int32_t n);

    // Widen the prefix while the target says too much that is not on the shortlist, narrow it while it hardly does.
    void fit_prefix();

    // The prefix as it was at first, where it is fitted.
    void reset_prefix();

    // The candidates that only this sequence's text brought are none any more.
    void forget_text(llama_seq_id seq_id);

    // Fill in what is known of the shortlist.
    void get_stats(llama_nextn_draft_stats & stats) const;

private:
    llama_nextn_shortlist * get_list() const; // NULL: the whole vocabulary

    llama_context & ctx_dft;

    int32_t n_vocab;
    bool    fitted; // the user left the prefix to us

    std::vector<std::vector<llama_token>> texts; // newest tokens of each sequence that the prefix lacked

    double  miss         = 0; // running share of the target's tokens that were not on the list
    int64_t n_emitted    = 0; // since the prefix was last looked at
    int32_t prefix_floor = 0; // what was too narrow once is not tried again
};
