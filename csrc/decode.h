#pragma once

// The decode call and the reads and writes around it, each on a locked context.

#include "casters.h"
#include "handles.h"

#include <optional>
#include <string>
#include <vector>

namespace nextn {

// Checks the arguments, runs llama_decode(), and keeps count of the rows it left. Returns the number of rows of logits.
int64_t decode(const Context & context, const Tokens & tokens, const std::optional<Positions> & positions, SeqId seq_id,
               const std::optional<Hidden> & hidden, const std::string & outputs);

// The rows of the last decode: each throws NextnError when there are none.
Rows logits(const Context & context);
RowsView logits_view(const Context & context);
std::vector<int32_t> argmax(const Context & context);
Rows hidden(const Context & context);
RowsView hidden_view(const Context & context);
Rows embeddings_pre_norm(const Context & context);
RowsView embeddings_pre_norm_view(const Context & context);

void set_embeddings_pre_norm(const Context & context, bool value);
void set_argmax(const Context & context, bool value, bool keep_logits);

bool seq_rm(const Context & context, SeqId seq_id, P0 p0, P1 p1);
bool nextn_seq_rm(const Context & context, SeqId seq_id, P0 p0, P1 p1);
int32_t seq_pos_max(const Context & context, SeqId seq_id);
int32_t seq_pos_min(const Context & context, SeqId seq_id);

// The part of a sequence's state that cannot be cut back to a position: that of the recurrent layers. Empty without
// them.
Bytes save_state(const Context & context, SeqId seq_id);

// Take the sequence back to the n_past tokens after which the state was saved; the attention layers must still hold
// them. False, and nothing changed, when they do not.
bool restore_state(const Context & context, const Bytes & state, int64_t n_past, SeqId seq_id);

int32_t max_rollback(const Context & context, SeqId seq_id);

} // namespace nextn
