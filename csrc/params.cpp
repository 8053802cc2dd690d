#include "params.h"

#include "errors.h"
#include "llama-nextn.h"
#include "memory_estimate.h"
#include "model_keys.h"

#include <algorithm>
#include <array>
#include <climits>
#include <utility>

namespace py = pybind11;

namespace nextn {

// The types that the engine's attention kernels read from a cache.
static constexpr std::array<std::pair<const char *, ggml_type>, 9> cache_types = {{
    {"f32", GGML_TYPE_F32},
    {"f16", GGML_TYPE_F16},
    {"bf16", GGML_TYPE_BF16},
    {"q8_0", GGML_TYPE_Q8_0},
    {"q5_1", GGML_TYPE_Q5_1},
    {"q5_0", GGML_TYPE_Q5_0},
    {"q4_1", GGML_TYPE_Q4_1},
    {"q4_0", GGML_TYPE_Q4_0},
    {"iq4_nl", GGML_TYPE_IQ4_NL},
}};

static ggml_type to_cache_type(const char * name, const std::string & value) {
    std::string known;
    for (const auto & [text, type] : cache_types) {
        if (value == text) {
            return type;
        }
        known += std::string(known.empty() ? "'" : ", '") + text + "'";
    }
    throw py::value_error(std::string(name) + " must be one of " + known + ", not '" + value + "'");
}

static llama_flash_attn_type to_flash_attn(const std::string & value) {
    if (value == "auto") {
        return LLAMA_FLASH_ATTN_TYPE_AUTO;
    }
    if (value == "on") {
        return LLAMA_FLASH_ATTN_TYPE_ENABLED;
    }
    if (value == "off") {
        return LLAMA_FLASH_ATTN_TYPE_DISABLED;
    }
    throw py::value_error("flash_attn must be one of 'auto', True, False, not '" + value + "'");
}

static void check_ranges(const ContextOptions & options) {
    check_range("n_ctx", options.n_ctx, 0, INT32_MAX - 255); // the engine rounds up to a multiple of 256
    check_range("n_batch", options.n_batch, 1, INT32_MAX);
    check_range("n_ubatch", options.n_ubatch, 1, INT32_MAX);
    check_range("n_seq_max", options.n_seq_max, 1, static_cast<int64_t>(llama_max_parallel_sequences()));
    check_range("n_threads", options.n_threads, 1, GGML_MAX_N_THREADS);
    check_range("n_threads_batch", options.n_threads_batch, 1, GGML_MAX_N_THREADS);
    check_range("n_rs_seq", options.n_rs_seq, 0, 1024);
}

// The engine keeps room for one row of logits per sequence, within a batch.
static void check_sequences(const llama_context_params & params) {
    const uint32_t n_batch = std::min(params.n_ctx, params.n_batch);
    if (params.n_seq_max > n_batch) {
        throw py::value_error(strf("n_seq_max must be at most %u with n_ctx=%u and n_batch=%u, not %u", n_batch,
                                   params.n_ctx, params.n_batch, params.n_seq_max));
    }
}

// A quantized cache stores blocks: a head must be a whole number of them.
static void check_head(const char * name, ggml_type type, int64_t n_embd_head) {
    const int64_t block = ggml_blck_size(type);
    if (n_embd_head % block != 0) {
        throw Error(ErrorKind::ContextCreate,
                    strf("%s=\"%s\" stores blocks of %lld values, which do not divide this model's heads of %lld; use "
                         "\"f16\"",
                         name, ggml_type_name(type), static_cast<long long>(block),
                         static_cast<long long>(n_embd_head)));
    }
}

static void check_cache(const llama_model * model, const llama_context_params & params) {
    const AttentionKeys keys = attention_keys(model);
    check_head("type_k", params.type_k, keys.n_embd_head_k);
    check_head("type_v", params.type_v, keys.n_embd_head_v);
    if (ggml_is_quantized(params.type_v) && params.flash_attn_type == LLAMA_FLASH_ATTN_TYPE_DISABLED) {
        throw Error(ErrorKind::ContextCreate,
                    std::string("type_v=\"") + ggml_type_name(params.type_v) +
                        "\" needs flash attention; leave flash_attn at \"auto\" or use \"f16\"");
    }
}

// The newest tokens of a batch stay together in one ubatch, so that all their snapshots are kept; the engine asserts
// it.
static void check_snapshots(const llama_context_params & params) {
    const uint32_t n_ubatch = std::min(params.n_batch, params.n_ubatch);
    if (params.n_rs_seq > 0 && n_ubatch < params.n_rs_seq + 2) {
        throw py::value_error(strf("n_rs_seq must be at most %d with n_ubatch=%u and n_batch=%u, not %u",
                                   std::max(0, static_cast<int>(n_ubatch) - 2), params.n_ubatch, params.n_batch,
                                   params.n_rs_seq));
    }
}

static void check_refusal(const llama_model * model, const std::string & path, const llama_context_params & params) {
    const char * refusal = llama_nextn_refusal(model, params);
    if (!refusal) {
        return;
    }
    if (params.nextn_draft) {
        throw Error(ErrorKind::NoNextnLayer,
                    path + ": " + refusal +
                        "; nextn inspect FILE lists what a file has, and load_nextn=True loads the "
                        "layer");
    }
    throw Error(ErrorKind::ContextCreate, path + ": " + refusal + "; make the context with nextn_draft=True");
}

llama_context_params to_context_params(const llama_model * model, const std::string & path,
                                       const ContextOptions & options) {
    check_ranges(options);
    llama_context_params params = llama_context_default_params();
    params.n_ctx = options.n_ctx > 0 ? options.n_ctx : llama_model_n_ctx_train(model);
    params.n_ctx = (params.n_ctx + 255) / 256 * 256; // as the engine does, but before it limits the batch to it
    params.n_batch = options.n_batch;
    params.n_ubatch = options.n_ubatch;
    params.n_seq_max = options.n_seq_max;
    params.n_rs_seq = options.nextn_draft ? 0 : options.n_rs_seq;
    params.n_threads = options.n_threads;
    params.n_threads_batch = options.n_threads_batch;
    params.type_k = to_cache_type("type_k", options.type_k);
    params.type_v = to_cache_type("type_v", options.type_v);
    params.flash_attn_type = to_flash_attn(options.flash_attn);
    params.offload_kqv = options.offload_kqv;
    params.nextn_draft = options.nextn_draft;
    params.no_perf = true;
    if (options.imatrix) {
        params.cb_eval = Imatrix::on_node;
        params.cb_eval_user_data = options.imatrix.get();
    }

    check_refusal(model, path, params);
    check_sequences(params);
    check_snapshots(params);
    check_cache(model, params);
    check_memory(model, params);
    check_work_space(params);
    return params;
}

} // namespace nextn
