// Flash attention for the few tokens of a decode or verify batch, whose rows do not depend on the width of the
// batch, on the number of threads, or on how far the memory is padded.
//
// The engine takes one query row after the other, cuts the memory into one part per thread for a single token, and does
// not cut it for several; what a row sums to depends on the cut. Here the cuts lie at fixed places, and the query rows
// that look at one head of the memory share the reading of it.
#pragma once

#include "ggml.h"

struct ggml_compute_params;

#ifdef __cplusplus
// The engine's attention of query rows [ir0, ir1) over the memory cells [ic0, ic1): the maximum, the sum and the
// unnormalized values of each row at partials + ir * stride.
typedef void (*ggml_nextn_attention_rows)(const ggml_compute_params * params, ggml_tensor * dst, int ir0, int ir1,
                                          int64_t ic0, int64_t ic1, float * partials, int64_t stride);

// False when the batch is not narrow and the engine should do it.
bool ggml_nextn_flash_attn(const ggml_compute_params * params, ggml_tensor * dst, ggml_nextn_attention_rows rows);

extern "C" {
#endif

// Bytes of work buffer for dst, 0 when this does not apply.
size_t ggml_nextn_flash_attn_work_size(int n_threads, const struct ggml_tensor * dst);

#ifdef __cplusplus
}
#endif
