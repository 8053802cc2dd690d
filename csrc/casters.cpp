#include "casters.h"

#include "errors.h"

#include <climits>
#include <cstring>
#include <string>

namespace py = pybind11;

namespace nextn {

static std::string type_name(py::handle object) {
    return Py_TYPE(object.ptr())->tp_name;
}

static std::string text_of(py::handle object) {
    return py::str(object).cast<std::string>();
}

int64_t to_int64(const char * name, py::handle source) {
    const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(source.ptr()));
    if (!index) {
        PyErr_Clear();
        throw py::type_error(std::string(name) + " must be an integer, not " + type_name(source));
    }
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
    if (overflow != 0) {
        throw py::value_error(std::string(name) + " is " + text_of(index) + ", out of range");
    }
    return value;
}

static int32_t to_int32(const char * name, size_t i, int64_t value) {
    if (value < INT32_MIN || value > INT32_MAX) {
        throw py::value_error(strf("%s[%zu] is %lld, out of range", name, i, static_cast<long long>(value)));
    }
    return static_cast<int32_t>(value);
}

static std::vector<int32_t> from_array(const char * name, const py::array & array) {
    const char kind = array.dtype().kind();
    if (kind != 'i' && kind != 'u') {
        throw py::type_error(std::string(name) + " must be integers, not an array of " + text_of(array.dtype()));
    }
    if (array.ndim() != 1) {
        throw py::value_error(
            strf("%s must have one dimension [n_tokens], not %d", name, static_cast<int>(array.ndim())));
    }
    if (kind == 'u' && array.itemsize() == 8) { // would wrap around below
        return to_int32s(name, array.attr("tolist")());
    }
    const auto values = py::array_t<int64_t, py::array::c_style | py::array::forcecast>(array);
    std::vector<int32_t> result(values.size());
    for (size_t i = 0; i < result.size(); ++i) {
        result[i] = to_int32(name, i, values.data()[i]);
    }
    return result;
}

std::vector<int32_t> to_int32s(const char * name, py::handle source) {
    if (py::isinstance<py::array>(source)) {
        return from_array(name, py::reinterpret_borrow<py::array>(source));
    }
    const bool text = PyUnicode_Check(source.ptr()) || PyBytes_Check(source.ptr());
    if (text || !PySequence_Check(source.ptr())) {
        throw py::type_error(std::string(name) + " must be a sequence of integers, not " + type_name(source));
    }
    const auto items = py::reinterpret_steal<py::tuple>(PySequence_Tuple(source.ptr()));
    if (!items) {
        throw py::error_already_set();
    }
    std::vector<int32_t> result(items.size());
    for (size_t i = 0; i < result.size(); ++i) {
        PyObject * item = PyTuple_GET_ITEM(items.ptr(), i);
        if (PyLong_CheckExact(item)) { // the usual case, without a name for each item
            int overflow = 0;
            const long long value = PyLong_AsLongLongAndOverflow(item, &overflow);
            result[i] = to_int32(name, i, overflow == 0 ? value : overflow * LLONG_MAX);
        } else {
            result[i] = to_int32(name, i, to_int64(strf("%s[%zu]", name, i).c_str(), item));
        }
    }
    return result;
}

Hidden to_hidden(py::handle source) {
    if (!py::isinstance<py::array>(source)) {
        throw py::type_error("hidden must be a float32 array [n_tokens, n_embd], not " + type_name(source));
    }
    const auto array = py::reinterpret_borrow<py::array>(source);
    if (!py::isinstance<py::array_t<float>>(array)) {
        throw py::type_error("hidden must be a float32 array [n_tokens, n_embd], not one of " + text_of(array.dtype()));
    }
    if (array.ndim() != 2) {
        throw py::value_error(
            strf("hidden must have two dimensions [n_tokens, n_embd], not %d", static_cast<int>(array.ndim())));
    }
    py::array_t<float, py::array::c_style> contiguous(array);
    const float * data = contiguous.data();
    return {std::move(contiguous), data, array.shape(0), array.shape(1)};
}

//
// metadata
//

// UTF-8, and what is none is kept as lone surrogates.
static py::object to_str(const char * text) {
    return py::reinterpret_steal<py::object>(
        PyUnicode_DecodeUTF8(text, static_cast<py::ssize_t>(std::strlen(text)), "surrogateescape"));
}

static py::object to_number(gguf_type type, const void * data, size_t i) {
    switch (type) {
    case GGUF_TYPE_UINT8:
        return py::int_(static_cast<const uint8_t *>(data)[i]);
    case GGUF_TYPE_INT8:
        return py::int_(static_cast<const int8_t *>(data)[i]);
    case GGUF_TYPE_UINT16:
        return py::int_(static_cast<const uint16_t *>(data)[i]);
    case GGUF_TYPE_INT16:
        return py::int_(static_cast<const int16_t *>(data)[i]);
    case GGUF_TYPE_UINT32:
        return py::int_(static_cast<const uint32_t *>(data)[i]);
    case GGUF_TYPE_INT32:
        return py::int_(static_cast<const int32_t *>(data)[i]);
    case GGUF_TYPE_UINT64:
        return py::int_(static_cast<const uint64_t *>(data)[i]);
    case GGUF_TYPE_INT64:
        return py::int_(static_cast<const int64_t *>(data)[i]);
    case GGUF_TYPE_FLOAT32:
        return py::float_(static_cast<const float *>(data)[i]);
    case GGUF_TYPE_FLOAT64:
        return py::float_(static_cast<const double *>(data)[i]);
    case GGUF_TYPE_BOOL:
        return py::bool_(static_cast<const int8_t *>(data)[i] != 0);
    default:
        return py::none(); // no such type in a file the engine reads
    }
}

static py::object to_list(const gguf_context * gguf, int64_t id) {
    const gguf_type type = gguf_get_arr_type(gguf, id);
    const size_t n = gguf_get_arr_n(gguf, id);
    py::list list(n);
    for (size_t i = 0; i < n; ++i) {
        list[i] = type == GGUF_TYPE_STRING ? to_str(gguf_get_arr_str(gguf, id, i))
                                           : to_number(type, gguf_get_arr_data(gguf, id), i);
    }
    return list;
}

static py::object to_value(const gguf_context * gguf, int64_t id) {
    const gguf_type type = gguf_get_kv_type(gguf, id);
    if (type == GGUF_TYPE_ARRAY) {
        return to_list(gguf, id);
    }
    if (type == GGUF_TYPE_STRING) {
        return to_str(gguf_get_val_str(gguf, id));
    }
    return to_number(type, gguf_get_val_data(gguf, id), 0);
}

py::dict to_dict(const GgufPtr & metadata) {
    py::dict dict;
    for (int64_t i = 0; i < gguf_get_n_kv(metadata.get()); ++i) {
        dict[to_str(gguf_get_key(metadata.get(), i))] = to_value(metadata.get(), i);
    }
    return dict;
}

} // namespace nextn
