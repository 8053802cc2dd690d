#pragma once

// Sizes of a model that the engine's public API does not give, from its metadata.

#include "llama.h"

#include <cstdint>
#include <string>

namespace nextn {

// An integer key of the file; the fallback when it is absent or no plain number.
int64_t meta_int(const llama_model * model, const std::string & key, int64_t fallback);

// general.architecture; "" when absent.
std::string meta_architecture(const llama_model * model);

struct AttentionKeys {
    int64_t n_head_kv;
    int64_t n_embd_head_k;
    int64_t n_embd_head_v;
    int64_t interval; // every n-th layer of the trunk is an attention layer, the others are recurrent
};

// Floats of one recurrent layer's state, for one sequence and one snapshot; 0 for models without such layers.
int64_t recurrent_state_size(const llama_model * model);

AttentionKeys attention_keys(const llama_model * model);

} // namespace nextn
