#include "errors.h"
#include "log.h"
#include "memory_estimate.h"
#include "register.h"

#include "ggml-backend.h"
#include "llama-nextn-exact.h"
#include "llama-nextn.h"
#include "llama.h"

#include "build-info.h"

#include <algorithm>
#include <cctype>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

namespace py = pybind11;

namespace nextn {

static py::dict features_of(ggml_backend_reg_t reg) {
    py::dict features;
    const auto get = reinterpret_cast<ggml_backend_get_features_t>(
        ggml_backend_reg_get_proc_address(reg, "ggml_backend_get_features"));
    if (get) {
        for (const ggml_backend_feature * feature = get(reg); feature && feature->name; ++feature) {
            features[feature->name] = feature->value;
        }
    }
    return features;
}

static py::list backends() {
    py::list list;
    for (size_t i = 0; i < ggml_backend_reg_count(); ++i) {
        ggml_backend_reg_t reg = ggml_backend_reg_get(i);
        py::dict entry;
        entry["name"] = ggml_backend_reg_name(reg);
        entry["features"] = features_of(reg);
        list.append(entry);
    }
    return list;
}

static const char * device_type(ggml_backend_dev_t device) {
    switch (ggml_backend_dev_type(device)) {
    case GGML_BACKEND_DEVICE_TYPE_CPU:
        return "cpu";
    case GGML_BACKEND_DEVICE_TYPE_ACCEL:
        return "accelerator";
    default:
        return "gpu";
    }
}

static py::list devices() {
    py::list list;
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        size_t free = 0;
        size_t total = 0;
        ggml_backend_dev_memory(device, &free, &total);
        py::dict entry;
        entry["name"] = ggml_backend_dev_name(device);
        entry["description"] = ggml_backend_dev_description(device);
        entry["type"] = device_type(device);
        entry["memory_free"] = free;
        entry["memory_total"] = total;
        list.append(entry);
    }
    return list;
}

static py::typing::Dict<py::str, py::object> engine_info() {
    py::typing::Dict<py::str, py::object> info;
    info["version"] = llama_version();
    info["commit"] = llama_commit();
    info["upstream_commit"] = NEXTN_UPSTREAM_COMMIT;
    info["compiler"] = llama_compiler();
    info["stamp"] = llama_nextn_build_stamp();
    info["system_info"] = llama_print_system_info();
    info["backends"] = backends();
    info["devices"] = devices();
    info["max_devices"] = llama_max_devices();
    info["supports_gpu_offload"] = has_gpu();
    info["memory_available"] = available_memory(); // bytes; -1: the system does not say
    info["supports_mmap"] = llama_supports_mmap();
    info["supports_mlock"] = llama_supports_mlock();
    info["supports_rpc"] = llama_supports_rpc();
    return info;
}

// Upper-case, as in GGUF's own names.
static std::vector<std::string> shared_types() {
    std::vector<std::string> names;
    for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
        const auto type = static_cast<ggml_type>(i);
        if (llama_nextn_shares_columns(type)) {
            std::string name = ggml_type_name(type);
            std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::toupper(c); });
            names.push_back(name);
        }
    }
    return names;
}

void register_engine(py::module_ & m) {
    m.def("engine_info", &engine_info, "What the engine is and what it computes on, as a dict.");
    m.def("build_stamp", &llama_nextn_build_stamp, "Stamp of the source tree that the engine was built from.");
    m.def("n_backends", &ggml_backend_reg_count, "Number of compute backends that are loaded.");
    m.def(
        "load_backends", [](const std::string & path) { ggml_backend_load_all_from_path(path.c_str()); },
        py::arg("path"), nogil(), "Load the compute backends in a directory.");
    m.def("shared_types", &shared_types, nogil(),
          "Names of the weight types that the CPU reads once for all tokens of a verify batch.");
    m.def("flush_log", &flush_log, "Hand the engine's kept log lines to logging.");
}

} // namespace nextn
