// Narrow matrix products: a weight matrix times the few columns of a decode or verify batch.
//
// Every weight block is read and unpacked once for all columns, and every output element is summed in the order of the
// engine's own single-column kernel. A batch therefore costs little more than one token and its rows are bit-identical
// to decoding the tokens one at a time, as the engine does it. A type or platform without a kernel here runs the
// engine's single-column kernel on one column after the other, which is just as exact.
#pragma once

#include "ggml.h"

#ifdef __cplusplus
extern "C" {
#endif

struct ggml_compute_params;

// Compute the product for weights in plain layout; false when the batch is not narrow and the engine should do it.
bool ggml_nextn_mul_mat(const struct ggml_compute_params * params, struct ggml_tensor * dst);
bool ggml_nextn_mul_mat_id(const struct ggml_compute_params * params, struct ggml_tensor * dst);

// Bytes of work buffer these need for dst, 0 when they do not apply.
size_t ggml_nextn_work_size(int n_threads, const struct ggml_tensor * dst);

#ifdef __cplusplus
}

// The same for weights the engine repacked at load: n_rows rows interleaved, interleave bytes at a time, with the
// engine's single-column kernel for that layout.
struct ggml_nextn_repacked {
    int       n_rows;
    int       interleave;
    ggml_type column_type;
    void (*gemv)(int n, float * s, size_t bs, const void * vx, const void * vy, int nr, int nc);
};

bool   ggml_nextn_forward_repacked(const ggml_compute_params * params, ggml_tensor * dst,
                                   const ggml_nextn_repacked & layout);
size_t ggml_nextn_work_size_repacked(int n_threads, const ggml_tensor * dst, const ggml_nextn_repacked & layout);
#endif
