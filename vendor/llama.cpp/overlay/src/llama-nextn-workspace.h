#pragma once

#include "ggml-backend.h"

#include <cstddef>
#include <memory>

// Memory of the CPU that the graphs of a context take turns in.
//
// Only one graph of a context is computed at a time, and nothing in its compute buffer is read once another one has
// begun. So all of them begin at the same address: a graph that has not run for a while still finds the memory in the
// caches, and more graphs need no more memory.
class llama_nextn_workspace {
public:
    explicit llama_nextn_workspace(size_t capacity); // bytes; memory that is never written to is never taken
    ~llama_nextn_workspace();

    // Buffers of this type lie in the shared memory. One that does not fit has memory of its own.
    ggml_backend_buffer_type_t type() const;

    bool fits(size_t size) const;

    size_t size() const; // bytes of the largest buffer so far

private:
    struct shared_type;

    std::unique_ptr<shared_type> shared;
};
