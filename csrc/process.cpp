#include "process.h"

#include "errors.h"
#include "handles.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <unistd.h>

namespace py = pybind11;

namespace nextn {

static std::atomic<int> n_released{0};      // guards that are alive
static std::atomic<bool> is_exiting{false}; // set by the thread that ends the interpreter
static std::thread::id exit_thread;         // written before is_exiting
static std::atomic<pid_t> compute_pid{0};   // the process that computed first
static unsigned long main_thread = 0;       // Python's identifier

bool left_behind() {
    return is_exiting && std::this_thread::get_id() != exit_thread;
}

ReleaseGil::ReleaseGil() {
    if (left_behind()) { // the GIL is held here, so the answer stays true
        throw Error(ErrorKind::Nextn, "the interpreter is exiting");
    }
    n_released++;
    state = PyEval_SaveThread();
}

ReleaseGil::~ReleaseGil() {
    PyEval_RestoreThread(state);
    n_released--;
}

ProcessBound::ProcessBound() : pid(getpid()) {}

bool ProcessBound::here() const {
    return getpid() == pid;
}

void ProcessBound::check() const {
    if (!here()) {
        throw Error(ErrorKind::Nextn,
                    "this object was made before the process forked and cannot be used in the child; make it there, "
                    "or start processes with multiprocessing's \"spawn\" method");
    }
}

void check_can_compute() {
    const pid_t pid = getpid();
    pid_t first = 0;
    if (!compute_pid.compare_exchange_strong(first, pid) && first != pid) {
        throw Error(ErrorKind::Nextn,
                    "this process was forked from one that had used nextn, and its compute threads did not come along; "
                    "start processes with multiprocessing's \"spawn\" method");
    }
}

std::exception_ptr run_signal_handlers() {
    using clock = std::chrono::steady_clock;
    static thread_local clock::time_point last = clock::now();

    const auto now = clock::now();
    if (PyThread_get_thread_ident() != main_thread || now - last < std::chrono::milliseconds(50)) {
        return nullptr;
    }
    last = now;
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() == 0) {
        return nullptr;
    }
    try {
        throw py::error_already_set();
    } catch (...) {
        return std::current_exception();
    }
}

// Runs before the interpreter goes: stop what other threads compute, and wait until all of them are out.
static void shutdown() {
    exit_thread = std::this_thread::get_id();
    is_exiting = true;
    const py::gil_scoped_release nogil;
    while (n_released > 0) {
        abort_all_contexts();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
}

void register_process(py::module_ & m) {
    (void) m;
    main_thread = py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>();
    py::module_::import("atexit").attr("register")(py::cpp_function(shutdown));
}

} // namespace nextn
