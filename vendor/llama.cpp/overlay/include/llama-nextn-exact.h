#pragma once

// Whether a verify batch gives, bit by bit, what decoding its tokens one at a time gives.

#include "llama.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Ask of every operation in the graph of a batch of n_tokens tokens, with its weights where they are, the backend that
// computes it. False: some row may differ, and why (n_why bytes, with the final 0) names the first such operation, its
// weight or memory, the device and the reason. The context must not be decoding; its memory stays as it is.
LLAMA_API bool llama_nextn_is_exact(struct llama_context * ctx, int32_t n_tokens, char * why, size_t n_why);

// Whether the CPU backend reads weights of this type once for all tokens of a narrow batch (see ggml-nextn.h). Other
// types are as exact and cost as much for each token as for the first.
LLAMA_API bool llama_nextn_shares_columns(enum ggml_type type);

#ifdef __cplusplus
}
#endif
