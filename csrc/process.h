#pragma once

// What the process does around a call: other threads run (GIL), a signal arrives, it forks, it exits.

#include <pybind11/pybind11.h>

#include <exception>
#include <sys/types.h>

namespace nextn {

// Releases the GIL while it lives. Python ends a thread that waits for the GIL of an exiting interpreter inside C++,
// which would abort the process; so the exit waits for every guard, and a thread that comes later is sent back with an
// error.
class ReleaseGil {
  public:
    ReleaseGil();
    ~ReleaseGil();

    ReleaseGil(const ReleaseGil &) = delete;
    ReleaseGil & operator=(const ReleaseGil &) = delete;

  private:
    PyThreadState * state;
};

// Whether the interpreter exits and this is not the thread that ends it: what it computes should stop.
bool left_behind();

// A handle belongs to the process that made it.
class ProcessBound {
  public:
    ProcessBound();

    // False in a forked child: there, nothing of the engine may be touched, not even to free it.
    bool here() const;

    // Throws NextnError in a forked child.
    void check() const;

  private:
    const pid_t pid;
};

// Throws NextnError when a parent computed before it forked this process: its compute threads did not come along.
void check_can_compute();

// Runs Python's signal handlers when this is the main thread, at most every 50 ms. What a handler raised, or null.
std::exception_ptr run_signal_handlers();

void register_process(pybind11::module_ & m);

} // namespace nextn
