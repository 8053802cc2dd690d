#include "llama-nextn-exact.h"

#include "ggml-nextn.h"

#include "llama-context.h"
#include "llama-memory.h"

#include "ggml-backend.h"

#include <cstdio>
#include <string>

template <typename F>
static F find_function(ggml_backend_dev_t device, const char * name) {
    ggml_backend_reg_t reg = device ? ggml_backend_dev_backend_reg(device) : nullptr;
    return reg ? (F) ggml_backend_reg_get_proc_address(reg, name) : nullptr;
}

static const char * inexact(const ggml_tensor * op, ggml_backend_dev_t device) {
    const auto ask = find_function<ggml_nextn_inexact_t>(device, "ggml_nextn_inexact");
    return ask ? ask(op) : "only the CPU's kernels are proven to be exact";
}

// The operation with its weight, or with the memory that it reads: what a reader can find in the file or in the
// options.
static std::string describe(const ggml_tensor * op, ggml_backend_dev_t device) {
    std::string text = ggml_op_name(op->op);
    for (int i = op->op == GGML_OP_FLASH_ATTN_EXT ? 1 : 0; i < GGML_MAX_SRC && op->src[i]; ++i) {
        const ggml_tensor * source = op->src[i]->view_src ? op->src[i]->view_src : op->src[i];
        if (source->buffer && source->op == GGML_OP_NONE && !(source->flags & GGML_TENSOR_FLAG_INPUT)) {
            text += std::string(" of ") + ggml_get_name(source) + " (" + ggml_type_name(source->type) + " in " +
                    ggml_backend_buffer_name(source->buffer) + " memory)";
            break;
        }
    }
    return text + " on " + (device ? ggml_backend_dev_name(device) : "an unknown device");
}

bool llama_nextn_is_exact(llama_context * ctx, int32_t n_tokens, char * why, size_t n_why) {
    ctx->synchronize();
    const auto           memory = ctx->get_memory() ? ctx->get_memory()->init_full() : nullptr;
    ggml_backend_sched_t sched  = ctx->get_sched();
    ggml_cgraph *        graph  = ctx->graph_reserve(n_tokens, 1, n_tokens, memory.get(), /*split_only =*/true);

    std::string found = graph ? "" : "the graph of the batch could not be built";
    for (int i = 0; graph && found.empty() && i < ggml_graph_n_nodes(graph); ++i) {
        ggml_tensor *      op      = ggml_graph_node(graph, i);
        ggml_backend_t     backend = ggml_backend_sched_get_tensor_backend(sched, op);
        ggml_backend_dev_t device  = backend ? ggml_backend_get_device(backend) : nullptr;
        if (ggml_is_empty(op)) {
            continue;
        }
        if (const char * reason = inexact(op, device)) {
            found = describe(op, device) + ": " + reason;
        }
    }
    ggml_backend_sched_reset(sched);
    if (why && n_why > 0) {
        snprintf(why, n_why, "%s", found.c_str());
    }
    return found.empty();
}

bool llama_nextn_shares_columns(ggml_type type) {
    const auto ask = find_function<ggml_nextn_shares_columns_t>(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU),
                                                                "ggml_nextn_shares_columns");
    return ask && ask(type);
}
