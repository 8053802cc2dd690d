#include "decode.h"

#include "errors.h"
#include "log.h"

#include <algorithm>
#include <climits>
#include <cmath>

namespace py = pybind11;

namespace nextn {

static void check_seq_id(const ContextHandle & context, SeqId seq_id) {
    check_range("seq_id", seq_id.value, 0, llama_n_seq_max(context.ctx) - 1);
}

static void check_batch(const ContextHandle & context, const std::vector<int32_t> & tokens) {
    if (tokens.empty()) {
        throw py::value_error("tokens is empty; a decode takes at least one token");
    }
    const uint32_t n_batch = llama_n_batch(context.ctx);
    if (tokens.size() > n_batch) {
        throw py::value_error(
            strf("tokens has %zu entries, more than n_batch = %u; decode them in parts, or make the context "
                 "with a larger n_batch",
                 tokens.size(), n_batch));
    }
    check_tokens(*context.model, tokens);
}

static void check_hidden(const ContextHandle & context, size_t n_tokens, const std::optional<Hidden> & hidden) {
    if (!context.is_draft) {
        if (hidden) {
            throw py::value_error("hidden is given, but this context is a target; only a draft context reads it");
        }
        return;
    }
    const auto n_embd = static_cast<long long>(context.model->n_embd());
    if (!hidden) {
        throw py::value_error(strf("hidden is missing; a draft context needs float32 [%zu, %lld]", n_tokens, n_embd));
    }
    if (hidden->n_rows != static_cast<int64_t>(n_tokens) || hidden->n_cols != n_embd) {
        throw py::value_error(strf("hidden has the shape [%lld, %lld]; needed is [%zu, %lld]",
                                   static_cast<long long>(hidden->n_rows), static_cast<long long>(hidden->n_cols),
                                   n_tokens, n_embd));
    }
    const int64_t n = hidden->n_rows * hidden->n_cols;
    for (int64_t i = 0; i < n; ++i) {
        if (!std::isfinite(hidden->data[i])) {
            throw py::value_error(strf("hidden[%lld, %lld] is not finite", static_cast<long long>(i / n_embd),
                                       static_cast<long long>(i % n_embd)));
        }
    }
}

// The first position; the others follow it.
static llama_pos check_positions(const ContextHandle & context, size_t n_tokens,
                                 const std::optional<Positions> & positions, SeqId seq_id) {
    const llama_pos pos_max = llama_memory_seq_pos_max(llama_get_memory(context.ctx), seq_id.value);
    const auto n = static_cast<int64_t>(n_tokens);
    if (!positions) {
        check_range("the last position", pos_max + n, 0, INT32_MAX - 1);
        return pos_max + 1;
    }
    const auto & pos = positions->values;
    if (pos.size() != n_tokens) {
        throw py::value_error(strf("positions has %zu entries, tokens has %zu", pos.size(), n_tokens));
    }
    check_range("positions[0]", pos[0], 0, INT32_MAX - n);
    for (size_t i = 1; i < pos.size(); ++i) {
        if (pos[i] != pos[0] + static_cast<llama_pos>(i)) {
            throw py::value_error(strf("positions[%zu] is %d; positions must be contiguous, so %d", i, pos[i],
                                       pos[0] + static_cast<llama_pos>(i)));
        }
    }
    if (pos_max >= 0 && pos[0] != pos_max + 1) {
        throw py::value_error(strf("positions[0] is %d; sequence %d ends at position %d, so the next one is %d", pos[0],
                                   static_cast<int>(seq_id.value), pos_max, pos_max + 1));
    }
    return pos[0];
}

static int64_t free_room(const ContextHandle & context, SeqId seq_id) {
    llama_memory_t mem = llama_get_memory(context.ctx);
    const llama_pos pos_max = llama_memory_seq_pos_max(mem, seq_id.value);
    // a recurrent layer's smallest position is its newest one, and nothing can be missing before it
    const llama_pos pos_min = context.is_recurrent ? 0 : std::max(0, llama_memory_seq_pos_min(mem, seq_id.value));
    return static_cast<int64_t>(llama_n_ctx_seq(context.ctx)) - (pos_max - pos_min + 1);
}

[[noreturn]] static void throw_overflow(const ContextHandle & context, int64_t n_tokens, int64_t n_free) {
    throw OverflowError(
        strf("%lld tokens do not fit: %lld of the %u of a sequence are free; remove tokens, or make the "
             "context with a larger n_ctx",
             static_cast<long long>(n_tokens), static_cast<long long>(n_free), llama_n_ctx_seq(context.ctx)),
        n_tokens, n_free);
}

//
// the call
//

// The arrays behind a llama_batch of one sequence.
struct Batch {
    Batch(const std::vector<int32_t> & tokens, llama_pos pos0, llama_seq_id seq, const float * rows,
          const std::string & outputs)
        : token(tokens), pos(tokens.size()), n_seq_id(tokens.size(), 1), seq_id(seq), seq_ids(tokens.size(), &seq_id),
          output(tokens.size(), outputs == "all"), hidden(rows) {
        for (size_t i = 0; i < pos.size(); ++i) {
            pos[i] = pos0 + static_cast<llama_pos>(i);
        }
        if (outputs == "last") {
            output.back() = 1;
        }
    }

    int64_t n_outputs() const { return std::count(output.begin(), output.end(), 1); }

    llama_batch view() {
        llama_batch batch = {};
        batch.n_tokens = static_cast<int32_t>(token.size());
        batch.token = token.data();
        batch.embd = const_cast<float *>(hidden); // read only; the engine's struct has no const
        batch.pos = pos.data();
        batch.n_seq_id = n_seq_id.data();
        batch.seq_id = seq_ids.data();
        batch.logits = output.data();
        return batch;
    }

    std::vector<llama_token> token;
    std::vector<llama_pos> pos;
    std::vector<int32_t> n_seq_id;
    llama_seq_id seq_id;
    std::vector<llama_seq_id *> seq_ids;
    std::vector<int8_t> output;
    const float * hidden;
};

// llama_decode(), with exceptions of the engine as a failed computation.
static int32_t run(ContextHandle & context, const llama_batch & batch, std::string & reason) {
    const LogCapture log;
    int32_t code = 0;
    try {
        code = llama_decode(context.ctx, batch);
        llama_synchronize(context.ctx);
    } catch (const std::exception & e) {
        reason = e.what();
        return -3;
    }
    reason = log.reason();
    return code;
}

// After a failure nobody knows which layers took the tokens.
static void remove_sequence(ContextHandle & context, SeqId seq_id, LockedPartner & draft) {
    draft.acquire(context);
    if (!llama_context_nextn_seq_rm(context.ctx, seq_id.value, -1, -1)) {
        llama_memory_seq_rm(llama_get_memory(context.ctx), seq_id.value, -1, -1);
    }
}

static void check_code(ContextHandle & context, int32_t code, const std::string & reason, size_t n_tokens, SeqId seq_id,
                       LockedPartner & draft) {
    if (code == 0) {
        return;
    }
    if (code == 1) {
        throw_overflow(context, n_tokens, std::min<int64_t>(free_room(context, seq_id), n_tokens - 1));
    }
    if (code == -1) {
        throw py::value_error("the engine refused the tokens: " + reason);
    }
    remove_sequence(context, seq_id, draft);
    if (context.interrupted) {
        std::rethrow_exception(std::exchange(context.interrupted, nullptr));
    }
    throw_decode_error(code, static_cast<int32_t>(seq_id.value), reason);
}

int64_t decode(const Context & context_ref, const Tokens & tokens, const std::optional<Positions> & positions,
               SeqId seq_id, const std::optional<Hidden> & hidden, const std::string & outputs) {
    if (outputs != "all" && outputs != "last" && outputs != "none") {
        throw py::value_error("outputs must be one of 'all', 'last', 'none', not '" + outputs + "'");
    }
    LockedPartner draft;
    const LockedContext context(context_ref);
    if (context->has_drafter) {
        throw Error(ErrorKind::Nextn, "a drafter computes on this draft context; close the drafter first");
    }
    check_seq_id(*context, seq_id);
    check_batch(*context, tokens.values);
    check_hidden(*context, tokens.values.size(), hidden);
    const llama_pos pos0 = check_positions(*context, tokens.values.size(), positions, seq_id);
    const auto n_tokens = static_cast<int64_t>(tokens.values.size());
    const int64_t n_free = free_room(*context, seq_id);
    if (n_tokens > n_free) {
        throw_overflow(*context, n_tokens, n_free);
    }

    Batch batch(tokens.values, pos0, static_cast<llama_seq_id>(seq_id.value), hidden ? hidden->data : nullptr, outputs);
    context->begin_compute();
    std::string reason;
    const int32_t code = run(*context, batch.view(), reason);
    check_code(*context, code, reason, n_tokens, seq_id, draft);

    context->n_outputs = batch.n_outputs();
    context->has_logits = context->keep_logits;
    context->has_argmax = context->argmax_on;
    context->n_hidden = context->hidden_on ? n_tokens : 0;
    context->n_pre_norm = context->pre_norm_on ? n_tokens : 0;
    return context->n_outputs;
}

} // namespace nextn
