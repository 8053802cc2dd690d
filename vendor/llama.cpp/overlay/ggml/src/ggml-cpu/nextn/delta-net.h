// The gated delta net for the few tokens of a decode or verify batch: the engine's arithmetic in another order of
// loops.
//
// The engine takes the tokens one by one and walks the whole state of a head, 64 KiB, several times for each. The
// columns of the state do not meet, so here a few of them at a time take all the tokens while they are in the
// first-level cache. The first states are read from the memory, without gathering them first, and those to keep go
// straight to where the graph would copy them. What becomes of a token does not depend on how many there are.
#pragma once

#include "ggml.h"

struct ggml_cgraph;
struct ggml_compute_params;

// Compute a GGML_OP_GATED_DELTA_NET; false when the batch is not narrow and the engine should do it.
bool ggml_nextn_gated_delta_net(const ggml_compute_params * params, ggml_tensor * dst);

namespace nextn {

// As ggml_nextn_recurrent(), with the copy of the states that follows.
int gated_delta_net_and_copy(const ggml_compute_params * params, const ggml_cgraph * graph, int i);

// As ggml_nextn_recurrent(): nothing is to be done for a GGML_OP_GET_ROWS whose states a delta net reads in the memory.
int spare_gathering(const ggml_compute_params * params, const ggml_cgraph * graph, int i);

} // namespace nextn
