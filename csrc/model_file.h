#pragma once

// A GGUF file before and beside the engine: whether it is one, and its metadata with their real types.

#include "gguf.h"

#include <memory>
#include <string>

namespace nextn {

struct GgufDeleter {
    void operator()(gguf_context * gguf) const { gguf_free(gguf); }
};

using GgufPtr = std::unique_ptr<gguf_context, GgufDeleter>;

// The metadata and tensor list of a file. Throws ModelFileError when it is missing or damaged.
GgufPtr open_gguf(const std::string & path);

// Throws ModelFileError for what the engine reports badly: a missing file, one that cannot be read, one that is no GGUF
// file. What is wrong inside a file nextn.gguf.check_loadable finds before it comes here.
void check_is_gguf(const std::string & path);

} // namespace nextn
