#include "memory_estimate.h"

#include "errors.h"
#include "model_keys.h"

#include <algorithm>
#include <fstream>
#include <string>

namespace nextn {

int64_t estimate_context_bytes(const llama_model * model, const llama_context_params & params) {
    const AttentionKeys keys = attention_keys(model);
    const int64_t n_layer = params.nextn_draft ? 1 : (llama_model_n_layer(model) + keys.interval - 1) / keys.interval;
    const auto row = [&](ggml_type type, int64_t n_embd_head) {
        const int64_t n_block = (n_embd_head + ggml_blck_size(type) - 1) / ggml_blck_size(type);
        return keys.n_head_kv * n_block * static_cast<int64_t>(ggml_type_size(type));
    };
    const int64_t per_token =
        n_layer * (row(params.type_k, keys.n_embd_head_k) + row(params.type_v, keys.n_embd_head_v));

    // the context is divided among the sequences, each part rounded up to 256
    const int64_t n_ctx_seq = (static_cast<int64_t>(params.n_ctx) / params.n_seq_max + 255) / 256 * 256;
    const int64_t n_batch = std::min<int64_t>(params.n_batch, params.n_ctx);
    return n_ctx_seq * params.n_seq_max * per_token + n_batch * llama_model_n_embd(model) * 4;
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

void check_memory(const llama_model * model, const llama_context_params & params) {
    if (params.offload_kqv && llama_supports_gpu_offload()) {
        return;
    }
    const int64_t needed = estimate_context_bytes(model, params);
    const int64_t available = available_memory();
    if (available < 0 || needed <= available) {
        return;
    }
    const double gib = 1024.0 * 1024.0 * 1024.0;
    throw Error(ErrorKind::ContextCreate,
                strf("n_ctx=%u needs at least %.1f GiB for the caches, %.1f GiB are available; a smaller n_ctx, fewer "
                     "sequences or a quantized type_k and type_v need less",
                     params.n_ctx, needed / gib, available / gib));
}

} // namespace nextn
