#pragma once

// Workers on other machines (llama.cpp's RPC backend), and what a model is laid out over.

#include "ggml-backend.h"
#include "ggml-cpp.h"

#include <string>
#include <vector>

namespace nextn {

// Connected to while it lives; what is loaded meanwhile keeps the connections. Nothing is registered in the engine: a
// model that names no worker uses none. Throws WorkerError.
class Workers {
  public:
    explicit Workers(const std::vector<std::string> & addresses);

    // For llama_model_params: the workers' devices, then this machine's; null without workers, which means the default.
    ggml_backend_dev_t * devices() { return list.empty() ? nullptr : list.data(); }

  private:
    void add(const std::string & address);
    void add_gpus();

    std::vector<ggml_backend_dev_t> list;
    std::vector<ggml_backend_ptr> connections;
};

} // namespace nextn
