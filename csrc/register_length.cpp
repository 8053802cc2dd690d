#include "register.h"

#include "../src/llama-nextn-group-length.h"
#include "../src/llama-nextn-length.h"
#include <pybind11/stl.h>

#include <vector>

namespace py = pybind11;

namespace nextn {

// Sequences that share their rounds, with what the drafter keeps of each.
class group_length {
  public:
    explicit group_length(const std::vector<int> & n_max) : length((int) n_max.size()), seqs(n_max.size()) {
        for (sequence & seq : seqs) {
            seq.acceptance = llama_nextn_acceptance(&others);
        }
        for (size_t i = 0; i < n_max.size(); ++i) {
            members.push_back({&seqs[i].acceptance, &seqs[i].probe, n_max[i], false, {}, false, 0});
        }
    }

    std::vector<bool> plan() {
        for (size_t i = 0; i < members.size(); ++i) {
            seqs[i].acceptance.next_round();
            members[i].p.clear();
            members[i].n = 0;
        }
        return going(length.plan(members));
    }

    std::vector<bool> go_on() { return going(length.go_on(members)); }

    void drafted(int i, float p) {
        auto & m = members.at(i);
        m.p.push_back(p);
        m.going = (int) m.p.size() < m.n_max;
    }

    std::vector<int> keep() {
        length.keep(members);
        std::vector<int> result;
        for (const auto & m : members) {
            result.push_back(m.n);
        }
        return result;
    }

    void saw(int i, int n_accepted) {
        const auto & m = members.at(i);
        others.saw(m.p, m.n, n_accepted);
        seqs[i].acceptance.saw(m.p, m.n, n_accepted);
        length.tried(m, n_accepted);
    }

    void verify_took(double t) { length.verify_took(members, t); }

    llama_nextn_group_length length;

  private:
    struct sequence {
        llama_nextn_acceptance acceptance;
        llama_nextn_probe probe;
    };

    std::vector<bool> going(bool anyone) const {
        std::vector<bool> result;
        for (const auto & m : members) {
            result.push_back(anyone && m.going);
        }
        return result;
    }

    llama_nextn_acceptance others;
    std::vector<sequence> seqs;
    std::vector<llama_nextn_group_length::member> members;
};

static void register_group_length(py::module_ & m) {
    py::class_<group_length> c(m, "DraftGroupLength", "As DraftLength, for sequences that share their rounds.");
    c.def(py::init<const std::vector<int> &>(), py::arg("n_max"));
    c.def("plan", &group_length::plan, "Who drafts in the coming round. Once a round.");
    c.def("drafted", &group_length::drafted, py::arg("i"), py::arg("p"), "Sequence i drafted a token.");
    c.def("go_on", &group_length::go_on, "Who drafts one more.");
    c.def("keep", &group_length::keep, "How many drafted tokens of each to verify.");
    c.def("saw", &group_length::saw, py::arg("i"), py::arg("n_accepted"), "What became of the draft of sequence i.");
    c.def("verify_took", &group_length::verify_took, py::arg("t"), "The round that was kept.");
    c.def("first_draft_took", [](group_length & g, double t) { g.length.costs.first_draft_took(t); }, py::arg("t"));
    c.def("next_draft_took", [](group_length & g, double t) { g.length.costs.next_draft_took(t); }, py::arg("t"));
}

// Arithmetic without an engine, bound for the tests that run it against simulated costs and acceptance.
void register_length(py::module_ & m) {
    register_group_length(m);
    py::class_<llama_nextn_length> c(m, "DraftLength",
                                     "Chooses how many tokens to draft, from the numbers it is told.");
    c.def(py::init<int>(), py::arg("n_max"));
    c.def("plan", &llama_nextn_length::plan, "Bound on the coming draft; 0: decode plainly. Once a round.");
    c.def("go_on", &llama_nextn_length::go_on, py::arg("p"), "Whether one more draft step pays after these.");
    c.def("keep", &llama_nextn_length::keep, py::arg("p"), "How many of these drafted tokens to verify.");
    c.def("saw", &llama_nextn_length::saw, py::arg("p"), py::arg("n_sent"), py::arg("n_accepted"),
          "What became of a draft with these probabilities.");
    c.def(
        "new_text", [](llama_nextn_length & l) { l.new_text(); },
        "Another text begins: what was learnt of the head counts as much as texts were alike.");
    c.def(
        "verify_took", [](llama_nextn_length & l, int n_tokens, double t) { l.costs.verify_took(n_tokens, t); },
        py::arg("n_tokens"), py::arg("t"));
    c.def("first_draft_took", [](llama_nextn_length & l, double t) { l.costs.first_draft_took(t); }, py::arg("t"));
    c.def("next_draft_took", [](llama_nextn_length & l, double t) { l.costs.next_draft_took(t); }, py::arg("t"));
    c.def(
        "cost_verify", [](const llama_nextn_length & l, int n_tokens) { return l.costs.verify(n_tokens); },
        py::arg("n_tokens"), "In the unit of what was told.");
    c.def(
        "cost_draft", [](const llama_nextn_length & l, int n_draft) { return l.costs.draft(n_draft); },
        py::arg("n_draft"), "In the unit of what was told.");
}

} // namespace nextn
