#pragma once

// `--spec-type nextn` over the draft engine of llama-nextn.h. Included by speculative.cpp, behind
// common_speculative_impl.

#include "llama-nextn.h"

#include "speculative-nextn-accept.h"
#include "speculative-nextn-outputs.h"
#include "speculative-nextn-rows.h"
#include "speculative-nextn.h"

#include <filesystem>
#include <optional>

struct common_speculative_impl_nextn : public common_speculative_impl {
    struct sequence {
        llama_tokens text; // what the drafter was told; negative: of an image, LLAMA_TOKEN_NULL until it has its mark

        // the round under way: id_last and the draft, and the target's row of each once it has decoded them
        llama_tokens       round;
        std::vector<float> rows;

        // the round to report with the next draft
        bool    open       = false;
        bool    mixed      = false; // a prompt was in the same batch: its time says nothing
        int32_t n_sent     = 0;
        int32_t n_accepted = 0;
        int64_t t_drafted  = 0;

        std::vector<float> gap; // row before the next token, when rows before it were never fed

        std::optional<common_nextn_judge> judge; // of a request whose drafts are accepted by ratio

        bool needs_logits = false; // of the request that runs: the arg-max of a row is not enough

        common_speculative_phases phases;
    };

    // one run of a batch: tokens of one sequence, in order
    struct run {
        llama_seq_id seq_id;
        int32_t      i0;
        int32_t      n;
    };

    common_params_speculative_draft params;

    llama_nextn_drafter * drafter = nullptr;

    int32_t               n_embd = 0;
    std::vector<sequence> seqs;
    common_nextn_rows     kept;

    common_speculative_impl_nextn(const common_params_speculative & spec_params, uint32_t n_seq)
        : common_speculative_impl(COMMON_SPECULATIVE_TYPE_NEXTN, n_seq, spec_params.draft.n_max),
          params(spec_params.draft) {
        auto * ctx_tgt = params.ctx_tgt;
        auto * ctx_dft = params.ctx_dft;

        if (!llama_set_nextn(ctx_tgt, ctx_dft)) {
            throw std::runtime_error("nextn: the head does not belong to this model: its width or vocabulary differs");
        }
        const auto * model = llama_get_model(ctx_tgt);
        if ((llama_model_is_hybrid(model) || llama_model_is_recurrent(model)) && llama_n_rs_seq(ctx_tgt) == 0) {
            throw std::runtime_error("nextn: the engine keeps no state of this architecture to roll back to");
        }

        const int32_t n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
        const auto &  ids     = params.vocab_ids;
        const int32_t highest = ids.empty() ? params.n_vocab - 1 : *std::max_element(ids.begin(), ids.end());
        if (highest >= n_vocab) {
            throw std::runtime_error(string_format("nextn: --spec-draft-vocab goes up to id %d, the model's ids to %d",
                                                   highest, n_vocab - 1));
        }

        auto dparams        = llama_nextn_draft_default_params();
        dparams.n_max       = params.n_max;
        dparams.n_min       = params.n_min;
        dparams.p_min       = params.p_min;
        dparams.adaptive    = params.adaptive;
        dparams.n_vocab     = params.n_vocab;
        dparams.vocab_ids   = ids.data();
        dparams.n_vocab_ids = (int32_t) ids.size();
        drafter             = llama_nextn_drafter_init(ctx_tgt, ctx_dft, dparams);
        if (!drafter) {
            throw std::runtime_error("nextn: drafts are 1 to 16 tokens long, and at least n_min");
        }
        n_embd = llama_model_n_embd_out(model);
        seqs.resize(n_seq);
        for (auto & seq : seqs) {
            seq.phases.active = true;
        }
        SPC_INF("nextn: n_max=%d, n_min=%d, p_min=%.2f, %s\n", params.n_max, params.n_min, params.p_min,
                params.adaptive ? "adaptive" : "fixed");
    }

    ~common_speculative_impl_nextn() override {
        llama_nextn_drafter_free(drafter);
        llama_set_nextn_best(params.ctx_tgt, /*value =*/false, /*with_p =*/false, /*keep_logits =*/true);
    }

    void begin(llama_seq_id /*seq_id*/, const llama_tokens & /*prompt*/) override {} // resume() came before

    bool process(const common_batch & batch) override {
        const float * rows = batch.size() > 0 ? llama_get_nextn_hidden(params.ctx_tgt) : nullptr;
        if (!rows) {
            return true;
        }
        std::vector<run> runs;
        for (int32_t i = 0; i < batch.size(); ++i) {
            const llama_seq_id seq_id = batch.tokens[i].seq_id;
            if (runs.empty() || runs.back().seq_id != seq_id) {
                runs.push_back({seq_id, i, 0});
            }
            runs.back().n++;
        }

        if (batch.tokens[0].id == LLAMA_TOKEN_NULL) {
            for (auto & seq : seqs) {
                seq.mixed = true; // rounds of other slots wait meanwhile
            }
        }
        const int64_t t_now = ggml_time_us();
        const bool    mixed = std::any_of(runs.begin(), runs.end(), [&](const run & r) { return !is_round(r, batch); });
        for (const run & r : runs) {
            process_run(r, batch, rows + (size_t) r.i0 * n_embd, mixed, t_now);
        }
        return true;
    }

    void draft(common_speculative_draft_params_vec & dparams) override {
        std::vector<llama_nextn_draft_request> reqs;
        std::vector<llama_tokens>              out(dparams.size());

        for (llama_seq_id seq_id = 0; seq_id < (llama_seq_id) dparams.size(); ++seq_id) {
            auto & dp = dparams[seq_id];
            if (!dp.drafting) {
                continue;
            }
            report(seq_id);
            if (llama_nextn_drafter_n_past(drafter, seq_id) != dp.pos0) {
                rewind(seq_id, dp.pos0, nullptr); // the context was shifted
            }
            out[seq_id].resize(std::clamp(dp.n_max, 0, n_max));
            reqs.push_back({seq_id, dp.id_last, (int32_t) out[seq_id].size(), out[seq_id].data(), 0});
        }

        const int64_t t_start = ggml_time_us();
        const int32_t ret     = llama_nextn_draft_many(drafter, reqs.data(), (int32_t) reqs.size());
        if (ret != 0) {
            SPC_WRN("nextn: a draft failed (%d): decoding plainly\n", ret);
        }
        const int64_t t_end = ggml_time_us();

        for (const auto & req : reqs) {
            auto & dp  = dparams[req.seq_id];
            auto & seq = seqs[req.seq_id];
            dp.result->assign(req.out, req.out + req.n_draft);

            seq.round.assign(1, req.id_last);
            seq.round.insert(seq.round.end(), req.out, req.out + req.n_draft);
            seq.rows.clear();
            seq.open       = true;
            seq.mixed      = false;
            seq.n_sent     = req.n_draft;
            seq.n_accepted = 0;
            seq.t_drafted  = t_end;
            seq.phases.t_draft_us += t_end - t_start;
        }
    }

    void accept(llama_seq_id seq_id, uint16_t n_accepted, bool /*is_other*/) override {
        auto & seq = seqs[seq_id];
        if (seq.rows.empty()) {
            return;
        }
        seq.n_accepted = std::min<int32_t>(n_accepted, (int32_t) seq.round.size() - 1);
        for (int32_t i = 0; i + 1 < (int32_t) seq.round.size(); ++i) { // k_max of them at most
            seq.phases.n_drafted_per_pos[i]++;
            seq.phases.n_accepted_per_pos[i] += i < seq.n_accepted;
        }
        feed(seq_id, seq.round.data(), seq.n_accepted + 1, seq.rows.data());
        seq.round.clear();
        seq.rows.clear();
    }

    void resume(llama_seq_id seq_id, const llama_tokens & text, llama_pos pos,
                const common_params_speculative & request, const common_params_sampling & sampling) {
        auto & seq = seqs[seq_id];
        start(seq_id, request, sampling);
        if (same(seq.text, text)) {
            seq.text = text; // with the mark of an image that was just read
            if (!seq.gap.empty()) {
                kept.put(text, seq.gap.data(), n_embd);
            }
            return;
        }
        remember(seq_id);
        if (text.size() < seq.text.size() && std::equal(text.begin(), text.end(), seq.text.begin())) {
            flush(seq_id); // rows that wait are rows of this text
        }
        seq.text = text;
        seq.gap.clear();
        rewind(seq_id, pos, kept.get(text));
    }

    void release(llama_seq_id seq_id) {
        seqs[seq_id].needs_logits = false;
        choose_outputs();
    }

    // The tokens that a round emits: those of the draft that are accepted and one of the target's.
    llama_tokens sample(llama_seq_id seq_id, common_sampler * smpl, const std::vector<int> & idxs,
                        const llama_tokens & draft) {
        auto & judge = seqs[seq_id].judge;
        if (!judge) {
            return common_sampler_sample_and_accept_n(smpl, params.ctx_tgt, idxs, draft);
        }
        const auto * vocab = llama_model_get_vocab(llama_get_model(params.ctx_tgt));
        llama_tokens result;
        for (size_t i = 0; i < idxs.size(); ++i) {
            llama_token id   = common_sampler_sample(smpl, params.ctx_tgt, idxs[i]);
            const bool  last = i == draft.size();
            if (!last) {
                common_nextn_q q;
                q.n            = llama_nextn_drafter_get_q(drafter, seq_id, (int32_t) i, &q.ids, &q.q);
                const auto & p = *common_sampler_get_candidates(smpl, false);
                if (q.n > 1) {
                    llama_nextn_drafter_saw_p(drafter, seq_id, (int32_t) i, q.of_ids(p).data());
                }
                id = (*judge)(p, q, draft[i]);
            }
            common_sampler_accept(smpl, id, true);
            result.push_back(id);
            if (last || id != draft[i] || (llama_vocab_is_eog(vocab, id) && i + 1 < draft.size())) {
                break;
            }
        }
        return result;
    }

    void flush(llama_seq_id seq_id) {
        if (const int32_t ret = llama_nextn_drafter_flush(drafter, seq_id)) {
            SPC_WRN("nextn: rows of slot %d could not be computed (%d): its drafts may get worse\n", seq_id, ret);
        }
        remember(seq_id);
    }

    void copy(llama_seq_id from, llama_seq_id to, const common_params_speculative & request,
              const common_params_sampling & sampling) {
        flush(from);
        auto * mem = llama_get_memory(params.ctx_dft);
        llama_memory_seq_rm(mem, to, -1, -1);
        llama_memory_seq_cp(mem, from, to, -1, -1);
        separate(from, to);

        seqs[to].text = seqs[from].text;
        seqs[to].gap  = seqs[from].gap;
        start(to, request, sampling);
        rewind(to, llama_nextn_drafter_n_past(drafter, from), llama_nextn_drafter_get_carry(drafter, from));
    }

    // A recurrent state that two sequences share becomes two. Left to the next decode, the first would take the cell of
    // a third, and cells out of order may be moved away from their snapshots (see llama_memory_recurrent::find_slot).
    void separate(llama_seq_id from, llama_seq_id to) {
        const auto * model = llama_get_model(params.ctx_tgt);
        if (!llama_model_is_hybrid(model) && !llama_model_is_recurrent(model)) {
            return;
        }
        const auto           flags = LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY; // the recurrent half
        std::vector<uint8_t> state(llama_state_seq_get_size_ext(params.ctx_tgt, from, flags));
        llama_state_seq_get_data_ext(params.ctx_tgt, state.data(), state.size(), from, flags);
        if (llama_state_seq_set_data_ext(params.ctx_tgt, state.data(), state.size(), to, flags) != state.size()) {
            throw std::runtime_error("nextn: the state of a sequence could not be copied");
        }
    }

    // The row goes where a state file has room for tokens.
    void save(llama_seq_id seq_id, const std::string & path) {
        flush(seq_id);
        llama_tokens packed(n_embd);
        std::memcpy(packed.data(), llama_nextn_drafter_get_carry(drafter, seq_id), packed.size() * sizeof(float));
        if (llama_state_seq_save_file(params.ctx_dft, draft_path(path).c_str(), seq_id, packed.data(), packed.size()) ==
            0) {
            SPC_WRN("nextn: '%s' could not be written: drafts will start afresh behind this slot's text\n",
                    draft_path(path).c_str());
        }
    }

    void load(llama_seq_id seq_id, const std::string & path, const llama_tokens & text) {
        llama_nextn_drafter_begin(drafter, seq_id);
        seqs[seq_id].text.clear();

        llama_tokens packed(n_embd);
        size_t       n_packed = 0;
        const bool   ok = std::filesystem::exists(draft_path(path)) &&
                          llama_state_seq_load_file(params.ctx_dft, draft_path(path).c_str(), seq_id, packed.data(),
                                                    packed.size(), &n_packed) != 0;
        if (ok && n_packed == packed.size()) {
            std::vector<float> row(n_embd);
            std::memcpy(row.data(), packed.data(), row.size() * sizeof(float));
            kept.put(text, row.data(), n_embd);
        }
    }

private:
    // Rows of logits are copied to the host only while a request wants them.
    void choose_outputs() {
        const bool argmax = std::none_of(seqs.begin(), seqs.end(), [](const auto & seq) { return seq.needs_logits; });
        llama_set_nextn_best(params.ctx_tgt, argmax, /*with_p =*/false, /*keep_logits =*/false);
    }

    static std::string draft_path(const std::string & path) { return path + ".draft"; }

    // Whether one text is the other, but for images that have no mark yet.
    static bool same(const llama_tokens & ours, const llama_tokens & text) {
        return std::equal(ours.begin(), ours.end(), text.begin(), text.end(),
                          [](llama_token a, llama_token b) { return a == b || (a == LLAMA_TOKEN_NULL && b < 0); });
    }

    // The tokens whose drafting has just ended, and nothing else.
    bool is_round(const run & r, const common_batch & batch) const {
        const auto & round = seqs[r.seq_id].round;
        for (int32_t i = 0; i < r.n && (size_t) r.n == round.size(); ++i) {
            if (batch.tokens[r.i0 + i].id != round[i]) {
                return false;
            }
        }
        return seqs[r.seq_id].open && (size_t) r.n == round.size();
    }

    void process_run(const run & r, const common_batch & batch, const float * rows, bool mixed, int64_t t_now) {
        auto & seq = seqs[r.seq_id];
        if (batch.tokens[r.i0].id == LLAMA_TOKEN_NULL) {
            flush(r.seq_id); // the head reads no image: the rows before it and those behind it do not join
            seq.text.insert(seq.text.end(), r.n, LLAMA_TOKEN_NULL);
            seq.gap.assign(rows + (size_t) (r.n - 1) * n_embd, rows + (size_t) r.n * n_embd);
            return;
        }
        const bool round = is_round(r, batch);
        if (round) {
            seq.mixed = seq.mixed || mixed;
            seq.phases.t_verify_us += t_now - seq.t_drafted;
        }
        if (round && r.n > 1) {
            seq.rows.assign(rows, rows + (size_t) r.n * n_embd); // which of them are kept is decided later
            return;
        }
        const llama_pos pos0 = batch.tokens[r.i0].pos[0];
        if (llama_nextn_drafter_n_past(drafter, r.seq_id) != pos0) {
            rewind(r.seq_id, pos0, seq.gap.empty() ? nullptr : seq.gap.data());
        }
        seq.gap.clear();

        llama_tokens tokens(r.n);
        for (int32_t i = 0; i < r.n; ++i) {
            tokens[i] = batch.tokens[r.i0 + i].id;
        }
        feed(r.seq_id, tokens.data(), r.n, rows);
        if (!round) {
            remember(r.seq_id); // a checkpoint may be made here
        }
    }

    void feed(llama_seq_id seq_id, const llama_token * tokens, int32_t n, const float * rows) {
        auto & seq = seqs[seq_id];
        seq.text.insert(seq.text.end(), tokens, tokens + n);
        if (const int32_t ret = llama_nextn_drafter_feed(drafter, seq_id, tokens, n, rows)) {
            SPC_WRN("nextn: rows of slot %d could not be computed (%d): its drafts may get worse\n", seq_id, ret);
        }
    }

    void remember(llama_seq_id seq_id) {
        kept.put(seqs[seq_id].text, llama_nextn_drafter_get_carry(drafter, seq_id), n_embd);
    }

    // Go on at a position of the slot's text; carry: the target's row of the token before it, NULL: not known.
    void rewind(llama_seq_id seq_id, llama_pos pos, const float * carry) {
        const auto & text = seqs[seq_id].text;
        llama_nextn_drafter_rewind(drafter, seq_id, pos, carry, text.data(), (int32_t) text.size());
    }

    // A request begins, with nothing of the one before but the text.
    void start(llama_seq_id seq_id, const common_params_speculative & request,
               const common_params_sampling & sampling) {
        auto & seq       = seqs[seq_id];
        seq.needs_logits = !common_nextn_by_argmax(sampling, llama_model_get_vocab(llama_get_model(params.ctx_tgt)));
        choose_outputs();
        seq.judge.reset();
        llama_nextn_drafter_set_draw(drafter, seq_id, nullptr);
        if (common_nextn_by_ratio(request, sampling)) {
            uint64_t seed = sampling.seed;
            if (sampling.seed == LLAMA_DEFAULT_SEED) {
                std::random_device device;
                seed = (uint64_t) device() << 32 | device();
            }
            seq.judge.emplace(seed);
            const auto draw = common_nextn_draw(sampling, ~seed); // other random numbers than the judge's
            llama_nextn_drafter_set_draw(drafter, seq_id, &draw);
        }
        seq.round.clear();
        seq.rows.clear();
        seq.open          = false;
        seq.phases        = {};
        seq.phases.active = true;
        llama_nextn_drafter_set_limits(drafter, seq_id, request.draft.n_max, request.draft.n_min, request.draft.p_min);
    }

    // What a round came to; its time is that of everything up to the next one.
    void report(llama_seq_id seq_id) {
        auto & seq = seqs[seq_id];
        if (seq.open) {
            const double t = seq.mixed ? 0.0 : (double) (ggml_time_us() - seq.t_drafted);
            llama_nextn_drafter_accept(drafter, seq_id, seq.n_sent, seq.n_accepted, t);
            seq.open = false;
        }
    }
};
