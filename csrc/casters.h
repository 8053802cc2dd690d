#pragma once

// Arguments and results that pybind11 converts while it holds the GIL, so that the bound functions run without it. Each
// argument type knows its name, for its error text.

#include "model_file.h"
#include "views.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

namespace nextn {

// Token ids or positions of a decode: any sequence of integers, or an integer array of one dimension.
struct Tokens {
    static constexpr const char * name = "tokens";
    std::vector<int32_t> values;
};

struct Positions {
    static constexpr const char * name = "positions";
    std::vector<int32_t> values;
};

// float32 [n_rows, n_cols]; keeps the Python array alive.
struct Hidden {
    pybind11::object array;
    const float * data = nullptr;
    int64_t n_rows = 0;
    int64_t n_cols = 0;
};

// Python's bytes: a file's name, or text in UTF-8.
struct Bytes {
    std::string value;
};

// Named integers.
struct SeqId {
    static constexpr const char * name = "seq_id";
    int64_t value = 0;
};

struct P0 {
    static constexpr const char * name = "p0";
    int64_t value = 0;
};

struct P1 {
    static constexpr const char * name = "p1";
    int64_t value = 0;
};

struct Token {
    static constexpr const char * name = "token";
    int64_t value = 0;
};

// Throw TypeError or ValueError naming the argument.
std::vector<int32_t> to_int32s(const char * name, pybind11::handle source);
int64_t to_int64(const char * name, pybind11::handle source);
Hidden to_hidden(pybind11::handle source);
pybind11::dict to_dict(const GgufPtr & metadata);

} // namespace nextn

namespace pybind11::detail {

template <class T>
struct int32s_caster {
    PYBIND11_TYPE_CASTER(T,
                         const_name("collections.abc.Sequence[int] | numpy.typing.NDArray[numpy.integer[typing.Any]]"));

    bool load(handle source, bool) {
        value.values = nextn::to_int32s(T::name, source);
        return true;
    }
};

template <>
struct type_caster<nextn::Tokens> : int32s_caster<nextn::Tokens> {};

template <>
struct type_caster<nextn::Positions> : int32s_caster<nextn::Positions> {};

template <class T>
struct int64_caster {
    PYBIND11_TYPE_CASTER(T, const_name("int"));

    bool load(handle source, bool) {
        value.value = nextn::to_int64(T::name, source);
        return true;
    }
};

template <>
struct type_caster<nextn::SeqId> : int64_caster<nextn::SeqId> {};

template <>
struct type_caster<nextn::P0> : int64_caster<nextn::P0> {};

template <>
struct type_caster<nextn::P1> : int64_caster<nextn::P1> {};

template <>
struct type_caster<nextn::Token> : int64_caster<nextn::Token> {};

template <>
struct type_caster<nextn::Bytes> {
    PYBIND11_TYPE_CASTER(nextn::Bytes, const_name("bytes"));

    bool load(handle source, bool) {
        if (!PyBytes_Check(source.ptr())) {
            return false;
        }
        value.value = reinterpret_borrow<bytes>(source);
        return true;
    }

    static handle cast(const nextn::Bytes & source, return_value_policy, handle) {
        return bytes(source.value).release();
    }
};

template <>
struct type_caster<nextn::Hidden> {
    PYBIND11_TYPE_CASTER(nextn::Hidden, const_name("numpy.typing.NDArray[numpy.float32]"));

    bool load(handle source, bool) {
        value = nextn::to_hidden(source);
        return true;
    }
};

template <>
struct type_caster<nextn::Rows> {
    PYBIND11_TYPE_CASTER(nextn::Rows, const_name("numpy.typing.NDArray[numpy.float32]"));

    static handle cast(nextn::Rows && rows, return_value_policy, handle) {
        return nextn::to_numpy(std::move(rows)).release();
    }
};

template <>
struct type_caster<nextn::RowsView> {
    PYBIND11_TYPE_CASTER(nextn::RowsView, const_name("numpy.typing.NDArray[numpy.float32]"));

    static handle cast(nextn::RowsView && rows, return_value_policy, handle) {
        return nextn::to_numpy(std::move(rows)).release();
    }
};

template <>
struct type_caster<nextn::GgufPtr> {
    PYBIND11_TYPE_CASTER(nextn::GgufPtr, const_name("dict[str, object]"));

    static handle cast(nextn::GgufPtr && metadata, return_value_policy, handle) {
        return nextn::to_dict(metadata).release();
    }
};

} // namespace pybind11::detail
