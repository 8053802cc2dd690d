#include "narrow-kernel.h"

#include "ggml-cpu-impl.h"
#include "simd-mappings.h"
#include "vec.h"

namespace nextn {

// F32 and F16 in the vector macros the engine's ggml_vec_dot_f32 and ggml_vec_dot_f16 are written in.
#if defined(GGML_SIMD) && !defined(__ARM_FEATURE_SVE) && !defined(__riscv_v_intrinsic)

struct type_f32 {
    using value = float;
    using sums  = float; // what the engine adds the rest to

    static constexpr int STEP = GGML_F32_STEP;
    static constexpr int EPR  = GGML_F32_EPR;
    static constexpr int ARR  = GGML_F32_ARR;
    using vector              = GGML_F32_VEC;
    using operand             = vector;

    static inline vector zero() { return GGML_F32_VEC_ZERO; }
    static inline vector load(const value * p, int) { return GGML_F32_VEC_LOAD(p); }
    static inline vector fma(vector acc, vector a, vector b) { return GGML_F32_VEC_FMA(acc, a, b); }
    static inline sums   reduce(vector (&sum)[ARR]) {
        sums total = 0;
        GGML_F32_VEC_REDUCE(total, sum);
        return total;
    }
    static inline void add_rest(sums & total, value a, value b) { total += a * b; }
};

struct type_f16 {
    using value = ggml_fp16_t;
    using sums  = ggml_float;

    static constexpr int STEP = GGML_F16_DOT_STEP;
    static constexpr int EPR  = GGML_F16_DOT_EPR;
    static constexpr int ARR  = GGML_F16_DOT_ARR;
    using vector              = GGML_F16_DOT_VEC;
    using operand             = vector;

    static inline vector zero() { return GGML_F16_DOT_VEC_ZERO; }
    static inline vector load(const value * p, int j) {
        GGML_UNUSED(j);
        return GGML_F16_DOT_VEC_LOAD(p, j);
    }
    static inline vector fma(vector acc, vector a, vector b) { return GGML_F16_DOT_VEC_FMA(acc, a, b); }
    static inline sums   reduce(vector (&sum)[ARR]) {
        sums total = 0;
        GGML_F16_DOT_VEC_REDUCE(total, sum);
        return total;
    }
    static inline void add_rest(sums & total, value a, value b) {
        total += (ggml_float) (GGML_CPU_FP16_TO_FP32(a) * GGML_CPU_FP16_TO_FP32(b));
    }
};

#define NEXTN_HAS_F32_F16
#endif

// BF16 as in the engine's ggml_vec_dot_bf16, which is written out for each instruction set.
#if defined(__AVX2__)

struct type_bf16 {
    using value = ggml_bf16_t;
    using sums  = ggml_float;

#if defined(__AVX512BF16__)
    static constexpr int STEP = 64;
    static constexpr int EPR  = 32;
    static constexpr int ARR  = 2;
    using vector              = __m512;
    using operand             = __m512i;

    static inline vector  zero() { return _mm512_setzero_ps(); }
    static inline operand load(const value * p, int) { return _mm512_loadu_si512(p); }
    static inline vector  fma(vector acc, operand a, operand b) { return _mm512_dpbf16_ps(acc, m512bh(a), m512bh(b)); }
#elif defined(__AVX512F__)
    static constexpr int STEP = 32;
    static constexpr int EPR  = 16;
    static constexpr int ARR  = 2;
    using vector              = __m512;
    using operand             = __m512;

    static inline vector  zero() { return _mm512_setzero_ps(); }
    static inline operand load(const value * p, int) {
        return _mm512_castsi512_ps(
            _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *) p)), 16));
    }
    static inline vector fma(vector acc, operand a, operand b) { return _mm512_add_ps(_mm512_mul_ps(a, b), acc); }
#else
    static constexpr int STEP = 32;
    static constexpr int EPR  = 8;
    static constexpr int ARR  = 4;
    using vector              = __m256;
    using operand             = __m256;

    static inline vector  zero() { return _mm256_setzero_ps(); }
    static inline operand load(const value * p, int) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *) p)), 16));
    }
    static inline vector fma(vector acc, operand a, operand b) { return _mm256_add_ps(_mm256_mul_ps(a, b), acc); }
#endif

    static inline sums reduce(vector (&sum)[ARR]) {
#if defined(__AVX512F__)
        return (sums) _mm512_reduce_add_ps(sum[0]) + (sums) _mm512_reduce_add_ps(sum[1]);
#else
        const __m256 all  = _mm256_add_ps(_mm256_add_ps(sum[0], sum[2]), _mm256_add_ps(sum[1], sum[3]));
        __m128       half = _mm_add_ps(_mm256_extractf128_ps(all, 1), _mm256_castps256_ps128(all));
        half              = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
#endif
    }
    static inline void add_rest(sums & total, value a, value b) {
        total += (ggml_float) (GGML_BF16_TO_FP32(a) * GGML_BF16_TO_FP32(b));
    }
};

#define NEXTN_HAS_BF16
#endif

// A row is summed in ARR vectors that take turns, and the rest that does not fill them is added one by one. The vectors
// are independent, so they are summed one after the other here, each for several rows and all columns at once.
template <typename T>
struct kernel_float {
    using value   = typename T::value;
    using vector  = typename T::vector;
    using operand = typename T::operand;

    static constexpr int ROWS = 2;

    static size_t panel_size(int64_t, int) { return 0; }
    static void   prepare(const narrow_product &) {}

    static void run(const narrow_product & p, int64_t r0, int64_t r1) {
        for (int64_t r = r0; r < r1; r += ROWS) {
            int c = 0;
            for (; c + 4 < p.n_columns; c += 3) { // no group is left with a single column
                rows_times<3>(p, r, r1, c);
            }
            switch (p.n_columns - c) {
                case 4:  rows_times<4>(p, r, r1, c); break;
                case 3:  rows_times<3>(p, r, r1, c); break;
                case 2:  rows_times<2>(p, r, r1, c); break;
                default: rows_times<1>(p, r, r1, c); break;
            }
        }
    }

    template <int NC>
    static void rows_times(const narrow_product & p, int64_t r, int64_t end, int c0) {
        const value * x[ROWS];
        for (int i = 0; i < ROWS; ++i) {
            x[i] = (const value *) (p.weights + (r + i < end ? r + i : r) * p.row_stride);
        }
        const value * y[NC];
        for (int c = 0; c < NC; ++c) {
            y[c] = (const value *) p.columns[c0 + c];
        }
        const int64_t n_full = p.n - p.n % T::STEP;

        vector sum[ROWS][NC][T::ARR];
        for (int j = 0; j < T::ARR; ++j) {
            vector acc[ROWS][NC];
            for (int i = 0; i < ROWS; ++i) {
                for (int c = 0; c < NC; ++c) {
                    acc[i][c] = T::zero();
                }
            }
            for (int64_t k = j * T::EPR; k < n_full; k += T::STEP) {
                operand w[ROWS];
                for (int i = 0; i < ROWS; ++i) {
                    w[i] = T::load(x[i] + k, j);
                }
                for (int c = 0; c < NC; ++c) {
                    const operand column = T::load(y[c] + k, j);
                    for (int i = 0; i < ROWS; ++i) {
                        acc[i][c] = T::fma(acc[i][c], w[i], column);
                    }
                }
            }
            for (int i = 0; i < ROWS; ++i) {
                for (int c = 0; c < NC; ++c) {
                    sum[i][c][j] = acc[i][c];
                }
            }
        }
        for (int i = 0; i < ROWS && r + i < end; ++i) {
            for (int c = 0; c < NC; ++c) {
                typename T::sums total = T::reduce(sum[i][c]);
                for (int64_t k = n_full; k < p.n; ++k) {
                    T::add_rest(total, x[i][k], y[c][k]);
                }
                p.out[c0 + c][r + i] = total;
            }
        }
    }

    static const narrow_kernel * kernel() {
        static const narrow_kernel k = {1, panel_size, prepare, run};
        return &k;
    }
};

const narrow_kernel * narrow_kernel_float(const weight_layout & layout) {
    switch (layout.type) {
#ifdef NEXTN_HAS_F32_F16
        case GGML_TYPE_F32: return kernel_float<type_f32>::kernel();
        case GGML_TYPE_F16: return kernel_float<type_f16>::kernel();
#endif
#ifdef NEXTN_HAS_BF16
        case GGML_TYPE_BF16: return kernel_float<type_bf16>::kernel();
#endif
        default: return nullptr;
    }
}

} // namespace nextn
