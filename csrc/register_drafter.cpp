#include "drafter.h"
#include "errors.h"
#include "log.h"
#include "register.h"

#include <algorithm>
#include <cstdlib>
#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>
#include <utility>

namespace py = pybind11;

namespace nextn {

static int32_t check_seq_id(const LockedDrafter & drafter, SeqId seq_id) {
    check_range("seq_id", seq_id.value, 0, static_cast<int64_t>(llama_n_seq_max(drafter->target->ctx)) - 1);
    return static_cast<int32_t>(seq_id.value);
}

// Runs the draft head; the answer, which is negative after a failure.
template <class Call>
static int32_t compute(const LockedDrafter & drafter, Call call) {
    ContextHandle & context = *drafter->draft;
    context.begin_compute();
    const LogCapture log;
    const int32_t code = call();
    if (code >= 0) {
        return code;
    }
    if (context.interrupted) {
        std::rethrow_exception(std::exchange(context.interrupted, nullptr));
    }
    if (context.abort_requested || context.halted) {
        throw Error(ErrorKind::Cancelled, "drafting was cancelled; begin() starts anew");
    }
    const std::string reason = log.reason();
    check_workers(reason);
    throw Error(ErrorKind::Decode,
                "drafting failed: " + (reason.empty() ? strf("code %d", code) : reason) + "; begin() starts anew");
}

static std::unique_ptr<Drafter> make(const Context & target, const Context & draft, int64_t n_max, int64_t n_min,
                                     double p_min, bool adaptive, int64_t n_vocab,
                                     const std::vector<int32_t> & vocab_ids) {
    return make_drafter(target, draft, {n_max, n_min, p_min, adaptive, n_vocab, vocab_ids});
}

static void begin(const Drafter & drafter_ref, SeqId seq_id) {
    const LockedDrafter drafter(drafter_ref);
    llama_nextn_drafter_begin(drafter->drafter, check_seq_id(drafter, seq_id));
}

static Rows carry(const Drafter & drafter_ref, SeqId seq_id) {
    const LockedDrafter drafter(drafter_ref);
    const float * row = llama_nextn_drafter_get_carry(drafter->drafter, check_seq_id(drafter, seq_id));
    return copy_rows(row, 1, drafter->target->model->n_embd());
}

static bool resume(const Drafter & drafter_ref, const Tokens & tokens, const Hidden & row, SeqId seq_id) {
    const LockedDrafter drafter(drafter_ref);
    const int64_t n_embd = drafter->target->model->n_embd();
    if (row.n_rows != 1 || row.n_cols != n_embd) {
        throw py::value_error(strf("carry has the shape [%lld, %lld]; needed is [1, %lld]", (long long) row.n_rows,
                                   (long long) row.n_cols, (long long) n_embd));
    }
    check_tokens(*drafter->target->model, tokens.values);
    return llama_nextn_drafter_resume(drafter->drafter, check_seq_id(drafter, seq_id), tokens.values.data(),
                                      static_cast<int32_t>(tokens.values.size()), row.data);
}

static void flush(const Drafter & drafter_ref, SeqId seq_id) {
    const LockedDrafter drafter(drafter_ref);
    const int32_t seq = check_seq_id(drafter, seq_id);
    compute(drafter, [&] { return -std::abs(llama_nextn_drafter_flush(drafter->drafter, seq)); });
}

static void check_kept(const LockedDrafter & drafter, const std::vector<int32_t> & tokens) {
    const auto n_tokens = static_cast<int64_t>(tokens.size());
    if (n_tokens > drafter->target->n_hidden) {
        throw py::value_error(strf("tokens are %lld, but the target's last decode left %lld hidden rows",
                                   (long long) n_tokens, (long long) drafter->target->n_hidden));
    }
    check_tokens(*drafter->target->model, tokens);
}

static void feed_checked(const LockedDrafter & drafter, const std::vector<int32_t> & tokens, int32_t seq_id) {
    compute(drafter, [&] {
        return -std::abs(llama_nextn_drafter_feed(drafter->drafter, seq_id, tokens.data(),
                                                  static_cast<int32_t>(tokens.size()), nullptr));
    });
}

static void feed(const Drafter & drafter_ref, const Tokens & tokens, SeqId seq_id) {
    const LockedDrafter drafter(drafter_ref);
    check_kept(drafter, tokens.values);
    feed_checked(drafter, tokens.values, check_seq_id(drafter, seq_id));
}

static std::vector<int32_t> draft(const Drafter & drafter_ref, Token id_last, int64_t n_room, SeqId seq_id) {
    const LockedDrafter drafter(drafter_ref);
    check_range("id_last", id_last.value, 0, drafter->target->model->n_vocab() - 1);
    std::vector<int32_t> tokens(16); // the longest draft there is
    const auto room = static_cast<int32_t>(std::clamp<int64_t>(n_room, 0, tokens.size()));
    const int32_t seq = check_seq_id(drafter, seq_id);
    const auto id = static_cast<llama_token>(id_last.value);
    tokens.resize(
        compute(drafter, [&] { return llama_nextn_draft(drafter->drafter, seq, id, room, tokens.data(), nullptr); }));
    return tokens;
}

static int32_t accept(const Drafter & drafter_ref, const Tokens & tokens, int64_t n_sent, double verify_us,
                      SeqId seq_id) {
    const LockedDrafter drafter(drafter_ref);
    check_range("n_sent", n_sent, 0, 16);
    check_range("the number of tokens", static_cast<int64_t>(tokens.values.size()), 1, n_sent + 1);
    check_kept(drafter, tokens.values);
    const int32_t seq = check_seq_id(drafter, seq_id);
    llama_nextn_drafter_accept(drafter->drafter, seq, static_cast<int32_t>(n_sent),
                               static_cast<int32_t>(tokens.values.size()) - 1, verify_us);
    feed_checked(drafter, tokens.values, seq);
    return llama_nextn_drafter_rest(drafter->drafter, seq);
}

static void draw_drafts(const Drafter & drafter_ref, double temperature, int64_t top_k, double top_p, double min_p,
                        uint64_t seed, bool steady, SeqId seq_id) {
    const LockedDrafter drafter(drafter_ref);
    const llama_nextn_draw draw = {static_cast<float>(temperature),
                                   static_cast<int32_t>(std::clamp<int64_t>(top_k, 0, INT32_MAX)),
                                   static_cast<float>(top_p),
                                   static_cast<float>(min_p),
                                   seed,
                                   steady};
    if (!llama_nextn_drafter_set_draw(drafter->drafter, check_seq_id(drafter, seq_id),
                                      temperature == 0.0 ? nullptr : &draw)) {
        throw py::value_error(strf("temperature=%g must be a finite number >= 0, top_p=%g and min_p=%g from 0 to 1",
                                   temperature, top_p, min_p));
    }
}

using IdsAndRow = py::typing::Tuple<py::array_t<int32_t>, py::array_t<float>>;
using IdsAndQ = py::typing::List<IdsAndRow>;

static IdsAndQ q_of_last_draft(const Drafter & drafter_ref, SeqId seq_id) {
    std::vector<std::pair<std::vector<int32_t>, std::vector<float>>> rows;
    {
        const ReleaseGil released;
        const LockedDrafter drafter(drafter_ref);
        const int32_t seq = check_seq_id(drafter, seq_id);
        const llama_token * ids;
        const float * q;
        for (int32_t i = 0, n; (n = llama_nextn_drafter_get_q(drafter->drafter, seq, i, &ids, &q)) > 0; ++i) {
            rows.emplace_back(std::vector<int32_t>(ids, ids + n), std::vector<float>(q, q + n));
        }
    }
    IdsAndQ out;
    for (const auto & [ids, q] : rows) {
        out.append(py::make_tuple(py::array_t<int32_t>(static_cast<py::ssize_t>(ids.size()), ids.data()),
                                  py::array_t<float>(static_cast<py::ssize_t>(q.size()), q.data())));
    }
    return out;
}

static IdsAndRow row_of_last_draft(const Drafter & drafter_ref) {
    std::vector<int32_t> ids;
    std::vector<float> row;
    {
        const ReleaseGil released;
        const LockedDrafter drafter(drafter_ref);
        const llama_token * views;
        const float * logits;
        const int32_t n = llama_nextn_drafter_get_row(drafter->drafter, &views, &logits);
        ids.assign(views, views + n);
        row.assign(logits, logits + n);
    }
    const auto n = static_cast<py::ssize_t>(ids.size());
    return py::make_tuple(py::array_t<int32_t>(n, ids.data()), py::array_t<float>(n, row.data()));
}

static void saw_p(const Drafter & drafter_ref, const std::vector<std::vector<float>> & p, SeqId seq_id) {
    const LockedDrafter drafter(drafter_ref);
    const int32_t seq = check_seq_id(drafter, seq_id);
    for (size_t i = 0; i < p.size(); ++i) {
        const llama_token * ids;
        const float * q;
        const int32_t n = llama_nextn_drafter_get_q(drafter->drafter, seq, static_cast<int32_t>(i), &ids, &q);
        if (static_cast<size_t>(n) != p[i].size()) {
            throw py::value_error(strf("p[%zu] has %zu entries; q() gave %d ids there", i, p[i].size(), n));
        }
        llama_nextn_drafter_saw_p(drafter->drafter, seq, static_cast<int32_t>(i), p[i].data());
    }
}

static py::typing::Dict<py::str, py::object> stats(const Drafter & drafter_ref, SeqId seq_id) {
    llama_nextn_draft_stats s;
    {
        const ReleaseGil released;
        const LockedDrafter drafter(drafter_ref);
        s = llama_nextn_drafter_get_stats(drafter->drafter, check_seq_id(drafter, seq_id));
    }
    py::list verify;
    py::list head;
    for (int n = 1; n <= 16; ++n) {
        verify.append(s.cost_verify_us[n]);
        head.append(s.cost_draft_us[n]);
    }
    py::typing::Dict<py::str, py::object> out;
    out["n_prefix"] = s.n_prefix;
    out["n_extra"] = s.n_extra;
    out["n_extra_bytes"] = s.n_extra_bytes;
    out["miss_rate"] = s.miss;
    out["verify_us"] = verify;
    out["draft_us"] = head;
    return out;
}

void register_drafter(py::module_ & m) {
    py::class_<Drafter> c(m, "Drafter", "Drafts chains of tokens with the NextN block of a paired draft context.");
    c.def(init_nogil(&make), py::arg("target"), py::arg("draft"), py::kw_only(), py::arg("n_max"), py::arg("n_min"),
          py::arg("p_min"), py::arg("adaptive"), py::arg("n_vocab"), py::arg("vocab_ids"), nogil());
    c.def("close", &Drafter::close, nogil(), "Free it.");
    c.def_property_readonly("closed", &Drafter::closed);
    c.def("begin", &begin, py::arg("seq_id") = 0, nogil(), "Forget a sequence.");
    c.def("carry", &carry, py::arg("seq_id") = 0, nogil(),
          "Copy of the hidden row of the newest fed token, float32 [1, n_embd].");
    c.def("resume", &resume, py::arg("tokens"), py::arg("carry"), py::arg("seq_id") = 0, nogil(),
          "Go back behind tokens [n_tokens], the first of those fed; carry is what carry() gave there. False, and "
          "nothing changed, when the draft memory does not reach so far.");
    c.def("feed", &feed, py::arg("tokens"), py::arg("seq_id") = 0, nogil(),
          "Tell of kept tokens [n_tokens], whose hidden rows are the first n_tokens of the target's last decode.");
    c.def("flush", &flush, py::arg("seq_id") = 0, nogil(), "Compute the rows of fed tokens that wait for a draft.");
    c.def("draft", &draft, py::arg("id_last"), py::arg("n_room"), py::arg("seq_id") = 0, nogil(),
          "Draft at most n_room tokens after id_last; none: decode plainly.");
    c.def(
        "accept", &accept, py::arg("tokens"), py::arg("n_sent"), py::arg("verify_us"), py::arg("seq_id") = 0, nogil(),
        "End a round in which n_sent drafted tokens were verified in verify_us microseconds, and feed what is kept of "
        "it: id_last and the accepted ones, tokens [1 + n_accepted]. Returns in how many of the coming rounds nothing "
        "is drafted: the tokens of those are only fed.");
    c.def("draw", &draw_drafts, py::kw_only(), py::arg("temperature"), py::arg("top_k"), py::arg("top_p"),
          py::arg("min_p"), py::arg("seed"), py::arg("steady"), py::arg("seq_id") = 0, nogil(),
          "From the next begin() on draw the drafted tokens; temperature 0: take the best ones again.");
    c.def("q", &q_of_last_draft, py::arg("seq_id") = 0,
          "Ids and probabilities that each token of the last draft was drawn from; empty when they were not drawn.");
    c.def("row", &row_of_last_draft,
          "Ids and logits that the newest token of the last draft was drawn from; empty when it was not drawn.");
    c.def("saw_p", &saw_p, py::arg("p"), py::arg("seq_id") = 0, nogil(),
          "Before accept(): what the target gave to the ids of q(), for each token that it judged.");
    c.def("stats", &stats, py::arg("seq_id") = 0, "Size of the shortlist, and the running estimates.");
}

} // namespace nextn
