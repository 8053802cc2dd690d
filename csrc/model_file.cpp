#include "model_file.h"

#include "errors.h"
#include "ggml.h"
#include "log.h"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <sys/stat.h>

namespace nextn {

[[noreturn]] static void fail(const std::string & path, const std::string & what) {
    throw Error(ErrorKind::ModelFile, path + ": " + what);
}

static void check_path(const std::string & path) {
    if (path.empty()) {
        throw pybind11::value_error("path is empty");
    }
    if (path.find('\0') != std::string::npos) {
        throw pybind11::value_error("path holds a null character");
    }
    struct stat info = {};
    if (stat(path.c_str(), &info) != 0) {
        fail(path, errno == ENOENT ? "no such file" : std::strerror(errno));
    }
    if (S_ISDIR(info.st_mode)) {
        fail(path, "is a directory; give the .gguf file in it");
    }
    if (!S_ISREG(info.st_mode)) {
        fail(path, "is not a regular file");
    }
}

static void check_magic(const std::string & path) {
    const std::unique_ptr<FILE, int (*)(FILE *)> file(std::fopen(path.c_str(), "rb"), std::fclose);
    if (!file) {
        fail(path, std::strerror(errno));
    }
    std::array<char, 4> magic = {};
    const size_t n = std::fread(magic.data(), 1, magic.size(), file.get());
    if (n == 0) {
        fail(path, "is empty");
    }
    if (n < magic.size() || std::memcmp(magic.data(), "GGUF", magic.size()) != 0) {
        fail(path, "is not a GGUF file");
    }
}

void check_is_gguf(const std::string & path) {
    check_path(path);
    check_magic(path);
}

GgufPtr open_gguf(const std::string & path) {
    check_is_gguf(path);
    const LogCapture log;
    GgufPtr gguf(gguf_init_from_file(path.c_str(), {/*.no_alloc =*/true, /*.ctx =*/nullptr}));
    if (!gguf) {
        const std::string reason = log.reason();
        fail(path, "is a damaged or truncated GGUF file" + (reason.empty() ? "" : " (" + reason + ")"));
    }
    return gguf;
}

} // namespace nextn
