#pragma once

// Python objects that the engine takes as JSON text, written while the GIL is held.

#include <pybind11/pybind11.h>

#include <map>
#include <string>

namespace nextn {

struct Messages {
    static constexpr const char * name = "messages";
    std::string json;
};

struct Tools {
    static constexpr const char * name = "tools";
    std::string json = "[]";
};

// Each value as JSON text, by name.
struct TemplateKwargs {
    std::map<std::string, std::string> json;
};

// Throws TypeError naming the argument when the object has no JSON form.
std::string to_json(const char * name, pybind11::handle source);

} // namespace nextn

namespace pybind11::detail {

template <class T>
struct json_list_caster {
    PYBIND11_TYPE_CASTER(T, const_name("collections.abc.Sequence[collections.abc.Mapping[str, object]]"));

    bool load(handle source, bool) {
        value.json = nextn::to_json(T::name, source);
        return true;
    }
};

template <>
struct type_caster<nextn::Messages> : json_list_caster<nextn::Messages> {};

template <>
struct type_caster<nextn::Tools> : json_list_caster<nextn::Tools> {};

template <>
struct type_caster<nextn::TemplateKwargs> {
    PYBIND11_TYPE_CASTER(nextn::TemplateKwargs, const_name("dict[str, object]"));

    bool load(handle source, bool) {
        if (!PyDict_Check(source.ptr())) {
            throw type_error("chat_template_kwargs must be a dict");
        }
        for (const auto & [key, item] : reinterpret_borrow<dict>(source)) {
            const auto key_name = str(key).cast<std::string>();
            value.json[key_name] = nextn::to_json(("chat_template_kwargs[\"" + key_name + "\"]").c_str(), item);
        }
        return true;
    }
};

} // namespace pybind11::detail
