#include "narrow-kernel.h"

#include "ggml-cpu-impl.h"
#include "simd-mappings.h"
#include "vec.h"

#include <algorithm>
#include <type_traits>
#include <utility>

namespace nextn {

// F32 and F16 in the vector macros the engine's ggml_vec_dot_f32 and ggml_vec_dot_f16 are written in.
#if defined(GGML_SIMD) && !defined(__ARM_FEATURE_SVE) && !defined(__riscv_v_intrinsic)

struct type_f32 {
    using value  = float;
    using column = float;
    using sums   = float; // what the engine adds the rest to

    static constexpr int STEP = GGML_F32_STEP;
    static constexpr int EPR  = GGML_F32_EPR;
    static constexpr int ARR  = GGML_F32_ARR;
    using vector              = GGML_F32_VEC;
    using operand             = vector;

    static inline vector zero() { return GGML_F32_VEC_ZERO; }
    static inline vector load(const value * p, int) { return GGML_F32_VEC_LOAD(p); }
    static inline vector load_column(const column * p, int) { return GGML_F32_VEC_LOAD(p); }
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

    // Where the engine computes in F32, the columns are widened once.
    using column = std::conditional_t<GGML_F16_DOT_EPR == GGML_F32_EPR, float, ggml_fp16_t>;

    static inline vector zero() { return GGML_F16_DOT_VEC_ZERO; }
    static inline vector load(const value * p, int j) {
        GGML_UNUSED(j);
        return GGML_F16_DOT_VEC_LOAD(p, j);
    }
    static inline vector load_column(const float * p, int) { return GGML_F32_VEC_LOAD(p); }
    static inline vector load_column(const ggml_fp16_t * p, int j) { return load(p, j); }
    static void          widen(const value * in, float * out, int64_t n) { ggml_cpu_fp16_to_fp32(in, out, n); }
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
    using column              = ggml_bf16_t;
    static constexpr int STEP = 64;
    static constexpr int EPR  = 32;
    static constexpr int ARR  = 2;
    using vector              = __m512;
    using operand             = __m512i;

    static inline vector  zero() { return _mm512_setzero_ps(); }
    static inline operand load(const value * p, int) { return _mm512_loadu_si512(p); }
    static inline operand load_column(const column * p, int j) { return load(p, j); }
    static inline vector  fma(vector acc, operand a, operand b) { return _mm512_dpbf16_ps(acc, m512bh(a), m512bh(b)); }
#elif defined(__AVX512F__)
    using column              = float;
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
    static inline operand load_column(const column * p, int) { return _mm512_loadu_ps(p); }
    static inline vector  fma(vector acc, operand a, operand b) { return _mm512_add_ps(_mm512_mul_ps(a, b), acc); }
#else
    using column              = float;
    static constexpr int STEP = 32;
    static constexpr int EPR  = 8;
    static constexpr int ARR  = 4;
    using vector              = __m256;
    using operand             = __m256;

    static inline vector  zero() { return _mm256_setzero_ps(); }
    static inline operand load(const value * p, int) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *) p)), 16));
    }
    static inline operand load_column(const column * p, int) { return _mm256_loadu_ps(p); }
    static inline vector  fma(vector acc, operand a, operand b) { return _mm256_add_ps(_mm256_mul_ps(a, b), acc); }
#endif

    static void        widen(const value * in, float * out, int64_t n) { ggml_cpu_bf16_to_fp32(in, out, n); }
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

// A row is summed in ARR vectors that take turns, and the rest that does not fill them is added one by one.
template <typename T>
struct kernel_float {
    using value   = typename T::value;
    using column  = typename T::column;
    using vector  = typename T::vector;
    using operand = typename T::operand;

    static constexpr bool CONVERTS = !std::is_same_v<value, column>;

    // As many columns at once as can have their sums in three quarters of the registers.
#if defined(__AVX512F__) || defined(__aarch64__)
    static constexpr int GROUP = std::min(MAX_COLUMNS, 24 / T::ARR);
#else
    static constexpr int GROUP = std::min(MAX_COLUMNS, 12 / T::ARR);
#endif

    static size_t panel_size(int64_t n, int n_columns) { return CONVERTS ? n * n_columns * sizeof(column) : 0; }

    static void prepare(const narrow_product & p) {
        if constexpr (CONVERTS) {
            for (int c = 0; c < p.n_columns; ++c) {
                T::widen((const value *) p.columns[c], (column *) p.panel + c * p.n, p.n);
            }
        }
    }

    static void run(const narrow_product & p, int64_t r0, int64_t r1) {
        run(p, r0, r1, std::make_integer_sequence<int, GROUP>());
    }

    template <int... I>
    static void run(const narrow_product & p, int64_t r0, int64_t r1, std::integer_sequence<int, I...>) {
        static constexpr void (*table[])(const narrow_product &, int64_t, int) = {row_times<I + 1>...};

        const int n_groups = (p.n_columns + GROUP - 1) / GROUP;
        for (int64_t r = r0; r < r1; ++r) {
            for (int g = 0; g < n_groups; ++g) {
                const int c0 = g * p.n_columns / n_groups;
                const int c1 = (g + 1) * p.n_columns / n_groups;
                table[c1 - c0 - 1](p, r, c0);
            }
        }
    }

    template <int NC>
    static void row_times(const narrow_product & p, int64_t r, int c0) {
        const value *  x = (const value *) (p.weights + r * p.row_stride);
        const column * y[NC];
        vector         sum[NC][T::ARR];
        for (int c = 0; c < NC; ++c) {
            y[c] = CONVERTS ? (const column *) p.panel + (c0 + c) * p.n : (const column *) p.columns[c0 + c];
            for (int j = 0; j < T::ARR; ++j) {
                sum[c][j] = T::zero();
            }
        }
        const int64_t n_full = p.n - p.n % T::STEP;
        for (int64_t k = 0; k < n_full; k += T::STEP) {
            for (int j = 0; j < T::ARR; ++j) {
                const operand w = T::load(x + k + j * T::EPR, j);
                for (int c = 0; c < NC; ++c) {
                    sum[c][j] = T::fma(sum[c][j], w, T::load_column(y[c] + k + j * T::EPR, j));
                }
            }
        }
        for (int c = 0; c < NC; ++c) {
            typename T::sums total = T::reduce(sum[c]);
            for (int64_t k = n_full; k < p.n; ++k) {
                T::add_rest(total, x[k], ((const value *) p.columns[c0 + c])[k]);
            }
            p.out[c0 + c][r] = total;
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
