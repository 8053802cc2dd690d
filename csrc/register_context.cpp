#include "decode.h"
#include "errors.h"
#include "log.h"
#include "model_keys.h"
#include "params.h"
#include "register.h"

#include "../src/llama-ext.h" // llama_get_memory_breakdown
#include "llama-nextn-exact.h"
#include <array>
#include <map>
#include <pybind11/stl.h>

namespace py = pybind11;

namespace nextn {

static llama_nextn_tap to_tap(const std::string & tap) {
    if (tap == "auto") {
        return LLAMA_NEXTN_TAP_AUTO;
    }
    if (tap == "post") {
        return LLAMA_NEXTN_TAP_POST;
    }
    if (tap == "pre") {
        return LLAMA_NEXTN_TAP_PRE;
    }
    throw py::value_error("hidden_tap must be one of 'auto', 'post', 'pre', not '" + tap + "'");
}

static std::unique_ptr<Context> make_context(const Model & model_ref, int64_t n_ctx, int64_t n_batch, int64_t n_ubatch,
                                             int64_t n_seq_max, int64_t n_threads, int64_t n_threads_batch,
                                             const std::string & type_k, const std::string & type_v,
                                             const std::string & flash_attn, int64_t n_rs_seq, bool nextn_draft,
                                             const std::string & hidden_tap, bool offload_kqv,
                                             const std::optional<std::shared_ptr<Imatrix>> & imatrix_ref) {
    const std::shared_ptr<Imatrix> imatrix = imatrix_ref.value_or(nullptr);
    const std::shared_ptr<ModelHandle> model = model_ref.get();
    check_can_compute();
    const llama_nextn_tap tap = to_tap(hidden_tap);
    const llama_context_params params =
        to_context_params(model->model, model->path,
                          {n_ctx, n_batch, n_ubatch, n_seq_max, n_threads, n_threads_batch, type_k, type_v, flash_attn,
                           n_rs_seq, nextn_draft, offload_kqv, imatrix});
    const LogCapture log;
    llama_context * ctx = llama_init_from_model(model->model, params);
    if (!ctx) {
        throw_context_error(log.reason());
    }
    const auto handle = std::make_shared<ContextHandle>(ctx, model, params);
    handle->keep = imatrix;
    if (handle->is_recurrent && llama_n_rs_seq(ctx) < params.n_rs_seq) {
        throw Error(ErrorKind::ContextCreate, "the engine keeps no snapshots of the recurrent layers of " +
                                                  meta_architecture(model->model) + "; only n_rs_seq=0 is possible");
    }
    llama_set_nextn_tap(ctx, tap);
    if (nextn_draft || llama_model_has_nextn_layer(model->model)) {
        handle->export_hidden();
    }
    return std::make_unique<Context>(handle);
}

static void set_hidden_tap(const Context & context_ref, const std::string & tap) {
    const LockedContext context(context_ref);
    llama_set_nextn_tap(context->ctx, to_tap(tap));
}

static std::string hidden_tap(const Context & context_ref) {
    const LockedContext context(context_ref);
    return llama_get_nextn_tap(context->ctx) == LLAMA_NEXTN_TAP_PRE ? "pre" : "post";
}

static std::map<std::string, size_t> memory_usage(const Context & context_ref) {
    const LockedContext context(context_ref);
    std::map<std::string, size_t> bytes = {{"model", 0}, {"context", 0}, {"compute", 0}};
    for (const auto & [buft, part] : llama_get_memory_breakdown(context->ctx)) {
        bytes["model"] += part.model;
        bytes["context"] += part.context;
        bytes["compute"] += part.compute;
    }
    return bytes;
}

// Why a batch of n_tokens may differ from one token at a time; nothing when it cannot.
static std::optional<std::string> inexact(const Context & context_ref, int64_t n_tokens) {
    const LockedContext context(context_ref);
    check_range("n_tokens", n_tokens, 1, llama_n_ubatch(context->ctx));
    std::array<char, 512> why = {};
    if (llama_nextn_is_exact(context->ctx, static_cast<int32_t>(n_tokens), why.data(), why.size())) {
        return std::nullopt;
    }
    return std::string(why.data());
}

// A number of the engine context, under its lock.
template <auto get>
static int64_t number(const Context & context_ref) {
    const LockedContext context(context_ref);
    return get(context->ctx);
}

static void def_decode(py::class_<Context> & c) {
    c.def("decode", &decode, py::arg("tokens"), py::kw_only(), py::arg("positions") = py::none(), py::arg("seq_id") = 0,
          py::arg("hidden") = py::none(), py::arg("outputs") = "all", nogil(),
          "Append tokens [n_tokens] to a sequence; hidden is float32 [n_tokens, n_embd]. Returns the number of rows of "
          "logits.");
    c.def(
        "abort", [](const Context & context) { context.get()->abort_requested = true; },
        "Make the decode that runs in another thread stop.");
    c.def(
        "halt", [](const Context & context, bool value) { context.get()->halted = value; }, py::arg("value"),
        "Make the running decode stop, and every later one too, until it is called with False.");
    c.def("logits", &logits, nogil(), "Copy, float32 [n_outputs, n_vocab].");
    c.def("logits_view", &logits_view, nogil(), "Read-only view, float32 [n_outputs, n_vocab].");
    c.def("set_argmax", &set_argmax, py::arg("value"), py::arg("keep_logits") = false, nogil(),
          "Search the arg-max of each row of logits in the graph, from the next decode on.");
    c.def("argmax", &argmax, nogil(), "Token ids [n_outputs]; of equal logits the lowest id.");
    c.def("hidden", &hidden, nogil(), "Copy, float32 [n_tokens, n_embd].");
    c.def("hidden_view", &hidden_view, nogil(), "Read-only view, float32 [n_tokens, n_embd].");
    c.def("set_embeddings_pre_norm", &set_embeddings_pre_norm, py::arg("value"), nogil(),
          "Export the rows before the final norm, from the next decode on.");
    c.def("embeddings_pre_norm", &embeddings_pre_norm, nogil(), "Copy, float32 [n_tokens, n_embd].");
    c.def("embeddings_pre_norm_view", &embeddings_pre_norm_view, nogil(),
          "Read-only view, float32 [n_tokens, n_embd].");
}

static void def_memory(py::class_<Context> & c) {
    c.def("seq_rm", &seq_rm, py::arg("seq_id"), py::arg("p0"), py::arg("p1"), nogil(), "The engine's plain call.");
    c.def("nextn_seq_rm", &nextn_seq_rm, py::arg("seq_id"), py::arg("p0"), py::arg("p1"), nogil(),
          "Remove [p0, p1) from the target and its draft context, or from neither.");
    c.def("seq_pos_max", &seq_pos_max, py::arg("seq_id") = 0, nogil(), "Largest position, -1 when empty.");
    c.def("seq_pos_min", &seq_pos_min, py::arg("seq_id") = 0, nogil(), "Smallest position, -1 when empty.");
    c.def("max_rollback", &max_rollback, py::arg("seq_id") = 0, nogil(), "Newest tokens that can be taken back.");
    c.def("save_state", &save_state, py::arg("seq_id") = 0, nogil(),
          "State of the recurrent layers; empty without them.");
    c.def("restore_state", &restore_state, py::arg("state"), py::arg("n_past"), py::arg("seq_id") = 0, nogil(),
          "Back to the n_past tokens after which it was saved. False, and nothing changed, when that is not possible.");
    c.def("pair", &pair_contexts, py::arg("draft_context"), nogil(), "Pair with a draft context.");
    c.def("unpair", &unpair_context, nogil(), "End the pairing, if there is one.");
    c.def("set_hidden_tap", &set_hidden_tap, py::arg("tap"), nogil(), "Choose the row that feeds the head.");
    c.def("inexact", &inexact, py::arg("n_tokens"), nogil(),
          "Why a batch of n_tokens may differ from one token at a time; None when it cannot.");
    c.def("memory_usage", &memory_usage, nogil(), "Bytes by kind.");
}

static void def_numbers(py::class_<Context> & c) {
    c.def_property_readonly("n_ctx", py::cpp_function(&number<llama_n_ctx>, nogil()));
    c.def_property_readonly("n_ctx_seq", py::cpp_function(&number<llama_n_ctx_seq>, nogil()));
    c.def_property_readonly("n_batch", py::cpp_function(&number<llama_n_batch>, nogil()));
    c.def_property_readonly("n_ubatch", py::cpp_function(&number<llama_n_ubatch>, nogil()));
    c.def_property_readonly("n_seq_max", py::cpp_function(&number<llama_n_seq_max>, nogil()));
    c.def_property_readonly("n_rs_seq", py::cpp_function(&number<llama_n_rs_seq>, nogil()));
    c.def_property_readonly("n_threads", py::cpp_function(&number<llama_n_threads>, nogil()));
    c.def_property_readonly("n_threads_batch", py::cpp_function(&number<llama_n_threads_batch>, nogil()));
    c.def_property_readonly("n_graph_builds", py::cpp_function(&number<llama_nextn_n_graph_builds>, nogil()));
    c.def_property_readonly("n_graph_reuses", py::cpp_function(&number<llama_nextn_n_graph_reuses>, nogil()));
    c.def_property_readonly("hidden_tap", py::cpp_function(&hidden_tap, nogil()));
    c.def_property_readonly("is_draft", [](const Context & context) { return context.get()->is_draft; });
    c.def_property_readonly("closed", &Context::closed);
}

void register_context(py::module_ & m) {
    py::class_<Context> c(m, "Context", "State of sequences over a model, and the decode call.");
    c.def(init_nogil(&make_context), py::arg("model"), py::kw_only(), py::arg("n_ctx"), py::arg("n_batch"),
          py::arg("n_ubatch"), py::arg("n_seq_max"), py::arg("n_threads"), py::arg("n_threads_batch"),
          py::arg("type_k"), py::arg("type_v"), py::arg("flash_attn"), py::arg("n_rs_seq"), py::arg("nextn_draft"),
          py::arg("hidden_tap"), py::arg("offload_kqv"), py::arg("imatrix"), nogil());
    c.def("close", &Context::close, nogil(), "Free it, after a running decode.");
    def_decode(c);
    def_memory(c);
    def_numbers(c);
}

} // namespace nextn
