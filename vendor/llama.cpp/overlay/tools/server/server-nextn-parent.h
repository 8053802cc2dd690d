#pragma once

// A server that a launcher started ends with it, however the launcher ended.

#if defined(_WIN32)
inline void server_nextn_follow_parent() {}
#else

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <poll.h>
#include <thread>
#include <unistd.h>

// NEXTN_PARENT_FD names the reading end of a pipe whose other end only the launcher has: it is closed when the launcher
// is gone. (Linux' PR_SET_PDEATHSIG would follow the thread that started us instead of its process.)
inline void server_nextn_follow_parent() {
    const char * value = std::getenv("NEXTN_PARENT_FD");
    if (!value) {
        return;
    }
    std::thread([fd = std::atoi(value), parent = getppid()] {
        pollfd pipe = {fd, POLLIN, 0};
        int    ret;
        do {
            ret = poll(&pipe, 1, 1000);
        } while ((ret == 0 || (ret < 0 && errno == EINTR)) && getppid() == parent);

        std::raise(SIGTERM);
        sleep(3);
        _exit(1); // still loading, or busy
    }).detach();
}

#endif
