#pragma once

// SIGTERM or SIGINT: running requests are finished within a grace time, new ones refused, then the server ends.

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <semaphore.h>
#include <thread>

// A member of what waits for the results of a request.
struct server_nextn_running {
    inline static std::atomic<int> count{0};

    server_nextn_running() { ++count; }
    server_nextn_running(const server_nextn_running &) { ++count; }
    ~server_nextn_running() { --count; }
};

class server_nextn_drain {
public:
    inline static std::atomic<bool> begun{false};
    inline static std::atomic<bool> over{false}; // whoever still waits for results gets none

    // Whether a request should stop, which upstream asks each second; the function it is given outlives the request.
    static std::function<bool()> or_over(const std::function<bool()> & should_stop) {
        return [&should_stop] {
            return over || should_stop();
        };
    }

    // Both are called on a thread of their own, where locks may be taken: no signal handler can do that.
    server_nextn_drain(std::function<void()> refuse, std::function<void()> finish) {
        if (sem_init(&asked, 0, 0) != 0) {
            return; // a signal ends the server at once, as upstream does
        }
        thread = std::thread([refuse, finish] {
            while (sem_wait(&asked) != 0 && errno == EINTR) {
            }
            if (!begun) {
                return;
            }
            refuse();
            wait_idle();
            over = true;
            finish();
        });
        exists = true;
    }

    ~server_nextn_drain() {
        if (exists.exchange(false)) {
            sem_post(&asked);
            thread.join();
        }
    }

    // From a signal handler. False when there is nothing to drain.
    static bool begin() {
        if (!exists) {
            return false;
        }
        begun = true;
        sem_post(&asked);
        return true;
    }

private:
    // A request that came just before is counted a moment later, so one look is not enough.
    static void wait_idle() {
        const char * value = std::getenv("NEXTN_SERVER_GRACE");
        const double grace = value ? std::atof(value) : 10.0;
        const auto   start = std::chrono::steady_clock::now();
        const auto   late  = [&] {
            return !(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < grace);
        };
        for (int n_idle = 0; n_idle < 5 && !late(); n_idle = server_nextn_running::count ? 0 : n_idle + 1) {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
        }
    }

    inline static std::atomic<bool> exists{false};
    inline static sem_t             asked; // never destroyed: a handler may be about to post

    std::thread thread;
};
