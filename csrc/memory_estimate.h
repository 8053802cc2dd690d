#pragma once

// Linux hands out memory it does not have and ends the process when it is used. A context whose caches cannot fit is
// refused before that.

#include "llama.h"

#include <cstdint>

namespace nextn {

// Bytes of the caches, the snapshots and the exported rows of a context: a lower bound of what it will take.
int64_t estimate_context_bytes(const llama_model * model, const llama_context_params & params);

// Bytes this process can still use, the container's limit obeyed; -1 when the system does not say.
int64_t available_memory();

// Whether there is a GPU, here or on a worker. (llama_supports_gpu_offload() is true of every build that knows RPC.)
bool has_gpu();

// Throws ContextCreateError when the engine's scheduler would not get its memory.
void check_work_space(const llama_context_params & params);

// Throws ContextCreateError when the caches cannot fit. Does nothing when they go to a GPU.
void check_memory(const llama_model * model, const llama_context_params & params);

} // namespace nextn
