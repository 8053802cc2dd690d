#include "imatrix.h"
#include "log.h"
#include "register.h"

#include <memory>
#include <pybind11/numpy.h>
#include <pybind11/typing.h>

namespace py = pybind11;

namespace nextn {

using Sums = py::array_t<double>;
using Counts = py::array_t<int64_t>;
using Entries = py::typing::Dict<py::str, py::typing::Tuple<Sums, Counts>>;

static Entries to_python(const Imatrix & imatrix) {
    Entries result;
    for (const auto & [name, entry] : imatrix.entries()) {
        const auto n_matrix = static_cast<int64_t>(entry.counts.size());
        const Sums sums({n_matrix, entry.n_col}, entry.sums.data());
        const Counts counts(n_matrix, entry.counts.data());
        result[py::str(name)] = py::make_tuple(sums, counts);
    }
    return result;
}

void register_imatrix(py::module_ & m) {
    py::class_<Imatrix, std::shared_ptr<Imatrix>> c(
        m, "Imatrix", "Sums of the squares of what each weight of a block is multiplied with.");
    c.def(py::init<>());
    c.def("entries", &to_python,
          "By the weight's name: sums, float64 [n_matrix, n_col], and number of rows, int64 [n_matrix].");
}

} // namespace nextn
