#pragma once

// Exceptions of the native part: plain C++ while the GIL is released, classes of nextn.errors once they reach Python.

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace nextn {

// One per class of nextn.errors that the native part raises.
enum class ErrorKind {
    Nextn,
    ModelFile,
    UnsupportedArchitecture,
    NoNextnLayer,
    ContextCreate,
    ContextOverflow,
    Decode,
    Cancelled,
    Closed,
    ChatTemplate,
    Grammar,
    Worker,
};

class Error : public std::runtime_error {
  public:
    Error(ErrorKind error_kind, const std::string & message) : std::runtime_error(message), kind(error_kind) {}

    const ErrorKind kind;
};

class OverflowError : public Error {
  public:
    OverflowError(const std::string & message, int64_t n_requested, int64_t n_available)
        : Error(ErrorKind::ContextOverflow, message), requested(n_requested), available(n_available) {}

    const int64_t requested;
    const int64_t available;
};

// printf into a string
#if defined(__GNUC__)
__attribute__((format(printf, 1, 2)))
#endif
std::string strf(const char * format, ...);

// Throws ValueError naming the argument, its value and the range, unless min <= value <= max.
void check_range(const char * name, int64_t value, int64_t min, int64_t max);

// Throws WorkerError when this reason is about a worker; it comes from anywhere in the engine, and is known by its
// text.
void check_workers(const std::string & reason);

// What a failed llama_model_load_from_file() means, from the lines it logged.
[[noreturn]] void throw_load_error(const std::string & path, const std::string & reason);

// What a failed llama_init_from_model() means.
[[noreturn]] void throw_context_error(const std::string & reason);

// What a return code of llama_decode() other than 0 and 1 means. The sequence was removed before.
[[noreturn]] void throw_decode_error(int32_t code, int32_t seq_id, const std::string & reason);

void register_errors(pybind11::module_ & m);

} // namespace nextn
