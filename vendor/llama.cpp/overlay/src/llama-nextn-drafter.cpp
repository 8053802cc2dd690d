#include "llama-nextn-drafter.h"

#include "llama-context.h"
#include "llama-model.h"

#include <algorithm>

// What a steady request takes for its costs, in decodes of one token.
static constexpr double steady_verify = 0.15; // for each further token to verify
static constexpr double steady_draft  = 0.1;  // for each drafted token
static constexpr int    steady_known  = 4;    // rounds without a draft after which a length trusts the cost of one

llama_nextn_drafter::llama_nextn_drafter(llama_context * ctx_tgt, llama_context * ctx_dft,
                                         const llama_nextn_draft_params & params)
    : ctx_tgt(ctx_tgt), ctx_dft(ctx_dft), params(params), n_embd((int32_t) ctx_dft->get_model().hparams.n_embd_out()),
      coverage(*ctx_dft, params, ctx_tgt->n_seq_max()) {
    seqs.resize(ctx_tgt->n_seq_max());
    if (seqs.size() > 1) {
        for (auto & seq : seqs) {
            seq.length = llama_nextn_length(params.n_max, &acceptance);
        }
    }
    for (llama_seq_id seq_id = 0; seq_id < (llama_seq_id) seqs.size(); ++seq_id) {
        set_limits(seq_id, params.n_max, params.n_min, params.p_min);
    }
    ctx_dft->nextn.set_best(true, /*with_p =*/true, /*keep_logits =*/false);
    ctx_dft->nextn.set_hidden(true);
    ctx_tgt->nextn.set_hidden(true);
}

llama_nextn_drafter::~llama_nextn_drafter() {
    ctx_dft->nextn.set_best(false, false, true);
    ctx_dft->nextn.set_row(false);
}

void llama_nextn_drafter::begin(llama_seq_id seq_id) {
    const std::vector<float> zeros(n_embd, 0.0f); // what the first token is paired with
    restart(seq_id, 0, zeros.data());
}

// Keep the first n_true rows of the draft memory and forget the rest.
void llama_nextn_drafter::restart(llama_seq_id seq_id, llama_pos n_true, const float * carry) {
    auto & seq = seqs[seq_id];
    ctx_dft->get_memory()->seq_rm(seq_id, n_true > 0 ? n_true : -1, -1);
    seq.n_true = n_true;
    seq.tokens.clear();
    seq.hidden.clear();
    seq.carry.assign(carry, carry + n_embd);
    seq.ahead   = LLAMA_TOKEN_NULL;
    seq.n_steps = 0;
    seq.p.clear();
    seq.q.clear();
    seq.length.new_text();
    if (seq.drawer) {
        seq.drawer->restart();
        seq.steady_choice = {};
        seq.steady_length = llama_nextn_length(seq.n_max);
        for (int i = 0; i < steady_known; ++i) {
            seq.steady_length.costs.verify_took(1, 1);
        }
        if (seq.steady()) {
            coverage.reset_prefix();
        }
    }
    coverage.forget_text(seq_id); // the words of one request are no candidates in the next
}

// As after begin() and feeding the first n_tokens tokens again, but without computing their rows.
bool llama_nextn_drafter::resume(llama_seq_id seq_id, const llama_token * tokens, int32_t n_tokens,
                                 const float * carry) {
    const auto & seq = seqs[seq_id];
    if (n_tokens > seq.n_true - (seq.ahead != LLAMA_TOKEN_NULL ? 1 : 0)) {
        return false;
    }
    restart(seq_id, n_tokens, carry);
    coverage.note_text(seq_id, tokens, n_tokens);
    return true;
}

const float * llama_nextn_drafter::get_carry(llama_seq_id seq_id) {
    if (seqs[seq_id].carry.empty()) {
        begin(seq_id);
    }
    return seqs[seq_id].carry.data();
}

// One decode of the draft context; without an output its rows only go to the memory.
int32_t llama_nextn_drafter::run(const llama_batch & of_draft, bool output) {
    ctx_dft->nextn.set_fill(!output);
    const int32_t ret = llama_decode(ctx_dft, of_draft);
    ctx_dft->nextn.set_fill(false);
    return ret;
}

int32_t llama_nextn_drafter::decode(llama_seq_id seq_id, llama_pos pos0, const llama_token * tokens,
                                    const float * hidden, int32_t n, bool output) {
    batch.clear();
    for (int32_t i = 0; i < n; ++i) {
        batch.add(pos0 + i, seq_id, output && i == n - 1);
    }
    const int32_t ret = run(batch.view(tokens, hidden), output);
    if (ret != 0) {
        // part of the batch may be in the memory: go on from the rows that are surely true
        ctx_dft->get_memory()->seq_rm(seq_id, pos0, -1);
    }
    return ret;
}

// Compute the rows that wait, all but those of the coming draft's own decode.
int32_t llama_nextn_drafter::flush(llama_seq_id seq_id) {
    auto &        seq     = seqs[seq_id];
    const int32_t n_batch = (int32_t) ctx_dft->n_batch();
    int32_t       done    = 0;
    int32_t       ret     = 0;

    ctx_dft->get_memory()->seq_rm(seq_id, seq.n_true, -1);
    while (ret == 0 && done < (int32_t) seq.tokens.size()) {
        const int32_t n = std::min<int32_t>(n_batch, (int32_t) seq.tokens.size() - done);
        ret =
            decode(seq_id, seq.n_true, seq.tokens.data() + done, seq.hidden.data() + (size_t) done * n_embd, n, false);
        if (ret == 0) {
            done += n;
            seq.n_true += n;
        }
    }
    seq.tokens.erase(seq.tokens.begin(), seq.tokens.begin() + done);
    seq.hidden.erase(seq.hidden.begin(), seq.hidden.begin() + (size_t) done * n_embd);
    return ret;
}

int32_t llama_nextn_drafter::feed(llama_seq_id seq_id, const llama_token * tokens, int32_t n_tokens,
                                  const float * hidden) {
    auto & seq = seqs[seq_id];
    if (seq.carry.empty()) {
        begin(seq_id);
    }
    if (seq.ahead != LLAMA_TOKEN_NULL && n_tokens > 0 && tokens[0] != seq.ahead) {
        seq.n_true--; // the round was dropped and another token took the place
        seq.ahead = LLAMA_TOKEN_NULL;
    }
    for (int32_t i = 0; i < n_tokens; ++i) {
        const float * h = hidden ? hidden + (size_t) i * n_embd : ctx_tgt->nextn.get_hidden(i);
        if (!h) {
            return -1;
        }
        if (seq.ahead == LLAMA_TOKEN_NULL) {
            seq.tokens.push_back(tokens[i]);
            seq.hidden.insert(seq.hidden.end(), seq.carry.begin(), seq.carry.end());
        }
        seq.ahead = LLAMA_TOKEN_NULL;
        seq.carry.assign(h, h + n_embd);
    }
    coverage.note_text(seq_id, tokens, n_tokens);
    return seq.tokens.size() >= ctx_dft->get_cparams().n_ubatch ? flush(seq_id) : 0;
}

// The rows that wait and the newest token's, output on the last.
int32_t llama_nextn_drafter::first_step(llama_seq_id seq_id, llama_token id_last) {
    auto & seq = seqs[seq_id];

    ctx_dft->get_memory()->seq_rm(seq_id, seq.n_true, -1);
    seq.tokens.push_back(id_last);
    seq.hidden.insert(seq.hidden.end(), seq.carry.begin(), seq.carry.end());

    const int32_t n   = (int32_t) seq.tokens.size();
    const int32_t ret = decode(seq_id, seq.n_true, seq.tokens.data(), seq.hidden.data(), n, true);
    if (ret != 0) {
        seq.tokens.pop_back();
        seq.hidden.resize(seq.hidden.size() - n_embd);
        return ret;
    }
    seq.n_true += n;
    seq.ahead = id_last;
    seq.tokens.clear();
    seq.hidden.clear();
    return 0;
}

// Draft until it does not pay or the limits are reached; 0 or the error of a decode.
int32_t llama_nextn_drafter::chain(llama_seq_id seq_id, llama_token id_last, int32_t n_max) {
    auto &             seq = seqs[seq_id];
    std::vector<float> h(n_embd);

    while (seq.n_steps < n_max && (!params.adaptive || seq.n_steps == 0 || seq.get_length().go_on(seq.p))) {
        const int64_t t_start   = ggml_time_us();
        const int32_t n_graphs  = llama_nextn_n_graph_builds(ctx_dft);
        const int32_t n_waiting = (int32_t) seq.tokens.size();
        int32_t       ret;
        if (seq.n_steps == 0) {
            ret = first_step(seq_id, id_last);
        } else {
            const float * row = ctx_dft->nextn.get_hidden(-1);
            std::copy(row, row + n_embd, h.begin()); // the next decode overwrites it
            ret = decode(seq_id, seq.n_true + seq.n_steps - 1, &seq.drafted.back(), h.data(), 1, true);
        }
        llama_nextn_best best;
        if (ret != 0 || !read_best(seq, -1, best)) {
            return ret != 0 ? ret : -1;
        }
        auto &       costs    = seq.get_length().costs;
        const bool   measured = llama_nextn_n_graph_builds(ctx_dft) == n_graphs;
        const double t        = seq.steady() ? steady_draft : measured ? (double) (ggml_time_us() - t_start) : 0;
        seq.n_steps == 0 ? costs.first_draft_took(t, seq.steady() ? 0 : n_waiting) : costs.next_draft_took(t);
        seq.n_steps++;
        if (!take(seq, best)) {
            break;
        }
    }
    return 0;
}

// What the head proposes in output i of its last decode; where tokens are drawn, p is what is known before that.
bool llama_nextn_drafter::read_best(sequence & seq, int32_t i, llama_nextn_best & best) {
    if (!ctx_dft->nextn.get_best(i, best)) {
        return false;
    }
    if (seq.drawer) {
        const auto row = ctx_dft->nextn.get_row(i);
        seq.drawer->read(row.data, row.size, ctx_dft->nextn.get_shortlist(), best, choice_of(seq));
        best.p = seq.drawer->get_q().p_max;
    }
    return true;
}

// Make it the next token of the draft; false when the draft ends here, with or without it.
bool llama_nextn_drafter::take(sequence & seq, llama_nextn_best best) {
    if (best.id == LLAMA_TOKEN_NULL || best.p < seq.p_min) { // the first: the head gave no number
        return false;
    }
    if (seq.drawer) {
        seq.q.push_back(seq.drawer->get_q());
        best.id = seq.q.back().ids[seq.drawer->draw()];
    }
    seq.drafted.push_back(best.id);
    seq.p.push_back(best.p);
    return !ctx_dft->get_model().vocab.is_eog(best.id); // nothing comes after it
}

// A round begins: nothing of the one before is left.
void llama_nextn_drafter::prepare(llama_seq_id seq_id, llama_token id_last) {
    auto & seq = seqs[seq_id];
    if (seq.carry.empty()) {
        begin(seq_id);
    }
    seq.drafted.clear();
    seq.p.clear();
    seq.q.clear();
    seq.n_steps      = 0;
    seq.n_graphs_tgt = llama_nextn_n_graph_builds(ctx_tgt);
    seq.in_group     = -1;
    if (seq.ahead != LLAMA_TOKEN_NULL) {
        seq.n_true--; // drafting again from the same place
        seq.ahead = LLAMA_TOKEN_NULL;
    }
    coverage.note_emitted(id_last);
}

int32_t llama_nextn_drafter::draft(llama_seq_id seq_id, llama_token id_last, int32_t n_room, llama_token * out,
                                   float * p) {
    auto & seq = seqs[seq_id];
    prepare(seq_id, id_last);

    const int32_t n_past = seq.n_true + (int32_t) seq.tokens.size();
    int32_t       n_max  = std::min({seq.n_max, n_room, (int32_t) ctx_dft->n_ctx_seq() - n_past});
    if (n_max > 0 && params.adaptive) {
        n_max = std::min(n_max, seq.get_length().plan());
    }
    if (n_max <= 0) {
        return 0;
    }
    // Rows of a prompt, and of rounds without a draft, are read apart: they say nothing about what a draft costs.
    double t_catch_up = 0;
    if ((int32_t) seq.tokens.size() > seq.n_max) {
        const int64_t t_start = ggml_time_us();
        if (const int32_t ret = flush(seq_id)) {
            return ret > 0 ? -ret : ret;
        }
        t_catch_up = (double) (ggml_time_us() - t_start);
    }
    seq.length.costs.catching_up_took(t_catch_up);
    if (const int32_t ret = chain(seq_id, id_last, n_max)) {
        return ret > 0 ? -ret : ret;
    }
    int32_t n = (int32_t) seq.drafted.size();
    if (!seq.drawer) { // to drop a drawn token after a look at it would bend its distribution
        n = params.adaptive ? seq.length.keep(seq.p) : n < seq.n_min ? 0 : n;
    }
    std::copy_n(seq.drafted.data(), n, out);
    if (p) {
        std::copy_n(seq.p.data(), n, p);
    }
    return n;
}

void llama_nextn_drafter::accept(llama_seq_id seq_id, int32_t n_sent, int32_t n_accepted, double t_verify) {
    auto & seq    = seqs[seq_id];
    n_sent        = std::clamp(n_sent, 0, (int32_t) seq.p.size());
    n_accepted    = std::clamp(n_accepted, 0, n_sent);
    auto & length = seq.get_length();
    if (seqs.size() > 1) {
        acceptance.saw(seq.p, n_sent, n_accepted);
    }
    const bool measured = t_verify > 0 && llama_nextn_n_graph_builds(ctx_tgt) == seq.n_graphs_tgt;
    if (seq.in_group >= 0) {
        accept_group(seq_id, n_sent, n_accepted, measured ? t_verify : 0);
    } else {
        length.saw(seq.p, n_sent, n_accepted);
        if (seq.steady()) {
            length.costs.verify_took(n_sent + 1, 1 + steady_verify * n_sent);
        } else {
            length.costs.verify_took(n_sent + 1, measured ? t_verify : 0);
        }
    }
    seq.p.clear();
    seq.n_steps = 0;

    coverage.note_accepted(n_accepted);
    if (!seq.steady()) {
        coverage.fit_prefix();
    }
}

int32_t llama_nextn_drafter::rest(llama_seq_id seq_id) {
    auto & seq = seqs[seq_id];
    return params.adaptive && seq.in_group < 0 ? seq.get_length().rest() : 0;
}

void llama_nextn_drafter::set_draw(llama_seq_id seq_id, const llama_nextn_draw * draw) {
    auto & drawer = seqs[seq_id].drawer;
    drawer.reset();
    if (draw) {
        drawer.emplace(*draw);
    }
    ctx_dft->nextn.set_row(std::any_of(seqs.begin(), seqs.end(), [](const auto & s) { return s.drawer.has_value(); }));
}

const llama_nextn_q * llama_nextn_drafter::get_q(llama_seq_id seq_id, int32_t i) const {
    const auto & q = seqs[seq_id].q;
    return 0 <= i && i < (int32_t) q.size() ? &q[i] : nullptr;
}

int32_t llama_nextn_drafter::get_row(const llama_token ** ids, const float ** logits) {
    const auto   row  = ctx_dft->nextn.get_row(-1);
    const auto * list = ctx_dft->nextn.get_shortlist();
    row_ids.resize(row.size);
    for (int64_t i = 0; i < row.size; ++i) {
        row_ids[i] = list ? list->token_of(i) : (llama_token) i;
    }
    *ids    = row_ids.data();
    *logits = row.data;
    return (int32_t) row.size;
}

bool llama_nextn_drafter::saw_p(llama_seq_id seq_id, int32_t i, const float * p) {
    const auto * dist = get_q(seq_id, i);
    if (dist) {
        choice_of(seqs[seq_id]).saw(*dist, p);
    }
    return dist;
}

llama_nextn_draft_stats llama_nextn_drafter::get_stats(llama_seq_id seq_id) const {
    llama_nextn_draft_stats stats = {};
    coverage.get_stats(stats);
    for (int n = 1; n <= llama_nextn_length::k_max; ++n) {
        stats.cost_verify_us[n] = seqs[seq_id].length.costs.verify(n);
        stats.cost_draft_us[n]  = seqs[seq_id].length.costs.draft(n);
    }
    return stats;
}
