// The gated delta net for the 1 to 9 tokens of a decode or verify batch: the engine's arithmetic in another order of
// loops.
//
// The engine takes the tokens one by one and walks the whole state of a head, 64 KiB, several times for each. The
// columns of the state do not meet, so here each one takes all the tokens while it is in the first-level cache, and
// goes from there into the snapshots. The bits are the same.
#pragma once

#include "ggml.h"

struct ggml_compute_params;

// Compute heads [ir0, ir1) of GGML_OP_GATED_DELTA_NET; false when the batch is not narrow and the engine should do it.
bool ggml_nextn_gated_delta_net(const ggml_compute_params * params, ggml_tensor * dst, int64_t ir0, int64_t ir1);
