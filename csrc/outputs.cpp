#include "decode.h"
#include "errors.h"
#include "log.h"

#include <climits>

namespace py = pybind11;

namespace nextn {

//
// rows of the last decode
//

struct RowsAt {
    const float * data;
    int64_t n_rows;
    int64_t n_cols;
};

static RowsAt logits_at(ContextHandle & context) {
    if (context.n_outputs == 0) {
        throw Error(ErrorKind::Nextn, "there are no logits; decode tokens first, with outputs=\"all\" or \"last\"");
    }
    if (!context.has_logits) {
        throw Error(ErrorKind::Nextn, "the last decode kept the arg-max alone; call set_argmax(False), or "
                                      "set_argmax(True, keep_logits=True), before decoding");
    }
    return {llama_get_logits(context.ctx), context.n_outputs, context.model->n_vocab()};
}

static RowsAt hidden_at(ContextHandle & context) {
    if (!context.hidden_on) {
        throw Error(ErrorKind::Nextn,
                    "this model has no draft head, so no hidden rows are kept; pair() the context with a "
                    "draft context to keep them");
    }
    if (context.n_hidden == 0) {
        throw Error(ErrorKind::Nextn, "there are no hidden rows; decode tokens first");
    }
    return {llama_get_nextn_hidden(context.ctx), context.n_hidden, context.model->n_embd()};
}

static RowsAt pre_norm_at(ContextHandle & context) {
    if (context.n_pre_norm == 0) {
        throw Error(ErrorKind::Nextn,
                    "there are no rows before the final norm; call set_embeddings_pre_norm(True), then "
                    "decode tokens");
    }
    return {llama_get_embeddings_pre_norm(context.ctx), context.n_pre_norm, context.model->n_embd()};
}

static RowsAt check_rows(const RowsAt & rows) {
    if (!rows.data) {
        throw Error(ErrorKind::Nextn, "the engine has no such rows for this architecture");
    }
    return rows;
}

using Reader = RowsAt (*)(ContextHandle &);

static Rows read_copy(const Context & context_ref, Reader reader) {
    const LockedContext context(context_ref);
    const RowsAt rows = check_rows(reader(*context));
    return copy_rows(rows.data, rows.n_rows, rows.n_cols);
}

static RowsView read_view(const Context & context_ref, Reader reader) {
    const LockedContext context(context_ref);
    const RowsAt rows = check_rows(reader(*context));
    return view_rows(rows.data, rows.n_rows, rows.n_cols, context.shared());
}

Rows logits(const Context & context) {
    return read_copy(context, logits_at);
}

RowsView logits_view(const Context & context) {
    return read_view(context, logits_at);
}

Rows hidden(const Context & context) {
    return read_copy(context, hidden_at);
}

RowsView hidden_view(const Context & context) {
    return read_view(context, hidden_at);
}

Rows embeddings_pre_norm(const Context & context) {
    return read_copy(context, pre_norm_at);
}

RowsView embeddings_pre_norm_view(const Context & context) {
    return read_view(context, pre_norm_at);
}

std::vector<int32_t> argmax(const Context & context_ref) {
    const LockedContext context(context_ref);
    if (!context->has_argmax || context->n_outputs == 0) {
        throw Error(ErrorKind::Nextn, "there is no arg-max; call set_argmax(True), then decode tokens with "
                                      "outputs=\"all\" or \"last\"");
    }
    std::vector<int32_t> tokens(context->n_outputs);
    for (size_t i = 0; i < tokens.size(); ++i) { // outputs are the last tokens of the batch: all, or the last alone
        const auto from_end = static_cast<int32_t>(i) - static_cast<int32_t>(tokens.size());
        if (!llama_get_nextn_best_ith(context->ctx, from_end, &tokens[i], nullptr)) {
            throw Error(ErrorKind::Nextn, "the engine has no arg-max for this architecture");
        }
        if (tokens[i] == LLAMA_TOKEN_NULL) {
            throw Error(ErrorKind::Decode, "the model gave logits that are no numbers (NaN): the file or the "
                                           "computation is broken");
        }
    }
    return tokens;
}

void set_argmax(const Context & context_ref, bool value, bool keep_logits) {
    const LockedContext context(context_ref);
    context->argmax_on = value;
    context->keep_logits = keep_logits || !value;
    llama_set_nextn_best(context->ctx, value, /*with_p =*/false, context->keep_logits);
}

void set_embeddings_pre_norm(const Context & context_ref, bool value) {
    const LockedContext context(context_ref);
    if (context->pre_norm_on == value) {
        return;
    }
    llama_set_embeddings_pre_norm(context->ctx, value);
    context->pre_norm_on = value;
    context->n_pre_norm = 0;
}

//
// memory of the sequences
//

static void check_seq_id(const ContextHandle & context, SeqId seq_id) {
    check_range("seq_id", seq_id.value, 0, llama_n_seq_max(context.ctx) - 1);
}

static llama_pos to_pos(int64_t pos) {
    return static_cast<llama_pos>(std::clamp<int64_t>(pos, -1, INT32_MAX));
}

bool seq_rm(const Context & context_ref, SeqId seq_id, P0 p0, P1 p1) {
    const LockedContext context(context_ref);
    check_seq_id(*context, seq_id);
    return llama_memory_seq_rm(llama_get_memory(context->ctx), seq_id.value, to_pos(p0.value), to_pos(p1.value));
}

bool nextn_seq_rm(const Context & context_ref, SeqId seq_id, P0 p0, P1 p1) {
    LockedPartner draft;
    const LockedContext context(context_ref);
    check_seq_id(*context, seq_id);
    draft.acquire(*context);
    return llama_context_nextn_seq_rm(context->ctx, seq_id.value, to_pos(p0.value), to_pos(p1.value));
}

int32_t seq_pos_max(const Context & context_ref, SeqId seq_id) {
    const LockedContext context(context_ref);
    check_seq_id(*context, seq_id);
    return llama_memory_seq_pos_max(llama_get_memory(context->ctx), seq_id.value);
}

int32_t seq_pos_min(const Context & context_ref, SeqId seq_id) {
    const LockedContext context(context_ref);
    check_seq_id(*context, seq_id);
    return llama_memory_seq_pos_min(llama_get_memory(context->ctx), seq_id.value);
}

// Attention layers hold every position and can be cut; what is saved is the rest.
static constexpr llama_state_seq_flags partial = LLAMA_STATE_SEQ_FLAGS_PARTIAL_ONLY;

Bytes save_state(const Context & context_ref, SeqId seq_id) {
    const LockedContext context(context_ref);
    check_seq_id(*context, seq_id);
    const auto seq = static_cast<llama_seq_id>(seq_id.value);
    Bytes state;
    if (!context->is_recurrent) {
        return state;
    }
    state.value.resize(llama_state_seq_get_size_ext(context->ctx, seq, partial));
    auto * data = reinterpret_cast<uint8_t *>(state.value.data());
    if (llama_state_seq_get_data_ext(context->ctx, data, state.value.size(), seq, partial) != state.value.size()) {
        throw Error(ErrorKind::Nextn, "the state of the recurrent layers could not be saved");
    }
    return state;
}

bool restore_state(const Context & context_ref, const Bytes & state, int64_t n_past, SeqId seq_id) {
    LockedPartner draft;
    const LockedContext context(context_ref);
    check_seq_id(*context, seq_id);
    check_range("n_past", n_past, 1, INT32_MAX);
    draft.acquire(*context);
    const auto seq = static_cast<llama_seq_id>(seq_id.value);
    llama_memory_t memory = llama_get_memory(context->ctx);
    // a decode that failed took everything out; a sliding window forgets old positions
    const bool has_old = context->is_recurrent || llama_memory_seq_pos_min(memory, seq) <= 0;
    if (llama_memory_seq_pos_max(memory, seq) < n_past - 1 || !has_old ||
        context->is_recurrent == state.value.empty()) {
        return false;
    }
    if (context->is_recurrent) {
        const auto * data = reinterpret_cast<const uint8_t *>(state.value.data());
        const LogCapture log;
        if (llama_state_seq_set_data_ext(context->ctx, data, state.value.size(), seq, partial) == 0) {
            llama_memory_seq_rm(memory, seq, -1, -1); // half restored
            return false;
        }
    }
    return llama_memory_seq_rm(memory, seq, static_cast<llama_pos>(n_past), -1);
}

int32_t max_rollback(const Context & context_ref, SeqId seq_id) {
    const LockedContext context(context_ref);
    check_seq_id(*context, seq_id);
    return llama_nextn_max_rollback(context->ctx, seq_id.value);
}

} // namespace nextn
