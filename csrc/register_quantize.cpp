// The engine's quantizer: which type each tensor gets, and the run itself. nextn.quantize checks the file and the
// options before, and runs the second in a process of its own: the engine may end the process on what it dislikes.

#include "casters.h"
#include "errors.h"
#include "ggml.h"
#include "llama.h"
#include "log.h"
#include "register.h"

#include "../src/llama-ext.h" // llama_quant_*
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <pybind11/stl.h>
#include <tuple>

namespace py = pybind11;

namespace nextn {

using Override = std::pair<std::string, int>;                           // pattern of names, type
using TensorShape = std::tuple<std::string, std::vector<int64_t>, int>; // name, elements per dimension, type
using FloatArray = py::array_t<float, py::array::c_style | py::array::forcecast>;
using MetadataValue = std::variant<int64_t, std::string>;

static ggml_type to_type(int value) {
    check_range("type", value, 0, GGML_TYPE_COUNT - 1);
    const auto type = static_cast<ggml_type>(value);
    if (ggml_type_size(type) == 0) {
        throw py::value_error(strf("type %d is none that tensors can have", value));
    }
    return type;
}

static llama_ftype to_file_type(int value) {
    const auto ftype = static_cast<llama_ftype>(value);
    if (llama_ftype_get_default_type(ftype) == GGML_TYPE_COUNT) {
        throw py::value_error(strf("file type %d is none that the engine quantizes to", value));
    }
    return ftype;
}

// The engine's list of overrides ends with an empty one; the patterns stay where they are.
static std::vector<llama_model_tensor_override> to_overrides(const std::vector<Override> & overrides) {
    std::vector<llama_model_tensor_override> list;
    for (const auto & [pattern, type] : overrides) {
        list.push_back({pattern.c_str(), to_type(type)});
    }
    list.push_back({nullptr, GGML_TYPE_COUNT});
    return list;
}

//
// the plan
//

struct GgmlDeleter {
    void operator()(ggml_context * ctx) const { ggml_free(ctx); }
};

struct ModelDeleter {
    void operator()(llama_model * model) const { llama_model_free(model); }
};

struct QuantDeleter {
    void operator()(quantize_state_impl * state) const { llama_quant_free(state); }
};

static std::vector<ggml_tensor *> make_tensors(ggml_context * ctx, const std::vector<TensorShape> & shapes) {
    std::vector<ggml_tensor *> tensors;
    for (const auto & [name, shape, type] : shapes) {
        check_range("dimensions", static_cast<int64_t>(shape.size()), 1, GGML_MAX_DIMS);
        ggml_tensor * tensor = ggml_new_tensor(ctx, to_type(type), static_cast<int>(shape.size()), shape.data());
        ggml_set_name(tensor, name.c_str());
        tensors.push_back(tensor);
    }
    return tensors;
}

static std::vector<int> quantized_types(const std::string & architecture, const std::map<std::string, int64_t> & sizes,
                                        int file_type, const std::vector<TensorShape> & shapes,
                                        const std::vector<Override> & overrides) {
    const auto size = [&](const char * name) {
        const auto found = sizes.find(name);
        const int64_t value = found == sizes.end() ? 0 : found->second;
        check_range(name, value, 0, INT32_MAX);
        return static_cast<uint32_t>(value);
    };
    check_range("n_layer", size("n_layer"), 1, 512);
    const llama_quant_model_desc desc = {architecture.c_str(), size("n_embd"),        size("n_ff"),
                                         size("n_layer"),      size("n_head"),        size("n_head_kv"),
                                         size("n_expert"),     size("n_embd_head_k"), size("n_embd_head_v")};
    const std::unique_ptr<ggml_context, GgmlDeleter> ctx(
        ggml_init({/*.mem_size =*/(shapes.size() + 1) * ggml_tensor_overhead(), nullptr, /*.no_alloc =*/true}));
    std::vector<ggml_tensor *> tensors = make_tensors(ctx.get(), shapes);

    const auto list = to_overrides(overrides);
    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = to_file_type(file_type);
    params.tt_overrides = list.data();
    const std::unique_ptr<llama_model, ModelDeleter> model(llama_quant_model_from_metadata(&desc));
    if (!model) {
        throw Error(ErrorKind::UnsupportedArchitecture, "the engine does not know the architecture " + architecture);
    }
    const std::unique_ptr<quantize_state_impl, QuantDeleter> state(llama_quant_init(model.get(), &params));
    std::vector<ggml_type> types(tensors.size());
    llama_quant_compute_types(state.get(), params.ftype, tensors.data(), types.data(), tensors.size());
    return {types.begin(), types.end()};
}

//
// the run
//

static void copy_text(char * to, size_t size, const char * what, const std::string & text) {
    if (text.empty() || text.size() >= size) {
        throw py::value_error(strf("%s must have 1 to %zu bytes, not %zu", what, size - 1, text.size()));
    }
    std::memcpy(to, text.c_str(), text.size() + 1);
}

static std::vector<llama_model_kv_override> to_kv_overrides(const std::map<std::string, MetadataValue> & metadata) {
    std::vector<llama_model_kv_override> list;
    for (const auto & [key, value] : metadata) {
        llama_model_kv_override entry = {};
        copy_text(entry.key, sizeof(entry.key), "a metadata key", key);
        if (const auto * number = std::get_if<int64_t>(&value)) {
            check_range(key.c_str(), *number, 0, UINT32_MAX);
            entry.tag = LLAMA_KV_OVERRIDE_TYPE_INT;
            entry.val_i64 = *number;
        } else {
            entry.tag = LLAMA_KV_OVERRIDE_TYPE_STR;
            copy_text(entry.val_str, sizeof(entry.val_str), key.c_str(), std::get<std::string>(value));
        }
        list.push_back(entry);
    }
    list.push_back({}); // an empty key ends the list
    return list;
}

static void quantize(const Bytes & path_in, const Bytes & path_out, int file_type, int n_threads,
                     const std::vector<Override> & overrides, const std::map<std::string, FloatArray> & imatrix,
                     const std::map<std::string, MetadataValue> & metadata, bool allow_requantize) {
    check_range("n_threads", n_threads, 1, GGML_MAX_N_THREADS);
    const auto types = to_overrides(overrides);
    const auto keys = to_kv_overrides(metadata);
    std::vector<llama_model_imatrix_data> importance;
    for (const auto & [name, values] : imatrix) {
        importance.push_back({name.c_str(), values.data(), static_cast<size_t>(values.size())});
    }
    importance.push_back({nullptr, nullptr, 0});

    llama_model_quantize_params params = llama_model_quantize_default_params();
    params.ftype = to_file_type(file_type);
    params.nthread = n_threads;
    params.allow_requantize = allow_requantize;
    params.tt_overrides = types.data();
    params.kv_overrides = keys.data();
    params.imatrix = imatrix.empty() ? nullptr : importance.data();
    const LogCapture log;
    if (llama_model_quantize(path_in.value.c_str(), path_out.value.c_str(), &params) != 0) {
        throw Error(ErrorKind::Nextn, path_in.value + ": cannot be quantized: " + log.reason());
    }
}

void register_quantize(py::module_ & m) {
    m.def("quantized_types", &quantized_types, py::kw_only(), py::arg("architecture"), py::arg("sizes"),
          py::arg("file_type"), py::arg("tensors"), py::arg("overrides"), nogil(),
          "The type that each tensor (name, shape, type) gets in a file of this type.");
    m.def("quantize", &quantize, py::arg("path_in"), py::arg("path_out"), py::kw_only(), py::arg("file_type"),
          py::arg("n_threads"), py::arg("overrides"), py::arg("imatrix"), py::arg("metadata"),
          py::arg("allow_requantize"), nogil(), "Write a quantized file.");
}

} // namespace nextn
