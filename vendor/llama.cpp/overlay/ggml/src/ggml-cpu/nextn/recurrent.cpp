#include "recurrent.h"

#include "convolution.h"
#include "delta-net.h"
#include "narrow-kernel.h"

#include "ggml-impl.h"

int ggml_nextn_recurrent(const ggml_compute_params * params, const ggml_cgraph * graph, int i) {
    if (nextn::narrow_level() == 0) {
        return 0;
    }
    switch (graph->nodes[i]->op) {
        case GGML_OP_CONCAT:          return nextn::convolution_inputs_and_copies(params, graph, i);
        case GGML_OP_SSM_CONV:        return nextn::convolution_and_silu(params, graph, i);
        case GGML_OP_GET_ROWS:        return nextn::spare_gathering(params, graph, i);
        case GGML_OP_GATED_DELTA_NET: return nextn::gated_delta_net_and_copy(params, graph, i);
        default:                      return 0;
    }
}
