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
// model loaded without it (llama_model_params.load_mtp), and for architectures whose draft graph the fork does not know.
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
LLAMA_API bool llama_context_nextn_seq_rm(struct llama_context * ctx_tgt, llama_seq_id seq_id, llama_pos p0, llama_pos p1);

// Number of graphs built, and of decodes that reused the previous one, since the context was made.
LLAMA_API int32_t llama_nextn_n_graph_builds(const struct llama_context * ctx);
LLAMA_API int32_t llama_nextn_n_graph_reuses(const struct llama_context * ctx);

#ifdef __cplusplus
}
#endif
