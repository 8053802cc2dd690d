#pragma once

#include <memory>

// Owns what saves or restores a state. Its destructor moves the tensors, and may throw where a worker holds them:
// std::unique_ptr would end the process.
template <class T>
class llama_nextn_io {
public:
    llama_nextn_io() = default;
    ~llama_nextn_io() noexcept(false) { delete ptr; }

    llama_nextn_io(const llama_nextn_io &)             = delete;
    llama_nextn_io & operator=(const llama_nextn_io &) = delete;

    template <class U>
    llama_nextn_io & operator=(std::unique_ptr<U> other) {
        delete ptr;
        ptr = other.release();
        return *this;
    }

    T * operator->() const { return ptr; }
    T & operator*() const { return *ptr; }

private:
    T * ptr = nullptr;
};
