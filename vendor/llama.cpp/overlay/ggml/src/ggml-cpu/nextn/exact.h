// The CPU backend's answers to the questions of ggml-nextn.h.
#pragma once

#include "narrow.h"

// The function of this name, NULL when there is none.
void * ggml_nextn_get_proc_address(const char * name);

// What the engine keeps with weights that it repacked.
class ggml_nextn_repacked_weights {
public:
    virtual ggml_nextn_repacked nextn_layout() const = 0;

protected:
    ~ggml_nextn_repacked_weights() = default;
};
