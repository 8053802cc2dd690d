// What the model loader asks of a file's metadata: see llama_nextn_prepare_metadata.

#include "llama-nextn-state.h"

#include "llama-hparams.h"
#include "llama-impl.h"

#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

// Head-only files in the older form: "<arch>_mtp" names the architecture and prefixes its keys.
static const char * const nextn_legacy_suffix = "_mtp";

static size_t nextn_elem_size(gguf_type type) {
    switch (type) {
        case GGUF_TYPE_UINT8:
        case GGUF_TYPE_INT8:
        case GGUF_TYPE_BOOL:    return 1;
        case GGUF_TYPE_UINT16:
        case GGUF_TYPE_INT16:   return 2;
        case GGUF_TYPE_UINT32:
        case GGUF_TYPE_INT32:
        case GGUF_TYPE_FLOAT32: return 4;
        default:                return 8;
    }
}

static void nextn_copy_key(gguf_context * meta, int64_t id, const std::string & to) {
    const gguf_type type = gguf_get_kv_type(meta, id);
    switch (type) {
        case GGUF_TYPE_STRING: {
            const std::string value = gguf_get_val_str(meta, id); // a copy: setting a key can move the others
            gguf_set_val_str(meta, to.c_str(), value.c_str());
        } break;
        case GGUF_TYPE_ARRAY: {
            if (gguf_get_arr_type(meta, id) == GGUF_TYPE_STRING || gguf_get_arr_type(meta, id) == GGUF_TYPE_ARRAY) {
                throw std::runtime_error("metadata key for '" + to + "' is an array of a kind no architecture key has");
            }
            const auto                 elem = gguf_get_arr_type(meta, id);
            const size_t               n    = gguf_get_arr_n(meta, id);
            const auto *               data = static_cast<const uint8_t *>(gguf_get_arr_data(meta, id));
            const std::vector<uint8_t> copy(data, data + n * nextn_elem_size(elem));
            gguf_set_arr_data(meta, to.c_str(), elem, copy.data(), n);
        } break;
        case GGUF_TYPE_UINT8:   gguf_set_val_u8(meta, to.c_str(), gguf_get_val_u8(meta, id)); break;
        case GGUF_TYPE_INT8:    gguf_set_val_i8(meta, to.c_str(), gguf_get_val_i8(meta, id)); break;
        case GGUF_TYPE_UINT16:  gguf_set_val_u16(meta, to.c_str(), gguf_get_val_u16(meta, id)); break;
        case GGUF_TYPE_INT16:   gguf_set_val_i16(meta, to.c_str(), gguf_get_val_i16(meta, id)); break;
        case GGUF_TYPE_UINT32:  gguf_set_val_u32(meta, to.c_str(), gguf_get_val_u32(meta, id)); break;
        case GGUF_TYPE_INT32:   gguf_set_val_i32(meta, to.c_str(), gguf_get_val_i32(meta, id)); break;
        case GGUF_TYPE_FLOAT32: gguf_set_val_f32(meta, to.c_str(), gguf_get_val_f32(meta, id)); break;
        case GGUF_TYPE_BOOL:    gguf_set_val_bool(meta, to.c_str(), gguf_get_val_bool(meta, id)); break;
        case GGUF_TYPE_UINT64:  gguf_set_val_u64(meta, to.c_str(), gguf_get_val_u64(meta, id)); break;
        case GGUF_TYPE_INT64:   gguf_set_val_i64(meta, to.c_str(), gguf_get_val_i64(meta, id)); break;
        case GGUF_TYPE_FLOAT64: gguf_set_val_f64(meta, to.c_str(), gguf_get_val_f64(meta, id)); break;
        default:                throw std::runtime_error("metadata key for '" + to + "' has an unknown type");
    }
}

// The number of the NextN block, from its tensors' names; -1 when there is none.
static int nextn_block_of(const gguf_context * meta) {
    for (int64_t i = 0; i < gguf_get_n_tensors(meta); ++i) {
        int il = -1;
        int n  = 0;
        if (sscanf(gguf_get_tensor_name(meta, i), "blk.%d.nextn.eh_proj%n", &il, &n) == 1 && n > 0) {
            return il;
        }
    }
    return -1;
}

static void nextn_rename_legacy(gguf_context * meta, const std::string & arch_old) {
    const std::string arch = arch_old.substr(0, arch_old.size() - strlen(nextn_legacy_suffix));

    std::vector<std::string> keys;
    for (int64_t i = 0; i < gguf_get_n_kv(meta); ++i) {
        const std::string key = gguf_get_key(meta, i);
        if (key.compare(0, arch_old.size() + 1, arch_old + ".") == 0) {
            keys.push_back(key);
        }
    }
    for (const auto & key : keys) {
        nextn_copy_key(meta, gguf_find_key(meta, key.c_str()), arch + key.substr(arch_old.size()));
        gguf_remove_key(meta, key.c_str());
    }
    gguf_set_val_str(meta, "general.architecture", arch.c_str());

    const int il = nextn_block_of(meta);
    if (il < 0 || il >= LLAMA_MAX_LAYERS - 1) {
        throw std::runtime_error("a " + arch_old +
                                 " file without a blk.N.nextn.eh_proj tensor: it holds no NextN layer");
    }
    gguf_set_val_u32(meta, (arch + ".block_count").c_str(), il + 1);
    gguf_set_val_u32(meta, (arch + ".nextn_predict_layers").c_str(), 1);
}

// The value of an optional u32 key; throws when it has another type.
static int64_t nextn_get_u32(const gguf_context * meta, const std::string & key, int64_t fallback) {
    const int64_t id = gguf_find_key(meta, key.c_str());
    if (id < 0) {
        return fallback;
    }
    if (gguf_get_kv_type(meta, id) != GGUF_TYPE_UINT32) {
        throw std::runtime_error("metadata key '" + key + "' is not a u32");
    }
    return gguf_get_val_u32(meta, id);
}

void llama_nextn_prepare_metadata(gguf_context * meta) {
    const int64_t id = gguf_find_key(meta, "general.architecture");
    if (id < 0 || gguf_get_kv_type(meta, id) != GGUF_TYPE_STRING) {
        return; // the loader has its own words for that
    }
    std::string arch = gguf_get_val_str(meta, id);
    if (arch == "qwen35_mtp" || arch == "qwen35moe_mtp") {
        nextn_rename_legacy(meta, arch);
        arch = gguf_get_val_str(meta, gguf_find_key(meta, "general.architecture"));
    }
    if (arch != "qwen35" && arch != "qwen35moe" && arch != "qwen3next") {
        return;
    }
    const int64_t n_layer_all   = nextn_get_u32(meta, arch + ".block_count", 1);
    const int64_t n_layer_nextn = nextn_get_u32(meta, arch + ".nextn_predict_layers", 0);
    if (n_layer_all < 1 || n_layer_all > LLAMA_MAX_LAYERS) {
        throw std::runtime_error(format("%s.block_count is %lld, not within 1 to %d", arch.c_str(),
                                        (long long) n_layer_all, LLAMA_MAX_LAYERS));
    }
    if (n_layer_nextn >= n_layer_all) {
        throw std::runtime_error(format("%s.nextn_predict_layers is %lld of %lld blocks: no trunk is left",
                                        arch.c_str(), (long long) n_layer_nextn, (long long) n_layer_all));
    }
}
