#include "model_file.h"

#include "errors.h"
#include "ggml.h"
#include "llama.h"
#include "log.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <sys/stat.h>
#include <vector>

namespace nextn {

[[noreturn]] static void fail(const std::string & path, const std::string & what) {
    throw Error(ErrorKind::ModelFile, path + ": " + what);
}

static int64_t file_size(const std::string & path) {
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
    return info.st_size;
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

GgufPtr open_gguf(const std::string & path) {
    file_size(path);
    check_magic(path);
    const LogCapture log;
    GgufPtr gguf(gguf_init_from_file(path.c_str(), {/*.no_alloc =*/true, /*.ctx =*/nullptr}));
    if (!gguf) {
        const std::string reason = log.reason();
        fail(path, "is a damaged or truncated GGUF file" + (reason.empty() ? "" : " (" + reason + ")"));
    }
    return gguf;
}

// An unsigned 16- or 32-bit key, as counts are stored; the fallback when it is absent or has another type.
static int64_t get_count(const gguf_context * gguf, const std::string & key, int64_t fallback) {
    const int64_t id = gguf_find_key(gguf, key.c_str());
    if (id < 0) {
        return fallback;
    }
    switch (gguf_get_kv_type(gguf, id)) {
    case GGUF_TYPE_UINT16:
        return gguf_get_val_u16(gguf, id);
    case GGUF_TYPE_UINT32:
        return gguf_get_val_u32(gguf, id);
    default:
        return fallback;
    }
}

static void check_complete(const std::string & path, const gguf_context * gguf) {
    const auto size = static_cast<uint64_t>(file_size(path));
    uint64_t end = 0;
    for (int64_t i = 0; i < gguf_get_n_tensors(gguf); ++i) {
        end = std::max<uint64_t>(end, gguf_get_tensor_offset(gguf, i) + gguf_get_tensor_size(gguf, i));
    }
    end += gguf_get_data_offset(gguf);
    if (gguf_get_n_tensors(gguf) > 0 && end > size) {
        fail(
            path,
            strf("its tensors end at byte %llu, but the file has %llu: the file is truncated (an unfinished download?)",
                 static_cast<unsigned long long>(end), static_cast<unsigned long long>(size)));
    }
}

static std::string part_path(const std::string & prefix, int64_t part, int64_t n_part) {
    std::vector<char> name(prefix.size() + 64);
    llama_split_path(name.data(), name.size(), prefix.c_str(), static_cast<int32_t>(part),
                     static_cast<int32_t>(n_part));
    return name.data();
}

static void check_parts(const std::string & path, const gguf_context * gguf) {
    const int64_t n_part = get_count(gguf, "split.count", 0);
    const int64_t part = get_count(gguf, "split.no", 0);
    if (n_part <= 1) {
        return;
    }
    std::vector<char> buffer(path.size() + 1);
    const bool named = llama_split_prefix(buffer.data(), buffer.size(), path.c_str(), static_cast<int32_t>(part),
                                          static_cast<int32_t>(n_part)) > 0;
    if (!named) {
        fail(path, strf("is part %lld of %lld but not named like it; the engine finds the parts by their names: "
                        "NAME-%05lld-of-%05lld.gguf",
                        static_cast<long long>(part + 1), static_cast<long long>(n_part),
                        static_cast<long long>(part + 1), static_cast<long long>(n_part)));
    }
    const std::string prefix = buffer.data();
    if (part != 0) {
        fail(path, strf("is part %lld of %lld; give the first part: ", static_cast<long long>(part + 1),
                        static_cast<long long>(n_part)) +
                       part_path(prefix, 0, n_part));
    }
    for (int64_t i = 1; i < n_part; ++i) {
        const std::string other = part_path(prefix, i, n_part);
        struct stat info = {};
        if (stat(other.c_str(), &info) != 0) {
            fail(path,
                 strf("part %lld of %lld is missing: ", static_cast<long long>(i + 1), static_cast<long long>(n_part)) +
                     other + "; put all parts into one directory");
        }
        check_complete(other, open_gguf(other).get());
    }
}

// Counts that later code of the engine only asserts on.
static void check_counts(const std::string & path, const gguf_context * gguf) {
    const int64_t id = gguf_find_key(gguf, "general.architecture");
    if (id < 0 || gguf_get_kv_type(gguf, id) != GGUF_TYPE_STRING) {
        fail(path, "names no architecture (general.architecture): it is no model");
    }
    const std::string arch = gguf_get_val_str(gguf, id);
    const int64_t n_block = get_count(gguf, arch + ".block_count", -1);
    const int64_t n_nextn = get_count(gguf, arch + ".nextn_predict_layers", 0);
    if (n_block == 0 || n_block > 512) {
        fail(path,
             strf("%s.block_count is %lld; the engine takes 1 to 512", arch.c_str(), static_cast<long long>(n_block)));
    }
    if (n_block > 0 && n_nextn > n_block) {
        fail(path, strf("%s.nextn_predict_layers is %lld, more than its %lld blocks", arch.c_str(),
                        static_cast<long long>(n_nextn), static_cast<long long>(n_block)));
    }
}

void check_model_file(const std::string & path) {
    const GgufPtr gguf = open_gguf(path);
    check_counts(path, gguf.get());
    check_parts(path, gguf.get());
    check_complete(path, gguf.get());
}

} // namespace nextn
