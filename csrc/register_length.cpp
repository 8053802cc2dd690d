#include "register.h"

#include "../src/llama-nextn-group-length.h"
#include "../src/llama-nextn-length.h"
#include <pybind11/stl.h>

#include <utility>
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

static void register_kalman(py::module_ & m) {
    using kalman = llama_nextn_kalman;
    py::class_<kalman> c(m, "Kalman", "Estimates of numbers that are observed in sums; their indices are not checked.");
    c.def(py::init([](const std::vector<std::pair<double, double>> & guesses) {
              std::vector<kalman::guess> first;
              for (const auto & [mean, sd] : guesses) {
                  first.push_back({mean, sd});
              }
              return kalman(std::move(first));
          }),
          py::arg("guesses"), "Mean and standard deviation of each number [n].");
    c.def("mean", &kalman::operator[], py::arg("i"));
    c.def("variance", &kalman::variance, py::arg("i"));
    c.def_property_readonly("noise", &kalman::noise, "Variance of an observation.");
    c.def("drift", &kalman::drift, py::arg("i"), py::arg("variance"), "Number i has wandered.");
    c.def("revert", &kalman::revert, py::arg("i"), py::arg("keep"),
          "The numbers from i on have gone back towards their first guesses.");
    c.def("limit", &kalman::limit, py::arg("i"), py::arg("most"), "Number i cannot be more.");
    c.def(
        "observe",
        [](kalman & k, const std::vector<std::pair<int, double>> & sum, double surprise) {
            std::vector<kalman::term> terms;
            for (const auto & [i, factor] : sum) {
                terms.push_back({i, factor});
            }
            k.observe(terms.data(), terms.size(), surprise);
        },
        py::arg("terms"), py::arg("surprise"), "A sum, of numbers and factors, was so much more than estimated.");
}

// Arithmetic without an engine, bound for the tests that run it against simulated costs and acceptance.
void register_length(py::module_ & m) {
    register_kalman(m);
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
    c.def("rest", &llama_nextn_length::rest, "Rounds to come without a draft that the caller leaves out.");
    c.def(
        "catching_up_took", [](llama_nextn_length & l, double t) { l.costs.catching_up_took(t); }, py::arg("t"),
        "Before a draft, for rounds without one.");
    c.def(
        "first_draft_took", [](llama_nextn_length & l, double t, int n) { l.costs.first_draft_took(t, n); },
        py::arg("t"), py::arg("n_caught_up") = 0);
    c.def("next_draft_took", [](llama_nextn_length & l, double t) { l.costs.next_draft_took(t); }, py::arg("t"));
    c.def(
        "cost_verify", [](const llama_nextn_length & l, int n_tokens) { return l.costs.verify(n_tokens); },
        py::arg("n_tokens"), "In the unit of what was told.");
    c.def(
        "cost_draft", [](const llama_nextn_length & l, int n_draft) { return l.costs.draft(n_draft); },
        py::arg("n_draft"), "In the unit of what was told.");
}

} // namespace nextn
