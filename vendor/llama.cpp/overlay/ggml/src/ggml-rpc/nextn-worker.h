#pragma once

// A worker that cannot be reached, or that is lost, is an exception of the call that needs it, not the end of the
// process. It crosses frames of C++ only: what C code or a destructor calls goes through ggml_nextn_survive.

#include "ggml-impl.h"
#include "ggml-nextn.h"

#include <cerrno>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdexcept>
#include <string>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

[[noreturn]] inline void ggml_nextn_throw_worker(const std::string & endpoint, const std::string & what) {
    throw std::runtime_error(GGML_NEXTN_WORKER + endpoint + " " + what);
}

[[noreturn]] inline void ggml_nextn_throw_lost(const std::string & endpoint) {
    ggml_nextn_throw_worker(endpoint,
                            "is lost (it ended, or the connection broke): close what was loaded over it, start it "
                            "again and load again, or load without it");
}

[[noreturn]] inline void ggml_nextn_throw_stranger(const std::string & endpoint) {
    ggml_nextn_throw_worker(endpoint,
                            "does not answer as a worker of this version: another program or version listens there, "
                            "or it serves somebody else (a worker serves one at a time)");
}

[[noreturn]] inline void ggml_nextn_give_up(int fd, const char * host, int port, const char * why) {
    const std::string reason = why;
    close(fd);
    ggml_nextn_throw_worker(std::string(host) + ":" + std::to_string(port),
                            "cannot be reached (" + reason + "): is the address right, and ggml-rpc-server running?");
}

// Whether the call went well; why it did not goes to the log.
template <class Call>
bool ggml_nextn_survive(Call call) {
    try {
        call();
        return true;
    } catch (const std::exception & err) {
        GGML_LOG_ERROR("%s\n", err.what());
        return false;
    }
}

// Before a socket is connected: no call on it takes longer than some seconds without coming back, and a machine that
// vanishes is noticed. (TCP_USER_TIMEOUT would end connections to a worker that is too busy to read.)
inline void ggml_nextn_bound_waits(int fd) {
    const auto set = [fd](int level, int name, auto value) {
        setsockopt(fd, level, name, &value, sizeof(value));
    };
    set(SOL_SOCKET, SO_RCVTIMEO, timeval{5, 0});
    set(SOL_SOCKET, SO_SNDTIMEO, timeval{5, 0}); // of connect, too
    set(SOL_SOCKET, SO_KEEPALIVE, 1);
    set(IPPROTO_TCP, TCP_KEEPIDLE, 10);
    set(IPPROTO_TCP, TCP_KEEPINTVL, 5);
    set(IPPROTO_TCP, TCP_KEEPCNT, 3);
}

// Whether a call on the socket that failed is worth another try: a worker that answered once may compute for as long as
// it takes.
inline bool ggml_nextn_keep_waiting(bool answered) {
    return errno == EINTR || (answered && (errno == EAGAIN || errno == EWOULDBLOCK));
}
