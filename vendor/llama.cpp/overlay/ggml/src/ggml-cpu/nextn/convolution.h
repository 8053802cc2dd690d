// The convolution of a recurrent layer for the few tokens of a decode or verify batch.
//
// The engine makes its inputs with one thread, copies the inputs that a rollback may need with an operation for each
// token, and walks them channel by channel for every token. Here the threads share the channels, a channel's inputs go
// to all of their places at once, and sixteen channels are computed side by side: the same sums in the same order.
#pragma once

#include "ggml.h"

struct ggml_cgraph;
struct ggml_compute_params;

namespace nextn {

// As ggml_nextn_recurrent(): the older inputs of each channel and those of the tokens side by side, and the copies of
// parts of them to the memory that follow.
int convolution_inputs_and_copies(const ggml_compute_params * params, const ggml_cgraph * graph, int i);

// As ggml_nextn_recurrent(): the convolution and its activation.
int convolution_and_silu(const ggml_compute_params * params, const ggml_cgraph * graph, int i);

} // namespace nextn
