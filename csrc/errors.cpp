#include "errors.h"

#include "ggml-nextn.h"

#include <array>
#include <cstdarg>
#include <cstdio>
#include <regex>
#include <vector>

namespace py = pybind11;

namespace nextn {

std::string strf(const char * format, ...) {
    va_list args;
    va_list args_copy;
    va_start(args, format);
    va_copy(args_copy, args);
    const int n = std::vsnprintf(nullptr, 0, format, args);
    va_end(args);
    std::vector<char> text(n > 0 ? n + 1 : 1);
    std::vsnprintf(text.data(), text.size(), format, args_copy);
    va_end(args_copy);
    return text.data();
}

void check_range(const char * name, int64_t value, int64_t min, int64_t max) {
    if (value < min || value > max) {
        throw py::value_error(strf("%s must be an integer from %lld to %lld, not %lld", name,
                                   static_cast<long long>(min), static_cast<long long>(max),
                                   static_cast<long long>(value)));
    }
}

static bool contains(const std::string & text, const char * part) {
    return text.find(part) != std::string::npos;
}

// The engine starts its lines with the name of the function that wrote them.
static std::string without_prefix(const std::string & reason) {
    for (const char * prefix : {"error loading model: ", "failed to initialize the context: "}) {
        const size_t at = reason.find(prefix);
        if (at != std::string::npos) {
            return reason.substr(at + std::string(prefix).size());
        }
    }
    return reason;
}

void check_workers(const std::string & reason) {
    // with an address: a path may have the first words in it
    static const std::regex worker(GGML_NEXTN_WORKER "[^\\s:]+:[0-9]+ ");
    std::smatch found;
    if (std::regex_search(reason, found, worker)) {
        throw Error(ErrorKind::Worker, reason.substr(static_cast<size_t>(found.position())));
    }
}

void throw_load_error(const std::string & path, const std::string & reason) {
    check_workers(reason);
    if (contains(reason, "unknown model architecture") || contains(reason, "unsupported model architecture")) {
        throw Error(ErrorKind::UnsupportedArchitecture,
                    path + ": " + without_prefix(reason) + "; this version of the engine cannot run it");
    }
    if (contains(reason, "no backends are loaded")) {
        throw Error(ErrorKind::Nextn, "no compute backend was found in the installed package; install nextn again");
    }
    const std::string why = reason.empty() ? "the engine gives no reason" : without_prefix(reason);
    throw Error(ErrorKind::ModelFile, path + ": cannot be loaded: " + why);
}

void throw_context_error(const std::string & reason) {
    check_workers(reason);
    const std::string why = reason.empty() ? "the engine gives no reason" : without_prefix(reason);
    const bool memory = contains(why, "alloc") || contains(why, "memory");
    throw Error(ErrorKind::ContextCreate, "the context cannot be made: " + why +
                                              (memory ? "; a smaller n_ctx or n_ubatch needs less memory" : ""));
}

void throw_decode_error(int32_t code, int32_t seq_id, const std::string & reason) {
    check_workers(reason);
    const std::string removed = strf("; the state of sequence %d was unknown, so the sequence was removed", seq_id);
    if (code == 2) {
        throw Error(ErrorKind::Cancelled, "decoding was cancelled" + removed);
    }
    const std::string why = reason.empty() ? strf("return code %d", code) : reason;
    throw Error(ErrorKind::Decode, "decoding failed: " + why + removed);
}

// Names in nextn.errors, in the order of ErrorKind.
static constexpr std::array<const char *, 12> error_names = {
    "NextnError",        "ModelFileError",     "UnsupportedArchitectureError",
    "NoNextnLayerError", "ContextCreateError", "ContextOverflowError",
    "DecodeError",       "CancelledError",     "ClosedError",
    "ChatTemplateError", "GrammarError",       "WorkerError",
};

static py::object error_class(ErrorKind kind) {
    return py::module_::import("nextn.errors").attr(error_names[static_cast<size_t>(kind)]);
}

// Rethrows; what the engine throws about a worker becomes an error of ours.
static void rethrow(const std::exception_ptr & thrown) {
    try {
        std::rethrow_exception(thrown);
    } catch (const Error &) {
        throw;
    } catch (const std::runtime_error & e) {
        check_workers(e.what());
        throw;
    }
}

static void translate(std::exception_ptr thrown) {
    try {
        if (thrown) {
            rethrow(thrown);
        }
    } catch (const OverflowError & e) {
        const py::object type = error_class(e.kind);
        PyErr_SetObject(type.ptr(), type(e.what(), e.requested, e.available).ptr());
    } catch (const Error & e) {
        // decoded leniently: a path in the text need not be UTF-8
        const std::string text = e.what();
        const py::object message = py::reinterpret_steal<py::object>(
            PyUnicode_DecodeUTF8(text.data(), static_cast<py::ssize_t>(text.size()), "surrogateescape"));
        PyErr_SetObject(error_class(e.kind).ptr(), message.ptr());
    }
}

void register_errors(py::module_ & m) {
    (void) m;
    // fails here, at import, when the package is incomplete
    for (size_t i = 0; i < error_names.size(); ++i) {
        error_class(static_cast<ErrorKind>(i));
    }
    py::register_local_exception_translator(translate);
}

} // namespace nextn
