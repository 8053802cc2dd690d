#include "model_keys.h"

#include <algorithm>
#include <cstdlib>

namespace nextn {

static bool meta_text(const llama_model * model, const char * key, std::string & value) {
    const int32_t n = llama_model_meta_val_str(model, key, nullptr, 0);
    if (n < 0) {
        return false;
    }
    value.resize(static_cast<size_t>(n) + 1);
    llama_model_meta_val_str(model, key, value.data(), value.size());
    value.resize(n);
    return true;
}

int64_t meta_int(const llama_model * model, const std::string & key, int64_t fallback) {
    std::string text;
    if (!meta_text(model, key.c_str(), text) || text.empty()) {
        return fallback;
    }
    char * end = nullptr;
    const long long value = std::strtoll(text.c_str(), &end, 10);
    return *end == '\0' ? value : fallback;
}

std::string meta_architecture(const llama_model * model) {
    std::string text;
    meta_text(model, "general.architecture", text);
    return text;
}

int64_t recurrent_state_size(const llama_model * model) {
    if (!llama_model_is_hybrid(model) && !llama_model_is_recurrent(model)) {
        return 0;
    }
    const std::string ssm = meta_architecture(model) + ".ssm.";
    const int64_t n_conv = std::max<int64_t>(1, meta_int(model, ssm + "conv_kernel", 1));
    const int64_t n_inner = meta_int(model, ssm + "inner_size", 0);
    const int64_t n_state = meta_int(model, ssm + "state_size", 0);
    const int64_t n_group = meta_int(model, ssm + "group_count", 0);
    return (n_conv - 1) * (n_inner + 2 * n_group * n_state) + n_state * n_inner;
}

AttentionKeys attention_keys(const llama_model * model) {
    const std::string arch = meta_architecture(model);
    const int64_t n_embd_head = llama_model_n_embd(model) / std::max<int64_t>(1, llama_model_n_head(model));

    AttentionKeys keys = {};
    keys.n_head_kv = meta_int(model, arch + ".attention.head_count_kv", std::max(1, llama_model_n_head_kv(model)));
    keys.n_embd_head_k = meta_int(model, arch + ".attention.key_length", n_embd_head);
    keys.n_embd_head_v = meta_int(model, arch + ".attention.value_length", n_embd_head);
    // upstream's loaders take 4 when a hybrid Qwen file does not say
    keys.interval = meta_int(model, arch + ".full_attention_interval", llama_model_is_hybrid(model) ? 4 : 1);
    keys.interval = std::max<int64_t>(1, keys.interval);
    return keys;
}

} // namespace nextn
