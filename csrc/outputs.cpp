#include "decode.h"
#include "errors.h"

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

int32_t max_rollback(const Context & context_ref, SeqId seq_id) {
    const LockedContext context(context_ref);
    check_seq_id(*context, seq_id);
    return llama_nextn_max_rollback(context->ctx, seq_id.value);
}

} // namespace nextn
