#include "casters.h"
#include "errors.h"
#include "log.h"
#include "model_keys.h"
#include "register.h"
#include "workers.h"

#include <array>
#include <climits>
#include <exception>
#include <optional>
#include <pybind11/stl.h>
#include <pybind11/typing.h>
#include <set>

namespace py = pybind11;

namespace nextn {

//
// loading
//

using ProgressCallback = py::typing::Callable<py::object(py::float_)>;

// Called by the engine from the loading thread, without the GIL.
struct Progress {
    const std::optional<ProgressCallback> & callback;
    std::exception_ptr thrown = nullptr;
    bool cancelled = false;

    static bool report(float share, void * self) { return static_cast<Progress *>(self)->keep_on(share); }

    bool keep_on(float share) {
        if (left_behind()) {
            cancelled = true;
        } else if (auto raised = run_signal_handlers()) {
            thrown = raised;
        } else if (callback) {
            call(share);
        }
        return !cancelled && !thrown;
    }

    void call(float share) {
        const py::gil_scoped_acquire gil;
        try {
            const py::object answer = (*callback)(share);
            cancelled = answer.is(py::bool_(false));
        } catch (...) {
            thrown = std::current_exception();
        }
    }
};

static llama_load_mode to_load_mode(bool use_mmap, bool use_mlock) {
    if (use_mmap) {
        return use_mlock ? LLAMA_LOAD_MODE_MMAP_MLOCK : LLAMA_LOAD_MODE_MMAP;
    }
    return use_mlock ? LLAMA_LOAD_MODE_MLOCK : LLAMA_LOAD_MODE_NONE;
}

static std::unique_ptr<Model> load_model(const Bytes & path_bytes, int64_t n_gpu_layers, bool use_mmap, bool use_mlock,
                                         bool check_tensors, bool load_nextn,
                                         const std::vector<std::string> & rpc_servers,
                                         const std::optional<ProgressCallback> & progress) {
    const std::string & path = path_bytes.value;
    check_range("n_gpu_layers", n_gpu_layers, -1, INT32_MAX);
    check_is_gguf(path);

    Workers workers(rpc_servers);
    Progress reporter = {progress};
    llama_model_params params = llama_model_default_params();
    params.n_gpu_layers = static_cast<int32_t>(n_gpu_layers);
    params.load_mode = to_load_mode(use_mmap, use_mlock);
    params.check_tensors = check_tensors;
    params.load_mtp = load_nextn;
    params.devices = workers.devices();
    params.progress_callback = Progress::report;
    params.progress_callback_user_data = &reporter;
    const LogCapture log;
    llama_model * model = llama_model_load_from_file(path.c_str(), params);
    if (model) {
        return std::make_unique<Model>(std::make_shared<ModelHandle>(model, path));
    }
    if (reporter.thrown) {
        std::rethrow_exception(reporter.thrown);
    }
    if (reporter.cancelled) {
        throw Error(ErrorKind::ModelFile, path + ": loading was cancelled");
    }
    throw_load_error(path, log.reason());
}

//
// vocabulary
//

static void check_size(const char * name, size_t size) {
    if (size > INT32_MAX / 4) {
        throw py::value_error(strf("%s is too long: %zu, at most %d", name, size, INT32_MAX / 4));
    }
}

static llama_token check_token(const ModelHandle & model, const char * name, int64_t token) {
    check_range(name, token, 0, model.n_vocab() - 1);
    return static_cast<llama_token>(token);
}

static std::vector<llama_token> tokenize(const Model & model_ref, const Bytes & text_bytes, bool add_special,
                                         bool parse_special) {
    const auto model = model_ref.get();
    const std::string & text = text_bytes.value;
    check_size("text", text.size());
    const auto n_text = static_cast<int32_t>(text.size());
    std::vector<llama_token> tokens(n_text + 8);
    int32_t n = llama_tokenize(model->vocab, text.data(), n_text, tokens.data(), static_cast<int32_t>(tokens.size()),
                               add_special, parse_special);
    if (n < 0 && n != INT32_MIN) {
        tokens.resize(-n);
        n = llama_tokenize(model->vocab, text.data(), n_text, tokens.data(), static_cast<int32_t>(tokens.size()),
                           add_special, parse_special);
    }
    if (n < 0) {
        throw Error(ErrorKind::Nextn, "the text cannot be tokenized: too many tokens");
    }
    tokens.resize(n);
    return tokens;
}

static Bytes detokenize(const Model & model_ref, const Tokens & tokens, bool remove_special, bool unparse_special) {
    const auto model = model_ref.get();
    check_size("tokens", tokens.values.size());
    check_tokens(*model, tokens.values);
    const auto n_tokens = static_cast<int32_t>(tokens.values.size());
    std::string text(8 * tokens.values.size() + 16, '\0');
    int32_t n = llama_detokenize(model->vocab, tokens.values.data(), n_tokens, text.data(),
                                 static_cast<int32_t>(text.size()), remove_special, unparse_special);
    if (n < 0) {
        text.resize(-n);
        n = llama_detokenize(model->vocab, tokens.values.data(), n_tokens, text.data(),
                             static_cast<int32_t>(text.size()), remove_special, unparse_special);
    }
    text.resize(std::max(0, n));
    return {text};
}

static Bytes token_to_piece(const Model & model_ref, Token token, bool special) {
    const auto model = model_ref.get();
    const llama_token id = check_token(*model, Token::name, token.value);
    std::string piece(64, '\0');
    int32_t n = llama_token_to_piece(model->vocab, id, piece.data(), static_cast<int32_t>(piece.size()), 0, special);
    if (n < 0) {
        piece.resize(-n);
        n = llama_token_to_piece(model->vocab, id, piece.data(), static_cast<int32_t>(piece.size()), 0, special);
    }
    piece.resize(std::max(0, n));
    return {piece};
}

static bool is_eog(const Model & model_ref, Token token) {
    const auto model = model_ref.get();
    return llama_vocab_is_eog(model->vocab, check_token(*model, Token::name, token.value));
}

static std::set<llama_token> eog_tokens(const Model & model_ref) {
    const auto model = model_ref.get();
    std::set<llama_token> tokens;
    for (llama_token id = 0; id < model->n_vocab(); ++id) {
        if (llama_vocab_is_eog(model->vocab, id)) {
            tokens.insert(id);
        }
    }
    return tokens;
}

static std::optional<llama_token> to_optional(llama_token token) {
    return token == LLAMA_TOKEN_NULL ? std::nullopt : std::optional(token);
}

//
// registration
//

static void def_vocabulary(py::class_<Model> & c) {
    c.def("tokenize", &tokenize, py::arg("text"), py::kw_only(), py::arg("add_special"), py::arg("parse_special"),
          nogil(), "Split UTF-8 text into tokens.");
    c.def("detokenize", &detokenize, py::arg("tokens"), py::kw_only(), py::arg("remove_special"),
          py::arg("unparse_special"), nogil(), "Join tokens into UTF-8 text.");
    c.def("token_to_piece", &token_to_piece, py::arg("token"), py::kw_only(), py::arg("special"),
          "The bytes of a token.");
    c.def("is_eog", &is_eog, py::arg("token"), "Whether the token ends a generation.");
    c.def("eog_tokens", &eog_tokens, nogil(), "Every token that ends a generation.");
    c.def_property_readonly("bos_token", [](const Model & m) { return to_optional(llama_vocab_bos(m.get()->vocab)); });
    c.def_property_readonly("eos_token", [](const Model & m) { return to_optional(llama_vocab_eos(m.get()->vocab)); });
    c.def_property_readonly("n_vocab", [](const Model & m) { return m.get()->n_vocab(); });
}

// A number of the engine model.
template <auto get>
static int64_t number(const Model & model) {
    return static_cast<int64_t>(get(model.get()->model));
}

static void def_properties(py::class_<Model> & c) {
    c.def_property_readonly("n_layer", &number<llama_model_n_layer>);
    c.def_property_readonly("n_layer_nextn", &number<llama_model_n_layer_nextn>);
    c.def_property_readonly("n_embd", &number<llama_model_n_embd>);
    c.def_property_readonly("n_ctx_train", &number<llama_model_n_ctx_train>);
    c.def_property_readonly("n_params", &number<llama_model_n_params>);
    c.def_property_readonly("size", &number<llama_model_size>);
    c.def_property_readonly("has_nextn_layer",
                            [](const Model & m) { return llama_model_has_nextn_layer(m.get()->model); });
    c.def_property_readonly("is_nextn_only", [](const Model & m) { return llama_model_is_nextn_only(m.get()->model); });
    c.def_property_readonly("architecture", [](const Model & m) { return meta_architecture(m.get()->model); });
    c.def_property_readonly("description", [](const Model & m) {
        std::array<char, 256> text = {};
        llama_model_desc(m.get()->model, text.data(), text.size());
        return std::string(text.data());
    });
    c.def_property_readonly("chat_template", [](const Model & m) -> std::optional<std::string> {
        const char * text = llama_model_chat_template(m.get()->model, nullptr);
        return text ? std::optional<std::string>(text) : std::nullopt;
    });
    c.def_property_readonly("closed", &Model::closed);
}

void register_model(py::module_ & m) {
    py::class_<Model> c(m, "Model", "A loaded GGUF model.");
    c.def(init_nogil(&load_model), py::arg("path"), py::kw_only(), py::arg("n_gpu_layers"), py::arg("use_mmap"),
          py::arg("use_mlock"), py::arg("check_tensors"), py::arg("load_nextn"), py::arg("rpc_servers"),
          py::arg("progress").none(true), nogil());
    c.def("close", &Model::close, nogil(), "Let go of it; contexts over it keep it in memory.");
    c.def(
        "read_metadata", [](const Model & model) { return open_gguf(model.get()->path); }, nogil(),
        "Every key of the file with its real type, read from the file.");
    def_vocabulary(c);
    def_properties(c);
}

} // namespace nextn
