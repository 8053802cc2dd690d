#include "memory_estimate.h"

#include "../src/llama-ext.h" // llama_model_n_devices

#include "errors.h"
#include "model_keys.h"

#include "ggml-backend.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>

namespace nextn {

int64_t estimate_context_bytes(const llama_model * model, const llama_context_params & params) {
    const AttentionKeys keys = attention_keys(model);
    const int64_t n_trunk = llama_model_n_layer(model);
    const int64_t n_layer = params.nextn_draft ? 1 : std::max<int64_t>(1, n_trunk / keys.interval);
    const auto row = [&](ggml_type type, int64_t n_embd_head) {
        const int64_t n_block = (n_embd_head + ggml_blck_size(type) - 1) / ggml_blck_size(type);
        return keys.n_head_kv * n_block * static_cast<int64_t>(ggml_type_size(type));
    };
    const int64_t per_token =
        n_layer * (row(params.type_k, keys.n_embd_head_k) + row(params.type_v, keys.n_embd_head_v));

    // the context is divided among the sequences, each part rounded up to 256
    const int64_t n_ctx_seq = (static_cast<int64_t>(params.n_ctx) / params.n_seq_max + 255) / 256 * 256;
    const int64_t n_batch = std::min<int64_t>(params.n_batch, params.n_ctx);
    const int64_t n_snapshot = params.nextn_draft ? 0 : 1 + static_cast<int64_t>(params.n_rs_seq);
    const int64_t recurrent = (n_trunk - n_layer) * recurrent_state_size(model) * n_snapshot;
    return params.n_seq_max * (n_ctx_seq * per_token + recurrent * 4) + n_batch * llama_model_n_embd(model) * 4;
}

static int64_t read_number(const char * path) {
    std::ifstream file(path);
    int64_t value = -1;
    return file >> value ? value : -1; // "max" is no number
}

static int64_t mem_available() {
    std::ifstream file("/proc/meminfo");
    std::string name;
    int64_t kib = 0;
    while (file >> name >> kib) {
        if (name == "MemAvailable:") {
            return kib * 1024;
        }
        file.ignore(64, '\n');
    }
    return -1;
}

int64_t available_memory() {
    int64_t available = mem_available();
    for (const char * path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
        const int64_t limit = read_number(path);
        if (limit > 0 && (available < 0 || limit < available)) {
            available = limit;
        }
    }
    return available;
}

bool has_gpu() {
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU) ||
           ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_IGPU);
}

static constexpr double gib = 1024.0 * 1024.0 * 1024.0;

// The engine's scheduler takes this for each token of a ubatch (40 graph nodes, some 64 tensor headers each), all at
// once, and asserts that it got it. Most of it is never touched.
static constexpr size_t bytes_per_ubatch_token = 40 * 64 * sizeof(ggml_tensor);

void check_work_space(const llama_context_params & params) {
    const size_t n_ubatch = std::min({params.n_ctx, params.n_batch, params.n_ubatch});
    const size_t needed = n_ubatch * bytes_per_ubatch_token;
    const std::unique_ptr<void, void (*)(void *)> probe(std::malloc(needed), std::free);
    if (!probe) {
        throw Error(
            ErrorKind::ContextCreate,
            strf("n_ubatch=%zu needs %.1f GiB of work space, which this machine does not give; a smaller n_ubatch "
                 "needs less",
                 n_ubatch, needed / gib));
    }
}

void check_memory(const llama_model * model, const llama_context_params & params) {
    if (params.offload_kqv && llama_model_n_devices(model) > 0) { // GPUs or workers hold it
        return;
    }
    const int64_t needed = estimate_context_bytes(model, params);
    const int64_t available = available_memory();
    if (available < 0 || needed <= available) {
        return;
    }
    throw Error(
        ErrorKind::ContextCreate,
        strf(
            "n_ctx=%u, n_seq_max=%u and n_rs_seq=%u need at least %.1f GiB, %.1f GiB are available; smaller ones, or a "
            "quantized type_k and type_v, need less",
            params.n_ctx, params.n_seq_max, params.n_rs_seq, needed / gib, available / gib));
}

} // namespace nextn
