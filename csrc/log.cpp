#include "log.h"

#include "../common/log.h" // llama.cpp's, not the one above
#include "ggml.h"
#include "llama.h"

#include <deque>
#include <mutex>

namespace py = pybind11;

namespace nextn {

static constexpr size_t max_lines = 4096;
static constexpr size_t max_errors = 16;

struct Line {
    ggml_log_level level;
    std::string text;
};

struct LogBuffer {
    std::mutex mutex;
    std::deque<Line> lines;
    Line partial = {GGML_LOG_LEVEL_NONE, ""};
    size_t n_dropped = 0;
};

// Never destroyed: the engine may log while the process ends.
static LogBuffer & buffer() {
    static auto * instance = new LogBuffer;
    return *instance;
}

static thread_local LogCapture * capture = nullptr;

LogCapture::LogCapture() : outer(capture) {
    capture = this;
}

LogCapture::~LogCapture() {
    capture = outer;
}

std::string LogCapture::reason() const {
    return errors.empty() ? "" : errors.front();
}

void keep_error(const std::string & line) {
    for (LogCapture * c = capture; c; c = c->outer) {
        if (c->errors.size() < max_errors) {
            c->errors.push_back(line);
        }
    }
}

static void push(LogBuffer & log, Line line) {
    if (line.level == GGML_LOG_LEVEL_ERROR) {
        const size_t colon = line.text.find(": ");
        // "llama_model_load: error …" says nothing more with the function's name
        const bool named = colon != std::string::npos && line.text.find(' ') > colon;
        keep_error(named ? line.text.substr(colon + 2) : line.text);
    }
    if (log.lines.size() == max_lines) {
        log.lines.pop_front();
        log.n_dropped++;
    }
    log.lines.push_back(std::move(line));
}

static void take_text(ggml_log_level level, const char * text, void *) {
    LogBuffer & log = buffer();
    const std::lock_guard lock(log.mutex);
    if (level != GGML_LOG_LEVEL_CONT && !log.partial.text.empty()) {
        push(log, std::move(log.partial));
        log.partial = {level, ""};
    }
    if (level != GGML_LOG_LEVEL_CONT) {
        log.partial.level = level;
    }
    for (const char * c = text; *c; ++c) {
        if (*c != '\n') {
            log.partial.text += *c;
        } else if (!log.partial.text.empty()) {
            push(log, {log.partial.level, std::move(log.partial.text)});
            log.partial.text.clear();
        }
    }
}

void install_log() {
    llama_log_set(take_text, nullptr);
    // "common" prints its own log lines to the terminal; its errors reach us as exceptions
    common_log_set_verbosity_thold(LOG_LEVEL_OUTPUT - 1);
}

// The engine tells a lot on its info level; an application's own info level should not be flooded by it.
static int python_level(ggml_log_level level) {
    switch (level) {
    case GGML_LOG_LEVEL_ERROR:
        return 40;
    case GGML_LOG_LEVEL_WARN:
        return 30;
    case GGML_LOG_LEVEL_DEBUG:
        return 5;
    default:
        return 10;
    }
}

static void hand_over(const std::deque<Line> & lines, size_t n_dropped) {
    const py::object logger = py::module_::import("logging").attr("getLogger")("nextn");
    const py::object log = logger.attr("log");
    if (n_dropped > 0) {
        log(30, py::str("%d lines of the engine's log were dropped"), n_dropped);
    }
    for (const Line & line : lines) {
        const auto text = py::reinterpret_steal<py::object>(
            PyUnicode_DecodeUTF8(line.text.data(), static_cast<py::ssize_t>(line.text.size()), "replace"));
        log(python_level(line.level), py::str("%s"), text);
    }
}

void flush_log() noexcept {
    std::deque<Line> lines;
    size_t n_dropped = 0;
    {
        // held for moments only, and by nobody who waits for the GIL
        const std::lock_guard lock(buffer().mutex);
        lines.swap(buffer().lines);
        std::swap(n_dropped, buffer().n_dropped);
    }
    if (lines.empty()) {
        return;
    }
    try {
        const py::error_scope pending;
        hand_over(lines, n_dropped);
    } catch (py::error_already_set & e) {
        if (e.matches(PyExc_KeyboardInterrupt)) {
            PyErr_SetInterrupt(); // not ours to swallow
        } else {
            e.discard_as_unraisable("nextn log");
        }
    } catch (...) { // a destructor runs this
    }
}

} // namespace nextn
