#pragma once

// Options of a context, checked before the engine sees them: it would assert on some of these.

#include "imatrix.h"
#include "llama.h"

#include <cstdint>
#include <memory>
#include <string>

namespace nextn {

struct ContextOptions {
    int64_t n_ctx;
    int64_t n_batch;
    int64_t n_ubatch;
    int64_t n_seq_max;
    int64_t n_threads;
    int64_t n_threads_batch;
    std::string type_k;
    std::string type_v;
    std::string flash_attn; // "auto", "on" or "off"
    int64_t n_rs_seq;
    bool nextn_draft;
    bool offload_kqv;
    std::shared_ptr<Imatrix> imatrix; // collects what this context computes; may be null
};

// Throws ValueError for an option out of its range, NoNextnLayerError or ContextCreateError for a context that this
// model or this machine cannot have.
llama_context_params to_context_params(const llama_model * model, const std::string & path,
                                       const ContextOptions & options);

} // namespace nextn
