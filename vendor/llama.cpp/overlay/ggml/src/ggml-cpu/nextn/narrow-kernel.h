// What a narrow kernel is, and where the driver (narrow.cpp) finds one.
#pragma once

#include "ggml.h"

// GCC 12 takes the deliberately undefined operands in its own AVX-512 header for mistakes (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace nextn {

// Tokens of a batch that is decoded with the bits of one token at a time: four sequences with eight drafted tokens and
// the last accepted one, or two with sixteen.
constexpr int MAX_TOKENS = 36;

constexpr int MAX_COLUMNS = 9; // that a kernel takes at once; more columns take turns at some rows of the weights

// GGML_NEXTN_NARROW=0 in the environment leaves everything to the engine, =1 runs the engine's single-column kernel on
// one column after the other. For measurements and tests.
int narrow_level();

// Rows of one weight matrix times a few columns.
struct narrow_product {
    int64_t      n; // elements in a row
    int          n_columns;
    const char * weights;              // row 0
    size_t       row_stride;           // bytes from one row to the next (of interleaved rows: their mean)
    const void * columns[MAX_COLUMNS]; // activations, converted to the kernel's column type
    float *      out[MAX_COLUMNS];     // out[c][r] = row r times column c
    void *       panel;                // the columns as prepare() laid them out
};

struct narrow_kernel {
    int block; // rows have a multiple of this many elements

    size_t (*panel_size)(int64_t n, int n_columns);
    void (*prepare)(const narrow_product & p);
    void (*run)(const narrow_product & p, int64_t r0, int64_t r1); // r0 is a multiple of ROW_UNIT
};

constexpr int64_t ROW_UNIT = 16; // no kernel works on more rows at once

// The layout of the weights: n_rows = 1 is the engine's plain layout, otherwise n_rows rows are interleaved.
struct weight_layout {
    ggml_type type;
    int       n_rows;
    int       interleave;
};

// nullptr where this build has none.
const narrow_kernel * narrow_kernel_float(const weight_layout & layout);
const narrow_kernel * narrow_kernel_x86(const weight_layout & layout);

} // namespace nextn
