#pragma once

#include "llama-nextn.h"

#include "llama-nextn-batch.h"
#include "llama-nextn-coverage.h"
#include "llama-nextn-draw.h"
#include "llama-nextn-group-length.h"
#include "llama-nextn-length.h"
#include "llama-nextn-state.h"

#include <cstdint>
#include <optional>
#include <vector>

// Drafts chains of tokens with the NextN block of a paired draft context.
//
// The block reads, at position p, the token x_p and the hidden row h_{p-1} (zeros at position 0), and keeps a KV row
// per position. Rows of committed tokens are computed once, from true hidden rows: those not in the draft memory yet
// wait in `tokens` and `hidden`, and the next draft computes them in the same decode as its first step. Rows that a
// chain wrote from its own hidden rows are removed before that.
struct llama_nextn_drafter {
    llama_nextn_drafter(llama_context * ctx_tgt, llama_context * ctx_dft, const llama_nextn_draft_params & params);
    ~llama_nextn_drafter();

    llama_nextn_drafter(const llama_nextn_drafter &)             = delete;
    llama_nextn_drafter & operator=(const llama_nextn_drafter &) = delete;

    void    begin(llama_seq_id seq_id);
    bool    resume(llama_seq_id seq_id, const llama_token * tokens, int32_t n_tokens, const float * carry);
    int32_t feed(llama_seq_id seq_id, const llama_token * tokens, int32_t n_tokens, const float * hidden);
    int32_t draft(llama_seq_id seq_id, llama_token id_last, int32_t n_room, llama_token * out, float * p);
    void    accept(llama_seq_id seq_id, int32_t n_sent, int32_t n_accepted, double t_verify);
    int32_t rest(llama_seq_id seq_id);

    void                  set_draw(llama_seq_id seq_id, const llama_nextn_draw * draw);
    const llama_nextn_q * get_q(llama_seq_id seq_id, int32_t i) const;
    int32_t               get_row(const llama_token ** ids, const float ** logits);
    bool                  saw_p(llama_seq_id seq_id, int32_t i, const float * p);

    const float *           get_carry(llama_seq_id seq_id);
    llama_nextn_draft_stats get_stats(llama_seq_id seq_id) const;

    // llama-nextn-slots.cpp: for a server that keeps, copies and exchanges the texts of several sequences
    int32_t   draft_many(llama_nextn_draft_request * reqs, int32_t n_reqs);
    void      set_limits(llama_seq_id seq_id, int32_t n_max, int32_t n_min, float p_min);
    llama_pos n_past(llama_seq_id seq_id) const;
    int32_t   flush_all(llama_seq_id seq_id);
    void      rewind(llama_seq_id seq_id, llama_pos n_past, const float * carry, const llama_token * tokens,
                     int32_t n_tokens);

private:
    struct sequence {
        llama_pos                n_true = 0; // rows of the draft memory that come from true hidden rows
        std::vector<llama_token> tokens;     // committed tokens at positions n_true, n_true + 1, …, not in the memory
        std::vector<float>       hidden;     // the row each of them is paired with [tokens.size(), n_embd]
        std::vector<float>       carry;      // the hidden row of the newest committed token [n_embd]
        llama_token              ahead = LLAMA_TOKEN_NULL; // draft() computed this token's row before it was fed

        int32_t n_max = 0; // limits of this sequence
        int32_t n_min = 0;
        float   p_min = 0;

        // of a round that several sequences share
        int32_t            in_group = -1; // its place, or none
        llama_token        id_last  = LLAMA_TOKEN_NULL;
        std::vector<float> chain; // the head's hidden row of the newest drafted token [n_embd]

        llama_nextn_length       length;
        llama_nextn_length       steady_length;    // of a request whose drafts must not depend on the clock
        std::vector<llama_token> drafted;          // in this round
        std::vector<float>       p;                // and their probabilities
        int32_t                  n_steps      = 0; // draft steps paid
        int32_t                  n_graphs_tgt = 0; // that the target had built before this round's verification

        std::optional<llama_nextn_drawer> drawer;        // none: the best tokens
        std::vector<llama_nextn_q>        q;             // of the drawn tokens
        llama_nextn_choice                steady_choice; // of a request whose drafts depend on nothing before it

        bool                 steady() const { return drawer && drawer->steady(); }
        llama_nextn_length & get_length() { return steady() ? steady_length : length; }
    };

    void    restart(llama_seq_id seq_id, llama_pos n_true, const float * carry);
    void    prepare(llama_seq_id seq_id, llama_token id_last);
    int32_t run(const llama_batch & of_draft, bool output);
    int32_t decode(llama_seq_id seq_id, llama_pos pos0, const llama_token * tokens, const float * hidden, int32_t n,
                   bool output);
    int32_t flush(llama_seq_id seq_id);
    int32_t first_step(llama_seq_id seq_id, llama_token id_last);
    int32_t chain(llama_seq_id seq_id, llama_token id_last, int32_t n_max);
    bool    read_best(sequence & seq, int32_t i, llama_nextn_best & best);
    bool    take(sequence & seq, llama_nextn_best best);

    // llama-nextn-group.cpp: rounds that several sequences share
    struct rows;
    int32_t draft_group(llama_nextn_draft_request * reqs, int32_t n_reqs);
    int32_t group_catch_up();
    int32_t group_chain(llama_nextn_group_length & length);
    int32_t group_step();
    int32_t group_fill(const std::vector<llama_seq_id> & members, bool padded);
    void    accept_group(llama_seq_id seq_id, int32_t n_sent, int32_t n_accepted, double t_verify);

    std::vector<llama_seq_id> group_going() const;

    llama_context * ctx_tgt;
    llama_context * ctx_dft;

    llama_nextn_choice & choice_of(sequence & seq) { return seq.steady() ? seq.steady_choice : choice; }

    llama_nextn_draft_params params;
    llama_nextn_choice       choice; // of all sequences
    std::vector<llama_token> row_ids;

    int32_t n_embd;

    llama_nextn_acceptance acceptance; // of all sequences, when there are several

    llama_nextn_coverage  coverage;
    llama_nextn_batch     batch;
    std::vector<sequence> seqs;

    std::vector<llama_nextn_group_length>         group_lengths; // by the number of sequences, whose costs they are
    std::vector<llama_nextn_group_length::member> group;         // of the last round
    std::vector<llama_seq_id>                     group_ids;
    bool                                          group_open = false; // what its verification took is not known yet
};
