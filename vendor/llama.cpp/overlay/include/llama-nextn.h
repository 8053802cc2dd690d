#pragma once

// The public C API of nextn's llama.cpp fork: self-speculative decoding with the NextN (MTP) block that
// Qwen3.5/3.6-class models carry behind their trunk.
//
//   target   a context over the whole model; decodes and verifies
//   draft    a context built with llama_context_params.nextn_draft over the *same* llama_model, or over a second
//            model that holds only the head; runs the NextN block alone, with a plain KV cache for that one layer
//   hidden   the row of width n_embd that the NextN block reads next to a token's embedding
//   tap      which hidden that is: after the final norm (what Qwen heads were trained on) or before it
//
// No function here aborts on a wrong argument: each says what it returns instead.

#include "llama.h"

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Which hidden row feeds the NextN block.
enum llama_nextn_tap {
    LLAMA_NEXTN_TAP_AUTO = 0, // the architecture's default: post-norm
    LLAMA_NEXTN_TAP_POST = 1, // after the final norm (and, in a draft chain, after the head's norm)
    LLAMA_NEXTN_TAP_PRE  = 2, // before it
};

// The stamp of the source tree this library was built from: a hash of pin, overlay and patch series.
LLAMA_API const char * llama_nextn_build_stamp(void);

// Whether the loaded model carries a NextN block that a draft context can run. False for a model without one, for a
// model loaded without it (llama_model_params.load_mtp), and for architectures whose draft graph the fork does not
// know.
LLAMA_API bool llama_model_has_nextn_layer(const struct llama_model * model);

// Whether the file holds only the head: such a model can be drafted with, not decoded with.
LLAMA_API bool llama_model_is_nextn_only(const struct llama_model * model);

// Why llama_init_from_model would refuse these parameters, or NULL when it would not. The text is static.
LLAMA_API const char * llama_nextn_refusal(const struct llama_model * model, struct llama_context_params params);

// Choose the hidden row that feeds the head, in a target (what it exports) and in a draft context (what its chain
// hands on); both of a pair should agree. Takes effect with the next decode.
LLAMA_API void llama_set_nextn_tap(struct llama_context * ctx, enum llama_nextn_tap tap);

// The tap in effect: never AUTO.
LLAMA_API enum llama_nextn_tap llama_get_nextn_tap(const struct llama_context * ctx);

// Export the hidden rows that feed the head: one row of n_embd floats per token of the last batch, in batch order.
// A view of upstream's post-norm export that obeys the tap. NULL when the export is off or i is out of range.
LLAMA_API void    llama_set_nextn_hidden(struct llama_context * ctx, bool value);
LLAMA_API float * llama_get_nextn_hidden(struct llama_context * ctx);
LLAMA_API float * llama_get_nextn_hidden_ith(struct llama_context * ctx, int32_t i);

// Export the hidden rows before the final norm: one row of n_embd floats per token of the last batch, in batch order.
// Negative i counts from the end. NULL when the export is off, the graph has no such row, or i is out of range.
LLAMA_API void    llama_set_embeddings_pre_norm(struct llama_context * ctx, bool value);
LLAMA_API float * llama_get_embeddings_pre_norm(struct llama_context * ctx);
LLAMA_API float * llama_get_embeddings_pre_norm_ith(struct llama_context * ctx, int32_t i);

// Pair a target with its draft context (ctx_dft NULL unpairs). Either may be freed first; the other is unpaired then.
// False, and nothing changed, when the two do not fit: ctx_dft is no draft context, the hidden width or the
// vocabulary differs, or one of them is paired with a third.
LLAMA_API bool                   llama_set_nextn(struct llama_context * ctx_tgt, struct llama_context * ctx_dft);
LLAMA_API struct llama_context * llama_get_nextn(const struct llama_context * ctx_tgt);

// How many of the newest tokens of a sequence the target can take back bit-exactly right now. Recurrent layers keep
// one snapshot per token of the last decoded ubatch (at most n_rs_seq + 1 of them), and a snapshot is used once: the
// answer is 0 after a rollback, after another sequence's batch, and after a failed decode, until the next decode.
// For targets without recurrent layers every token can be taken back: INT32_MAX.
LLAMA_API int32_t llama_nextn_max_rollback(const struct llama_context * ctx_tgt, llama_seq_id seq_id);

// Remove the positions [p0, p1) of a sequence from the target and from its paired draft context, or from neither
// (p0 < 0 means 0, p1 < 0 means the end). False, and nothing changed, when the recurrent state cannot follow: the
// range is not a suffix, or reaches deeper than llama_nextn_max_rollback. Removing the whole sequence always works.
LLAMA_API bool llama_context_nextn_seq_rm(struct llama_context * ctx_tgt, llama_seq_id seq_id, llama_pos p0,
                                          llama_pos p1);

// Search the best token of each output row in the graph: no row of logits has to be scanned, or, unless keep_logits,
// copied to the host. with_p: its probability in the soft-max over the row, too.
LLAMA_API void llama_set_nextn_best(struct llama_context * ctx, bool value, bool with_p, bool keep_logits);

// The best token of token i of the last batch (the lowest id among equals, LLAMA_TOKEN_NULL when no logit is a number;
// negative i counts from the end) and, when asked for, its probability. False when that token was no output, or the
// search is off. p may be NULL.
LLAMA_API bool llama_get_nextn_best_ith(struct llama_context * ctx, int32_t i, llama_token * id, float * p);

//
// draft engine
//

struct llama_nextn_drafter;

struct llama_nextn_draft_params {
    int32_t n_max;    // most tokens to draft in a round (1 to 16)
    int32_t n_min;    // with adaptive off: drafts shorter than this are dropped
    float   p_min;    // stop the chain at a token whose probability in the draft head is lower
    bool    adaptive; // choose the length by accepted tokens per second; off: n_max, n_min and p_min alone decide

    // Tokens that the draft head scores: 0 chooses and adapts, -1 all, else the first n_vocab ids. The added ones
    // (special tokens, those of the prompt and of recent output) are scored besides.
    int32_t n_vocab;

    // Score these and the added ones instead; NULL: no such list.
    const llama_token * vocab_ids;
    int32_t             n_vocab_ids;
};

struct llama_nextn_draft_stats {
    int32_t n_prefix;           // ids [0, n_prefix) are scored
    int32_t n_extra;            // and this many others
    int64_t n_extra_bytes;      // memory of the shortlist beside the model
    double  miss;               // running share of the target's tokens that the shortlist lacked
    double  cost_verify_us[17]; // running estimate of verifying n tokens, index n; 0: not measured
    double  cost_draft_us[17];  // of drafting n
};

LLAMA_API struct llama_nextn_draft_params llama_nextn_draft_default_params(void);

// A drafter over two contexts paired by llama_set_nextn, which it needs as long as it lives. NULL when they are not
// paired or a parameter is out of range.
LLAMA_API struct llama_nextn_drafter * llama_nextn_drafter_init(struct llama_context *          ctx_tgt,
                                                                struct llama_context *          ctx_dft,
                                                                struct llama_nextn_draft_params params);
LLAMA_API void                         llama_nextn_drafter_free(struct llama_nextn_drafter * drafter);

// Forget a sequence: nothing of it reaches the next one. What was learnt of costs and acceptance stays.
LLAMA_API void llama_nextn_drafter_begin(struct llama_nextn_drafter * drafter, llama_seq_id seq_id);

// The hidden row of the newest token that was fed, [n_embd]: what the next token is paired with. Zeros at the
// beginning.
LLAMA_API const float * llama_nextn_drafter_get_carry(struct llama_nextn_drafter * drafter, llama_seq_id seq_id);

// Go back behind the first n_tokens tokens of a sequence, which must be those it was fed; carry is the row that
// llama_nextn_drafter_get_carry gave there. False, and nothing changed, when the draft memory does not reach so far.
LLAMA_API bool llama_nextn_drafter_resume(struct llama_nextn_drafter * drafter, llama_seq_id seq_id,
                                          const llama_token * tokens, int32_t n_tokens, const float * carry);

// Tell of tokens that the target decoded and that are kept, in order, with the hidden row of each. hidden: [n_tokens,
// n_embd], or NULL: the first n_tokens rows of the target's last batch. 0, or the error of llama_decode.
LLAMA_API int32_t llama_nextn_drafter_feed(struct llama_nextn_drafter * drafter, llama_seq_id seq_id,
                                           const llama_token * tokens, int32_t n_tokens, const float * hidden);

// Draft what may follow id_last, the newest token, which the target has not decoded. Writes at most n_room tokens to
// out and their probabilities to p (NULL: not wanted) and returns how many: 0 says decode plainly. Negative: the error
// of llama_decode. The draft memory is as before in what matters: rows of the chain are removed by the next call.
LLAMA_API int32_t llama_nextn_draft(struct llama_nextn_drafter * drafter, llama_seq_id seq_id, llama_token id_last,
                                    int32_t n_room, llama_token * out, float * p);

// Report a round: n_sent of the drafted tokens were verified, n_accepted of them accepted, in t_verify_us microseconds
// from the end of drafting to the verdict (0: not measured). n_sent may be less than what was drafted. Feed the kept
// tokens afterwards.
LLAMA_API void llama_nextn_drafter_accept(struct llama_nextn_drafter * drafter, llama_seq_id seq_id, int32_t n_sent,
                                          int32_t n_accepted, double t_verify_us);

// After a round: take a rest, in a long run of rounds without drafts. The caller leaves out llama_nextn_draft and
// llama_nextn_drafter_accept in as many rounds as are returned, and only feeds their tokens; they count as passed. A
// new text ends the rest.
LLAMA_API int32_t llama_nextn_drafter_rest(struct llama_nextn_drafter * drafter, llama_seq_id seq_id);

// How the tokens of a draft are drawn from the head's distribution q, for a verifier that accepts them by the ratio of
// the target's probability to theirs.
struct llama_nextn_draw {
    float    temperature; // above 0
    int32_t  top_k;       // 0: all
    float    top_p;       // 1: all
    float    min_p;       // 0: all
    uint64_t seed;        // of the draws of each sequence of tokens
    bool     steady;      // nothing measured or learnt before counts: the same seed gives the same drafts
};

// Draw, or take the best tokens again (draw NULL), from the next llama_nextn_drafter_begin on. A drawn token is never
// dropped once it was looked at, which would bend the distribution: n_min has no effect, and p_min and the adaptive
// length look at the largest probability of a q before a token is drawn from it. False when draw is out of range.
LLAMA_API bool llama_nextn_drafter_set_draw(struct llama_nextn_drafter * drafter, llama_seq_id seq_id,
                                            const struct llama_nextn_draw * draw);

// The distribution that token i of the last draft was drawn from: how many ids (ascending), and views of them and of
// their probabilities until the next draft. 0 when it was not drawn.
LLAMA_API int32_t llama_nextn_drafter_get_q(const struct llama_nextn_drafter * drafter, llama_seq_id seq_id, int32_t i,
                                            const llama_token ** ids, const float ** q);

// The logits that the newest token of the last draft was drawn from, and the id of each: as many as are scored. Views
// until the next call. 0 when it was not drawn.
LLAMA_API int32_t llama_nextn_drafter_get_row(struct llama_nextn_drafter * drafter, const llama_token ** ids,
                                              const float ** logits);

// Before the round is reported: what the target gave to these ids, where it judged that token. From that is learnt
// whether drafts had better be drawn or the head's best tokens. False when token i was not drawn.
LLAMA_API bool llama_nextn_drafter_saw_p(struct llama_nextn_drafter * drafter, llama_seq_id seq_id, int32_t i,
                                         const float * p);

// What a server with several sequences needs besides.

struct llama_nextn_draft_request {
    llama_seq_id  seq_id;
    llama_token   id_last; // the newest token, which the target has not decoded
    int32_t       n_room;  // most tokens to draft
    llama_token * out;     // [n_room]
    int32_t       n_draft; // result: how many were written; 0 says decode plainly
};

// llama_nextn_draft for several sequences, one entry each. 0, or the error of llama_decode: what was drafted by then is
// valid.
LLAMA_API int32_t llama_nextn_draft_many(struct llama_nextn_drafter * drafter, struct llama_nextn_draft_request * reqs,
                                         int32_t n_reqs);

// Limits of one sequence, within the drafter's n_max; kept until they are set again. n_max 0 drafts nothing.
LLAMA_API void llama_nextn_drafter_set_limits(struct llama_nextn_drafter * drafter, llama_seq_id seq_id, int32_t n_max,
                                              int32_t n_min, float p_min);

// The position of the next token to feed.
LLAMA_API llama_pos llama_nextn_drafter_n_past(const struct llama_nextn_drafter * drafter, llama_seq_id seq_id);

// Compute the rows that wait, so that the draft memory of the sequence can be saved, copied or cut. 0, or the error of
// llama_decode.
LLAMA_API int32_t llama_nextn_drafter_flush(struct llama_nextn_drafter * drafter, llama_seq_id seq_id);

// As llama_nextn_drafter_resume, where the draft memory was changed from outside or does not hold all of the text: go
// on at position n_past with what it has before that and remove the rest. Rows that it lacks make drafts worse, not
// wrong. carry NULL: not known. tokens: those of the text, negative where a position has none.
LLAMA_API void llama_nextn_drafter_rewind(struct llama_nextn_drafter * drafter, llama_seq_id seq_id, llama_pos n_past,
                                          const float * carry, const llama_token * tokens, int32_t n_tokens);

LLAMA_API struct llama_nextn_draft_stats llama_nextn_drafter_get_stats(const struct llama_nextn_drafter * drafter,
                                                                       llama_seq_id                       seq_id);

// Number of graphs built, and of decodes that reused the previous one, since the context was made.
LLAMA_API int32_t llama_nextn_n_graph_builds(const struct llama_context * ctx);
LLAMA_API int32_t llama_nextn_n_graph_reuses(const struct llama_context * ctx);

#ifdef __cplusplus
}
#endif
