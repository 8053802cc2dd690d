// The module nextn._core: a table of contents. One file per bound class, and what they share:
//   casters.h  arguments and results that Python objects turn into, so that the bodies run without the GIL
//   handles.h  owners of the engine's model and context       decode.h     the decode call and its checks
//   params.h   options, checked                               model_file.h what is wrong with a file, its metadata
//   views.h    rows as numpy arrays                           log.h        the engine's log lines
//   drafter.h  the draft engine                              imatrix.h    inputs of the weights, collected
//   errors.h   exceptions and return codes                    process.h    fork(), exit, signals

#include "errors.h"
#include "log.h"
#include "process.h"
#include "register.h"

PYBIND11_MODULE(_core, m) {
    m.doc() = "Native part of nextn: pybind11 bindings over the patched llama.cpp. Use it through nextn.Model and "
              "nextn.Context.";

    nextn::register_errors(m);
    nextn::install_log();
    nextn::register_process(m);

    nextn::register_engine(m);
    nextn::register_model(m);
    nextn::register_imatrix(m); // before the contexts, which take one
    nextn::register_context(m);
    nextn::register_drafter(m);
    nextn::register_length(m);
    nextn::register_chat(m);
    nextn::register_grammar(m);
    nextn::register_quantize(m);
}
