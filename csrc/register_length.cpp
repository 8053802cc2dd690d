#include "register.h"

#include "../src/llama-nextn-length.h"
#include <pybind11/stl.h>

namespace py = pybind11;

namespace nextn {

// Arithmetic without an engine, bound for the tests that run it against simulated costs and acceptance.
void register_length(py::module_ & m) {
    py::class_<llama_nextn_length> c(m, "DraftLength",
                                     "Chooses how many tokens to draft, from the numbers it is told.");
    c.def(py::init<int>(), py::arg("n_max"));
    c.def("plan", &llama_nextn_length::plan, "Bound on the coming draft; 0: decode plainly. Once a round.");
    c.def("go_on", &llama_nextn_length::go_on, py::arg("p"), "Whether one more draft step pays after these.");
    c.def("keep", &llama_nextn_length::keep, py::arg("p"), "How many of these drafted tokens to verify.");
    c.def("update", &llama_nextn_length::update, py::arg("p"), py::arg("n_accepted"), py::arg("n_drafted"),
          py::arg("t_draft"), py::arg("t_verify"), "What the round came to; times in microseconds.");
    c.def("cost_verify", &llama_nextn_length::cost_verify, py::arg("n_tokens"), "Microseconds.");
    c.def("cost_draft", &llama_nextn_length::cost_draft, py::arg("n_draft"), "Microseconds.");
}

} // namespace nextn
