#include "views.h"

#include <cstring>

namespace py = pybind11;

namespace nextn {

Rows copy_rows(const float * data, int64_t n_rows, int64_t n_cols) {
    const auto n = static_cast<size_t>(n_rows * n_cols);
    Rows rows = {std::unique_ptr<float[]>(new float[n]), n_rows, n_cols};
    std::memcpy(rows.data.get(), data, n * sizeof(float));
    return rows;
}

RowsView view_rows(const float * data, int64_t n_rows, int64_t n_cols, const std::shared_ptr<ContextHandle> & context) {
    auto lease = context->viewed.lock();
    if (!lease) {
        // a second reference count over the same handle: it counts the views alone
        lease = std::shared_ptr<ContextHandle>(
            context.get(), [keep = context](ContextHandle *) mutable { drop_without_gil(std::move(keep)); });
        context->viewed = lease;
    }
    return {data, n_rows, n_cols, std::move(lease)};
}

py::array_t<float> to_numpy(Rows && rows) {
    float * data = rows.data.get();
    py::capsule owner(data, [](void * p) { delete[] static_cast<float *>(p); });
    rows.data.release();
    return py::array_t<float>({rows.n_rows, rows.n_cols}, data, owner);
}

py::array_t<float> to_numpy(RowsView && rows) {
    auto lease = std::make_unique<std::shared_ptr<ContextHandle>>(std::move(rows.lease));
    py::capsule owner(lease.get(), [](void * p) { delete static_cast<std::shared_ptr<ContextHandle> *>(p); });
    lease.release();
    py::array_t<float> array({rows.n_rows, rows.n_cols}, rows.data, owner);
    py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
    return array;
}

} // namespace nextn
