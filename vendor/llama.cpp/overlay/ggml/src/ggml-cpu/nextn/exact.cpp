#include "exact.h"

#include "attention.h"
#include "ggml-nextn.h"
#include "narrow-kernel.h"
#include "narrow.h"

#include "ggml-backend.h"
#include "ggml-cpp.h"
#include "ggml-cpu.h"
#include "ggml-impl.h"
#include "traits.h"

#include <cstring>

namespace nextn {

// Views, copies, and what the engine computes row by row (or value by value) with the same code for any number of rows.
static bool is_row_wise(ggml_op op) {
    switch (op) {
        case GGML_OP_NONE:
        case GGML_OP_RESHAPE:
        case GGML_OP_VIEW:
        case GGML_OP_PERMUTE:
        case GGML_OP_TRANSPOSE:
        case GGML_OP_DUP:
        case GGML_OP_CPY:
        case GGML_OP_CONT:
        case GGML_OP_CONCAT:
        case GGML_OP_REPEAT:
        case GGML_OP_GET_ROWS:
        case GGML_OP_SET_ROWS:
        case GGML_OP_ADD:
        case GGML_OP_ADD_ID:
        case GGML_OP_SUB:
        case GGML_OP_MUL:
        case GGML_OP_DIV:
        case GGML_OP_SCALE:
        case GGML_OP_CLAMP:
        case GGML_OP_SQR:
        case GGML_OP_SQRT:
        case GGML_OP_UNARY:
        case GGML_OP_GLU:
        case GGML_OP_NORM:
        case GGML_OP_RMS_NORM:
        case GGML_OP_L2_NORM:
        case GGML_OP_SUM_ROWS:
        case GGML_OP_ARGMAX:
        case GGML_OP_ARGSORT:
        case GGML_OP_TOP_K:
        case GGML_OP_SOFT_MAX:
        case GGML_OP_ROPE:
        case GGML_OP_SSM_CONV:  return true;
        default:                return false;
    }
}

// The memory that the engine's dispatch finds a kernel by, when it is not the plain one.
static ggml::cpu::tensor_traits * find_traits(const ggml_tensor * op) {
    for (ggml_backend_buffer_type_t kind : ggml_backend_cpu_get_extra_buffer_types()) {
        auto * extra = kind ? (ggml::cpu::extra_buffer_type *) kind->context : nullptr;
        if (auto * traits = extra ? extra->get_tensor_traits(op) : nullptr) {
            return traits;
        }
    }
    return nullptr;
}

// Whether the driver of narrow products takes a product: with several columns it takes all that are narrow enough, with
// one column those that have a kernel of ours. A product that it takes needs some work space.
static bool is_narrow_product(const ggml_tensor * op, ggml::cpu::tensor_traits * traits) {
    if (const auto * repacked = dynamic_cast<const ggml_nextn_repacked_weights *>(traits)) {
        return ggml_nextn_work_size_repacked(1, op, repacked->nextn_layout()) > 0;
    }
    return !traits && ggml_nextn_work_size(1, op) > 0;
}

static bool has_one_column(const ggml_tensor * op) {
    return (op->op == GGML_OP_MUL_MAT_ID ? op->src[2] : op->src[1])->ne[1] == 1;
}

// Computed here, or from a memory of types that the engine does not cut for a single token either.
static bool is_exact_attention(const ggml_tensor * op) {
    const ggml_type k = op->src[1]->type, v = op->src[2]->type;
    const bool      cut = k == v && (k == GGML_TYPE_F16 || k == GGML_TYPE_F32);
    return ggml_nextn_flash_attn_work_size(1, op) > 0 || (!cut && op->src[0]->ne[1] <= MAX_TOKENS);
}

static const char * inexact(const ggml_tensor * op) {
    const char * engine = narrow_level() < 1 ? "GGML_NEXTN_NARROW=0 in the environment switches the exact kernels off"
                                             : "so many tokens at once are computed as a prompt is";
    ggml::cpu::tensor_traits * traits = find_traits(op);
    if (traits && !dynamic_cast<const ggml_nextn_repacked_weights *>(traits)) {
        return "the kernels for weights in this memory take one token and several in different ways";
    }
    // what rotates the rows of a quantized memory is computed as a transform, row by row
    if (op->op == GGML_OP_MUL_MAT && ggml_get_op_params_i32(op, 1) == GGML_HINT_SRC0_IS_HADAMARD) {
        return nullptr;
    }
    switch (op->op) {
        case GGML_OP_MUL_MAT:
        case GGML_OP_MUL_MAT_ID:     return has_one_column(op) || is_narrow_product(op, traits) ? nullptr : engine;
        case GGML_OP_FLASH_ATTN_EXT: return is_exact_attention(op) ? nullptr : engine;
        // where it is not computed here, the engine takes its tokens one by one, however many there are
        case GGML_OP_GATED_DELTA_NET: return op->src[2]->ne[2] <= MAX_TOKENS ? nullptr : engine;
        default:                      return is_row_wise(op->op) ? nullptr : "this operation is not proven to be exact";
    }
}

// A product of one column and a weight matrix of this type in the memory that the engine would keep it in.
class sample_product {
public:
    explicit sample_product(ggml_type type) {
        const ggml_init_params params = {8 * ggml_tensor_overhead(), nullptr, /*no_alloc =*/true};
        context.reset(ggml_init(params));
        ggml_backend_dev_t device = ggml_backend_reg_dev_get(ggml_backend_cpu_reg(), 0);
        for (ggml_backend_buffer_type_t kind : ggml_backend_cpu_get_extra_buffer_types()) {
            ggml_tensor * weight = make(type);
            buffer.reset(kind ? ggml_backend_buft_alloc_buffer(kind, ggml_nbytes(weight)) : nullptr);
            if (buffer &&
                ggml_backend_tensor_alloc(buffer.get(), weight, ggml_backend_buffer_get_base(buffer.get())) ==
                    GGML_STATUS_SUCCESS &&
                ggml_backend_dev_supports_op(device, op)) {
                return;
            }
        }
        make(type);
    }

    ggml_tensor * op;

private:
    static constexpr int64_t N = 512, N_ROWS = 64;

    ggml_tensor * make(ggml_type type) {
        ggml_reset(context.get());
        ggml_tensor * weight = ggml_new_tensor_2d(context.get(), type, N, N_ROWS);
        op                   = ggml_mul_mat(context.get(), weight, ggml_new_tensor_1d(context.get(), GGML_TYPE_F32, N));
        return weight;
    }

    ggml_context_ptr        context;
    ggml_backend_buffer_ptr buffer;
};

static bool shares_columns(ggml_type type) {
    if (ggml_blck_size(type) == 0 || !ggml_get_type_traits_cpu(type)->vec_dot) {
        return false;
    }
    const sample_product sample(type);
    return is_narrow_product(sample.op, find_traits(sample.op));
}

} // namespace nextn

void * ggml_nextn_get_proc_address(const char * name) {
    if (strcmp(name, "ggml_nextn_inexact") == 0) {
        return (void *) (ggml_nextn_inexact_t) nextn::inexact;
    }
    if (strcmp(name, "ggml_nextn_shares_columns") == 0) {
        return (void *) (ggml_nextn_shares_columns_t) nextn::shares_columns;
    }
    return nullptr;
}
