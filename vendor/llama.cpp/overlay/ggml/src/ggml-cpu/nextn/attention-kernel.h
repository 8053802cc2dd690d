// What an attention kernel is, and where the driver (attention.cpp) finds one.
#pragma once

#include "ggml.h"

namespace nextn {

constexpr int ATTENTION_ROWS  = 4;  // query rows that a kernel takes at once
constexpr int ATTENTION_CELLS = 32; // cells of the memory that it takes at once

// Some query rows that look at the same head of the memory, and some cells of that.
struct attention_tile {
    int64_t d_k, d_v;
    float   scale; // of the scores

    int                 n_rows;
    const float *       q[ATTENTION_ROWS];    // [d_k]
    const ggml_fp16_t * mask[ATTENTION_ROWS]; // [n_cells], added to the scores; nullptr: nothing is added
    // The cells so far: the maximum of the scores, the sum of the weights exp(score - maximum), and the sum of the
    // values times their weights [d_v]. The tile is added to them.
    float * state[ATTENTION_ROWS];

    int          n_cells;
    const char * k; // of the first cell
    const char * v;
    size_t       k_stride, v_stride; // bytes from cell to cell
};

// What becomes of a row depends on that row and on how the memory is cut into tiles, on nothing else: not on n_rows,
// and not on the other rows.
typedef void (*attention_kernel)(const attention_tile & tile);

// nullptr where this build has none.
attention_kernel attention_kernel_x86(ggml_type k_type, ggml_type v_type, int64_t d_k, int64_t d_v);

} // namespace nextn
