#pragma once

#include <pybind11/pybind11.h>

namespace nextn {

void register_engine(pybind11::module_ & m);
void register_model(pybind11::module_ & m);
void register_context(pybind11::module_ & m);
void register_drafter(pybind11::module_ & m);
void register_length(pybind11::module_ & m);
void register_chat(pybind11::module_ & m);
void register_grammar(pybind11::module_ & m);
void register_imatrix(pybind11::module_ & m);
void register_quantize(pybind11::module_ & m);

} // namespace nextn
