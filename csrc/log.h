#pragma once

// The engine's log lines. They come from any thread, with or without the GIL, so they are kept in a bounded buffer and
// handed to logging.getLogger("nextn") when a call comes back to Python.

#include "process.h"

#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace nextn {

// Take over the engine's log; called once, at import.
void install_log();

// Hand the kept lines to Python's logging. Needs the GIL; never throws.
void flush_log() noexcept;

// Flushes at the end of a call: the first guard, so that it ends after the GIL is back.
struct LogFlush {
    ~LogFlush() { flush_log(); }
};

// The guard of every call that runs the engine, visible at its .def: releases the GIL meanwhile.
using nogil = pybind11::call_guard<LogFlush, ReleaseGil>;

// py::init() of a factory under that guard. The factory's result becomes a raw pointer, because pybind11 registers an
// object that comes in a holder at once, so without the GIL, and two threads would spoil its table of instances.
template <class T, class... Args>
auto init_nogil(std::unique_ptr<T> (*make)(Args...)) {
    return pybind11::init([make](Args... args) { return make(std::forward<Args>(args)...).release(); });
}

// Collects the error lines that the current thread logs while it lives.
class LogCapture {
  public:
    LogCapture();
    ~LogCapture();

    LogCapture(const LogCapture &) = delete;
    LogCapture & operator=(const LogCapture &) = delete;

    // The line that says most: the first error; empty without one.
    std::string reason() const;

  private:
    friend void keep_error(const std::string & line);

    std::vector<std::string> errors;
    LogCapture * outer;
};

} // namespace nextn
