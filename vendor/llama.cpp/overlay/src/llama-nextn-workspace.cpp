#include "llama-nextn-workspace.h"

#include "../ggml/src/ggml-backend-impl.h"
#include "ggml-cpp.h"

#include <algorithm>

struct llama_nextn_workspace::shared_type : ggml_backend_buffer_type {
    explicit shared_type(size_t capacity)
        : ggml_backend_buffer_type(*ggml_backend_cpu_buffer_type()), capacity(capacity) {
        iface.alloc_buffer = alloc;
    }

    static ggml_backend_buffer_t alloc(ggml_backend_buffer_type_t buft, size_t size) {
        return static_cast<shared_type *>(buft)->make(size);
    }

    ggml_backend_buffer_t make(size_t size) {
        if (size <= capacity && !memory) {
            memory.reset(ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), capacity));
        }
        if (size > capacity || !memory) {
            return ggml_backend_buft_alloc_buffer(ggml_backend_cpu_buffer_type(), size);
        }
        largest = std::max(largest, size);
        return ggml_backend_cpu_buffer_from_ptr(ggml_backend_buffer_get_base(memory.get()), size);
    }

    const size_t            capacity;
    size_t                  largest = 0;
    ggml_backend_buffer_ptr memory;
};

llama_nextn_workspace::llama_nextn_workspace(size_t capacity) : shared(new shared_type(capacity)) {}

llama_nextn_workspace::~llama_nextn_workspace() = default;

ggml_backend_buffer_type_t llama_nextn_workspace::type() const {
    return shared.get();
}

bool llama_nextn_workspace::fits(size_t size) const {
    return size <= shared->capacity;
}

size_t llama_nextn_workspace::size() const {
    return shared->largest;
}
