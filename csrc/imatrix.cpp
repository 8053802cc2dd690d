#include "imatrix.h"

#include "ggml-backend.h"

#include <cstring>

namespace nextn {

// Weights of the blocks; the output matrix is left to the quantizer's own choice, as in upstream's collector. A view
// (the draft head's shortlist is one) is no tensor of the file.
static bool is_block_weight(const ggml_tensor * tensor) {
    return !tensor->view_src && std::strncmp(tensor->name, "blk.", 4) == 0 &&
           std::strstr(tensor->name, ".weight") != nullptr;
}

bool Imatrix::on_node(ggml_tensor * node, bool ask, void * self) {
    if (!ask) {
        static_cast<Imatrix *>(self)->collect(node);
        return true;
    }
    const bool product = node->op == GGML_OP_MUL_MAT || node->op == GGML_OP_MUL_MAT_ID;
    return product && node->src[1]->type == GGML_TYPE_F32 && is_block_weight(node->src[0]);
}

// The tensor's bytes where this thread can read them.
static const char * read_back(const ggml_tensor * tensor, std::vector<char> & buffer) {
    if (ggml_backend_buffer_is_host(tensor->buffer)) {
        return static_cast<const char *>(tensor->data);
    }
    buffer.resize(ggml_nbytes(tensor));
    ggml_backend_tensor_get(tensor, buffer.data(), 0, buffer.size());
    return buffer.data();
}

void Imatrix::collect(const ggml_tensor * node) {
    std::vector<char> buffer;
    const char * data = read_back(node->src[1], buffer);
    const std::lock_guard lock(mutex);
    if (node->op == GGML_OP_MUL_MAT) {
        add_rows(node->src[0], node->src[1], data);
    } else {
        add_routed_rows(node->src[0], node->src[1], data, node->src[2]);
    }
}

InputSquares & Imatrix::entry_for(const ggml_tensor * weight, int64_t n_col, int64_t n_matrix) {
    InputSquares & entry = by_name[weight->name];
    if (entry.counts.empty()) {
        entry.n_col = n_col;
        entry.sums.resize(n_col * n_matrix);
        entry.counts.resize(n_matrix);
    }
    return entry;
}

static void add_squares(const char * row, int64_t n_col, double * sums) {
    const auto * x = reinterpret_cast<const float *>(row);
    for (int64_t j = 0; j < n_col; ++j) {
        sums[j] += static_cast<double>(x[j]) * x[j];
    }
}

// input [n_col, n_row, ...]: every row meets the whole weight
void Imatrix::add_rows(const ggml_tensor * weight, const ggml_tensor * input, const char * data) {
    InputSquares & entry = entry_for(weight, input->ne[0], 1);
    for (int64_t i3 = 0; i3 < input->ne[3]; ++i3) {
        for (int64_t i2 = 0; i2 < input->ne[2]; ++i2) {
            for (int64_t i1 = 0; i1 < input->ne[1]; ++i1) {
                const char * row = data + i1 * input->nb[1] + i2 * input->nb[2] + i3 * input->nb[3];
                add_squares(row, input->ne[0], entry.sums.data());
                entry.counts[0]++;
            }
        }
    }
}

// input [n_col, n_used or 1, n_token], ids [n_used, n_token]: each row meets the experts chosen for its token
void Imatrix::add_routed_rows(const ggml_tensor * weight, const ggml_tensor * input, const char * data,
                              const ggml_tensor * ids) {
    InputSquares & entry = entry_for(weight, input->ne[0], weight->ne[2]);
    std::vector<char> buffer;
    const char * chosen = read_back(ids, buffer);
    for (int64_t token = 0; token < ids->ne[1]; ++token) {
        for (int64_t i = 0; i < ids->ne[0]; ++i) {
            int32_t expert = 0;
            std::memcpy(&expert, chosen + i * ids->nb[0] + token * ids->nb[1], sizeof(expert));
            if (expert < 0 || expert >= weight->ne[2]) {
                continue;
            }
            const char * row = data + (i % input->ne[1]) * input->nb[1] + token * input->nb[2];
            add_squares(row, entry.n_col, entry.sums.data() + expert * entry.n_col);
            entry.counts[expert]++;
        }
    }
}

std::map<std::string, InputSquares> Imatrix::entries() const {
    const std::lock_guard lock(mutex);
    return by_name;
}

} // namespace nextn
