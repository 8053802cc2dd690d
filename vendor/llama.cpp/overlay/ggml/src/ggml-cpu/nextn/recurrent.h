// The recurrent layers of a decode or verify batch: operations that are computed together with what follows them in the
// graph, so that states go straight to the memory and no thread waits for work that could be shared.
#pragma once

#include "ggml.h"

struct ggml_cgraph;
struct ggml_compute_params;

#ifdef __cplusplus
extern "C" {
#endif

// Compute node i of a graph and the nodes behind it that belong to it. Returns the number of those; -1 when there are
// none, 0 when nothing was done and the engine should compute the node.
int ggml_nextn_recurrent(const struct ggml_compute_params * params, const struct ggml_cgraph * graph, int i);

#ifdef __cplusplus
}
#endif
