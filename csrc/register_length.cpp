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
    c.def("saw", &llama_nextn_length::saw, py::arg("p"), py::arg("n_sent"), py::arg("n_accepted"),
          "What became of a draft with these probabilities.");
    c.def(
        "new_text", [](llama_nextn_length & l) { l.acceptance.new_text(); },
        "Another text begins: what was learnt of the head counts little.");
    c.def(
        "verify_took", [](llama_nextn_length & l, int n_tokens, double t) { l.costs.verify_took(n_tokens, t); },
        py::arg("n_tokens"), py::arg("t"));
    c.def(
        "first_draft_took", [](llama_nextn_length & l, double t) { l.costs.first_draft_took(t); }, py::arg("t"));
    c.def(
        "next_draft_took", [](llama_nextn_length & l, double t) { l.costs.next_draft_took(t); }, py::arg("t"));
    c.def(
        "cost_verify", [](const llama_nextn_length & l, int n_tokens) { return l.costs.verify(n_tokens); },
        py::arg("n_tokens"), "In the unit of what was told.");
    c.def(
        "cost_draft", [](const llama_nextn_length & l, int n_draft) { return l.costs.draft(n_draft); },
        py::arg("n_draft"), "In the unit of what was told.");
}

} // namespace nextn
