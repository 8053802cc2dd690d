#include "narrow-kernel.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#define GGML_COMMON_IMPL_CPP
#include "ggml-common.h"

#include "narrow-x86-interleaved.h"
#include "narrow-x86-rows.h"

namespace nextn {

const narrow_kernel * narrow_kernel_x86(const weight_layout & layout) {
    if (layout.n_rows == 8 && layout.interleave == 8) {
        switch (layout.type) {
            case GGML_TYPE_Q4_0:   return by_columns<kernel_8x8<type_q4_0_8x8>>::kernel();
            case GGML_TYPE_IQ4_NL: return by_columns<kernel_8x8<type_iq4_nl_8x8>>::kernel();
            case GGML_TYPE_Q4_K:   return by_columns<kernel_k_8x8<type_q4_K_8x8>>::kernel();
            case GGML_TYPE_Q2_K:   return by_columns<kernel_k_8x8<type_q2_K_8x8>>::kernel();
            default:               return nullptr;
        }
    }
    if (layout.n_rows != 1) {
        return nullptr;
    }
    switch (layout.type) {
        case GGML_TYPE_Q8_0:   return by_columns<kernel_32<type_q8_0>>::kernel();
        case GGML_TYPE_Q4_0:   return by_columns<kernel_32<type_q4_0>>::kernel();
        case GGML_TYPE_Q4_1:   return by_columns<kernel_32<type_q4_1>>::kernel();
        case GGML_TYPE_Q5_0:   return by_columns<kernel_32<type_q5_0>>::kernel();
        case GGML_TYPE_Q5_1:   return by_columns<kernel_32<type_q5_1>>::kernel();
        case GGML_TYPE_IQ4_NL: return by_columns<kernel_32<type_iq4_nl>>::kernel();
        case GGML_TYPE_Q2_K:   return by_columns<kernel_k<type_q2_K>>::kernel();
        case GGML_TYPE_Q3_K:   return by_columns<kernel_k<type_q3_K>>::kernel();
        case GGML_TYPE_Q4_K:   return by_columns<kernel_k<type_q4_K>>::kernel();
        case GGML_TYPE_Q5_K:   return by_columns<kernel_k<type_q5_K>>::kernel();
        case GGML_TYPE_Q6_K:   return by_columns<kernel_k<type_q6_K>>::kernel();
        case GGML_TYPE_IQ4_XS: return by_columns<kernel_k<type_iq4_xs>>::kernel();
        default:               return nullptr;
    }
}

} // namespace nextn

#else

const nextn::narrow_kernel * nextn::narrow_kernel_x86(const weight_layout &) {
    return nullptr;
}

#endif
