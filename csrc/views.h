#pragma once

// Rows of floats on their way to numpy: copies that own their memory, and read-only views that keep the context alive.

#include "handles.h"

#include <pybind11/numpy.h>

#include <cstdint>
#include <memory>

namespace nextn {

// float32 [n_rows, n_cols]
struct Rows {
    std::unique_ptr<float[]> data;
    int64_t n_rows;
    int64_t n_cols;
};

// float32 [n_rows, n_cols] inside the engine
struct RowsView {
    const float * data;
    int64_t n_rows;
    int64_t n_cols;
    std::shared_ptr<ContextHandle> lease;
};

Rows copy_rows(const float * data, int64_t n_rows, int64_t n_cols);

// While the lease lives, the context stays in memory and refuses to decode, because a decode moves its rows.
RowsView view_rows(const float * data, int64_t n_rows, int64_t n_cols, const std::shared_ptr<ContextHandle> & context);

// Both need the GIL. The base of the array is a capsule that owns the rows, or the lease on the context.
pybind11::array_t<float> to_numpy(Rows && rows);
pybind11::array_t<float> to_numpy(RowsView && rows);

} // namespace nextn
