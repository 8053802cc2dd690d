#pragma once

// A GGUF file before and beside the engine: what keeps it from being loaded, and its metadata with their real types.

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

// Throws ModelFileError for what the engine reports badly or asserts: a missing or truncated file, a missing part of a
// file in parts, a file that is no model, counts that do not fit.
void check_model_file(const std::string & path);

} // namespace nextn
