#include "workers.h"

#include "errors.h"

#include "ggml-rpc.h"

namespace nextn {

static ggml_backend_reg_t add_server(const std::string & address) {
    ggml_backend_reg_t rpc = ggml_backend_reg_by_name("RPC");
    if (!rpc) {
        throw Error(ErrorKind::Worker, "this build of nextn knows no workers: NEXTN_RPC left them out");
    }
    const auto add = reinterpret_cast<decltype(&ggml_backend_rpc_add_server)>(
        ggml_backend_reg_get_proc_address(rpc, "ggml_backend_rpc_add_server"));
    ggml_backend_reg_t server = add(address.c_str());
    if (!server) {
        throw Error(ErrorKind::Worker, "the worker " + address + " offers no device to compute on");
    }
    return server;
}

Workers::Workers(const std::vector<std::string> & addresses) {
    for (const std::string & address : addresses) {
        add(address);
    }
    if (!addresses.empty()) {
        add_gpus();
        list.push_back(nullptr);
    }
}

void Workers::add(const std::string & address) {
    ggml_backend_reg_t server = add_server(address);
    for (size_t i = 0; i < ggml_backend_reg_dev_count(server); ++i) {
        ggml_backend_dev_t device = ggml_backend_reg_dev_get(server, i);
        connections.emplace_back(
            ggml_backend_dev_init(device, nullptr)); // connects: the list may be of an earlier load
        list.push_back(device);
    }
}

void Workers::add_gpus() {
    for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
        ggml_backend_dev_t device = ggml_backend_dev_get(i);
        if (ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_GPU) {
            list.push_back(device);
        }
    }
}

} // namespace nextn
