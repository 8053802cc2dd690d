#include "attention-kernel.h"

#include "narrow-kernel.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "ggml-cpu-impl.h"
#include "vec.h"

#include <immintrin.h>

#include <algorithm>
#include <cstring>

namespace nextn {
namespace {

constexpr int R_MAX = ATTENTION_ROWS;
constexpr int CELLS = ATTENTION_CELLS;

// A product that is added to something is an fmadd() here, always: left to itself the compiler could contract the two
// in the code for one number of rows and not in that for another.

#if defined(__AVX512F__) && defined(__AVX512DQ__)

using floats            = __m512;
constexpr int LANES     = 16;
constexpr int REGISTERS = 16; // for sums

inline floats zeros() {
    return _mm512_setzero_ps();
}
inline floats all(float x) {
    return _mm512_set1_ps(x);
}
inline floats load(const float * p) {
    return _mm512_loadu_ps(p);
}
inline floats load(const ggml_half * p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) p));
}
inline floats load(const int8_t * p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *) p)));
}
inline void store(float * p, floats a) {
    _mm512_storeu_ps(p, a);
}
inline floats fmadd(floats a, floats b, floats c) {
    return _mm512_fmadd_ps(a, b, c);
}
inline floats mul(floats a, floats b) {
    return _mm512_mul_ps(a, b);
}
inline floats add(floats a, floats b) {
    return _mm512_add_ps(a, b);
}
inline floats sub(floats a, floats b) {
    return _mm512_sub_ps(a, b);
}
inline floats max(floats a, floats b) {
    return _mm512_max_ps(a, b);
}
inline floats select_equal(floats a, floats b, floats yes, floats no) {
    return _mm512_mask_mov_ps(no, _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ), yes);
}
inline floats repeat(__m128 a) {
    return _mm512_broadcast_f32x4(a);
}
inline __m128 first4(floats a) {
    return _mm512_castps512_ps128(a);
}
inline __m256 sum_halves(floats a) {
    return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
}
inline __m256 max_halves(floats a) {
    return _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
}

#else

using floats            = __m256;
constexpr int LANES     = 8;
constexpr int REGISTERS = 8;

inline floats zeros() {
    return _mm256_setzero_ps();
}
inline floats all(float x) {
    return _mm256_set1_ps(x);
}
inline floats load(const float * p) {
    return _mm256_loadu_ps(p);
}
inline floats load(const ggml_half * p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) p));
}
inline floats load(const int8_t * p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *) p)));
}
inline void store(float * p, floats a) {
    _mm256_storeu_ps(p, a);
}
inline floats fmadd(floats a, floats b, floats c) {
    return _mm256_fmadd_ps(a, b, c);
}
inline floats mul(floats a, floats b) {
    return _mm256_mul_ps(a, b);
}
inline floats add(floats a, floats b) {
    return _mm256_add_ps(a, b);
}
inline floats sub(floats a, floats b) {
    return _mm256_sub_ps(a, b);
}
inline floats max(floats a, floats b) {
    return _mm256_max_ps(a, b);
}
inline floats select_equal(floats a, floats b, floats yes, floats no) {
    return _mm256_blendv_ps(no, yes, _mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}
inline floats repeat(__m128 a) {
    return _mm256_broadcast_ps(&a);
}
inline __m128 first4(floats a) {
    return _mm256_castps256_ps128(a);
}
inline __m256 sum_halves(floats a) {
    return a;
}
inline __m256 max_halves(floats a) {
    return a;
}

#endif

// The sums over the lanes of four vectors.
inline __m128 sums(floats a0, floats a1, floats a2, floats a3) {
    const __m256 a01 = _mm256_hadd_ps(sum_halves(a0), sum_halves(a1));
    const __m256 a23 = _mm256_hadd_ps(sum_halves(a2), sum_halves(a3));
    const __m256 a   = _mm256_hadd_ps(a01, a23);
    return _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
}

// The memory's types: LANES of the elements of a cell from element i on.
struct of_f32 {
    static floats at(const char * cell, int64_t i) { return load((const float *) cell + i); }
};

struct of_f16 {
    static floats at(const char * cell, int64_t i) { return load((const ggml_half *) cell + i); }
};

struct of_q8_0 {
    static floats at(const char * cell, int64_t i) {
        const block_q8_0 & block = ((const block_q8_0 *) cell)[i / QK8_0];
        return mul(load(block.qs + i % QK8_0), all(GGML_CPU_FP16_TO_FP32(block.d)));
    }
};

// scores[cell][row] of N cells from the first on
template <typename K, int R, int N>
inline void score_cells(const attention_tile & t, int first, float * scores) {
    const char * k = t.k + first * t.k_stride;
    floats       sum[N][R_MAX];
    for (int c = 0; c < N; ++c) {
        for (int r = 0; r < R_MAX; ++r) {
            sum[c][r] = zeros();
        }
    }
    for (int64_t i = 0; i < t.d_k; i += LANES) {
        floats key[N];
        for (int c = 0; c < N; ++c) {
            key[c] = K::at(k + c * t.k_stride, i);
        }
        for (int r = 0; r < R; ++r) {
            const floats q = load(t.q[r] + i);
            for (int c = 0; c < N; ++c) {
                sum[c][r] = fmadd(key[c], q, sum[c][r]);
            }
        }
    }
    for (int c = 0; c < N; ++c) {
        _mm_storeu_ps(scores + (first + c) * R_MAX, sums(sum[c][0], sum[c][1], sum[c][2], sum[c][3]));
    }
}

template <typename K, int R>
void score(const attention_tile & t, float * scores) {
    constexpr int N = 8 / R; // enough sums at a time to hide the latency of one
    int           c = 0;
    for (; c + N <= t.n_cells; c += N) {
        score_cells<K, R, N>(t, c, scores);
    }
    for (; c < t.n_cells; ++c) {
        score_cells<K, R, 1>(t, c, scores);
    }
}

// What is added to the scores: masks[cell][row], minus infinity for rows and cells that are not there.
void read_masks(const attention_tile & t, float * masks) {
    alignas(64) float rows[R_MAX][CELLS];
    for (int r = 0; r < R_MAX; ++r) {
        if (r < t.n_rows && t.mask[r] && t.n_cells == CELLS) {
            for (int c = 0; c < CELLS; c += LANES) {
                store(rows[r] + c, load((const ggml_half *) t.mask[r] + c));
            }
            continue;
        }
        for (int c = 0; c < CELLS; ++c) {
            const bool exists = r < t.n_rows && c < t.n_cells;
            rows[r][c]        = !exists ? -INFINITY : t.mask[r] ? GGML_CPU_FP16_TO_FP32(t.mask[r][c]) : 0.0f;
        }
    }
    for (int c = 0; c < CELLS; c += 4) {
        __m128 a0 = _mm_load_ps(rows[0] + c), a1 = _mm_load_ps(rows[1] + c);
        __m128 a2 = _mm_load_ps(rows[2] + c), a3 = _mm_load_ps(rows[3] + c);
        _MM_TRANSPOSE4_PS(a0, a1, a2, a3);
        _mm_store_ps(masks + (c + 0) * R_MAX, a0);
        _mm_store_ps(masks + (c + 1) * R_MAX, a1);
        _mm_store_ps(masks + (c + 2) * R_MAX, a2);
        _mm_store_ps(masks + (c + 3) * R_MAX, a3);
    }
}

bool is_hidden(const attention_tile & t) {
    constexpr uint16_t minus_infinity = 0xFC00;
    for (int r = 0; r < t.n_rows; ++r) {
        if (!t.mask[r] ||
            !std::all_of(t.mask[r], t.mask[r] + t.n_cells, [](ggml_fp16_t m) { return m == minus_infinity; })) {
            return false;
        }
    }
    return true;
}

// Turn scores[cell][row] into weights; the maxima and sums of the rows go on, and scale is what the weights so far have
// to be multiplied with.
void weigh(const attention_tile & t, float * scores, float * scale) {
    constexpr int     N      = CELLS * R_MAX / LANES;
    const floats      least  = all(-200.0f); // exp(-200) is 0, and so it is for minus infinity less anything
    const floats      hidden = all(-INFINITY);
    alignas(64) float masks[CELLS * R_MAX];
    read_masks(t, masks);

    floats s[N];
    floats top = hidden;
    for (int i = 0; i < N; ++i) {
        const floats m = load(masks + i * LANES);
        s[i]           = select_equal(m, hidden, hidden, fmadd(load(scores + i * LANES), all(t.scale), m));
        top            = max(top, s[i]);
    }
    alignas(16) float max_old[R_MAX], sum_old[R_MAX];
    for (int r = 0; r < R_MAX; ++r) {
        max_old[r] = r < t.n_rows ? t.state[r][0] : -INFINITY;
        sum_old[r] = r < t.n_rows ? t.state[r][1] : 0.0f;
    }
    const __m256 top2 = max_halves(top);
    const __m128 m0   = _mm_load_ps(max_old);
    const __m128 m1   = _mm_max_ps(m0, _mm_max_ps(_mm256_castps256_ps128(top2), _mm256_extractf128_ps(top2, 1)));
    // a row that has seen no cell has no maximum to take off
    const __m128 base = _mm_andnot_ps(_mm_cmpeq_ps(m1, _mm_set1_ps(-INFINITY)), m1);
    const __m128 gone = _mm_max_ps(_mm_set1_ps(-200.0f), _mm_sub_ps(m0, base));
    const __m128 kept = _mm_blendv_ps(first4(ggml_v_expf(repeat(gone))), _mm_set1_ps(1.0f), _mm_cmpeq_ps(m0, m1));

    floats sum = zeros();
    for (int i = 0; i < N; ++i) {
        s[i] = ggml_v_expf(max(least, sub(s[i], repeat(base))));
        sum  = add(sum, s[i]);
        store(scores + i * LANES, s[i]);
    }
    const __m256 sum2 = sum_halves(sum);
    const __m128 sum1 = _mm_add_ps(_mm256_castps256_ps128(sum2), _mm256_extractf128_ps(sum2, 1));

    alignas(16) float max_new[R_MAX], sum_new[R_MAX];
    _mm_store_ps(max_new, m1);
    _mm_store_ps(sum_new, _mm_fmadd_ps(_mm_load_ps(sum_old), kept, sum1));
    _mm_storeu_ps(scale, kept);
    for (int r = 0; r < t.n_rows; ++r) {
        t.state[r][0] = max_new[r];
        t.state[r][1] = sum_new[r];
    }
}

// Add the values of the cells that have a weight, LANES * N elements from i on.
template <typename V, int R, int N>
inline void add_elements(const attention_tile & t, int64_t i, const float * weights, const float * scale,
                         const int * cells, int n_cells) {
    floats sum[R][N];
    for (int r = 0; r < R; ++r) {
        for (int n = 0; n < N; ++n) {
            sum[r][n] = mul(load(t.state[r] + 2 + i + n * LANES), all(scale[r]));
        }
    }
    for (int j = 0; j < n_cells; ++j) {
        const char * v = t.v + cells[j] * t.v_stride;
        floats       value[N];
        for (int n = 0; n < N; ++n) {
            value[n] = V::at(v, i + n * LANES);
        }
        for (int r = 0; r < R; ++r) {
            const floats weight = all(weights[cells[j] * R_MAX + r]);
            for (int n = 0; n < N; ++n) {
                sum[r][n] = fmadd(weight, value[n], sum[r][n]);
            }
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int n = 0; n < N; ++n) {
            store(t.state[r] + 2 + i + n * LANES, sum[r][n]);
        }
    }
}

template <typename V, int R>
void add_values(const attention_tile & t, const float * weights, const float * scale) {
    constexpr int N = REGISTERS / (R == 3 ? 4 : R);

    int cells[CELLS];
    int n_cells = 0;
    for (int c = 0; c < t.n_cells; ++c) {
        const __m128 w = _mm_load_ps(weights + c * R_MAX);
        cells[n_cells] = c;
        n_cells += _mm_movemask_ps(_mm_cmpneq_ps(w, _mm_setzero_ps())) != 0;
    }
    int64_t i = 0;
    for (; i + N * LANES <= t.d_v; i += N * LANES) {
        add_elements<V, R, N>(t, i, weights, scale, cells, n_cells);
    }
    for (; i < t.d_v; i += LANES) {
        add_elements<V, R, 1>(t, i, weights, scale, cells, n_cells);
    }
}

template <typename K, typename V, int R>
void compute(const attention_tile & t) {
    alignas(64) float scores[CELLS * R_MAX] = {};
    alignas(16) float scale[R_MAX];
    score<K, R>(t, scores);
    weigh(t, scores, scale);
    add_values<V, R>(t, scores, scale);
}

template <typename K, typename V>
void kernel(const attention_tile & t) {
    if (is_hidden(t)) {
        return;
    }
    switch (t.n_rows) {
        case 1:  return compute<K, V, 1>(t);
        case 2:  return compute<K, V, 2>(t);
        case 3:  return compute<K, V, 3>(t);
        default: return compute<K, V, 4>(t);
    }
}

template <typename K>
attention_kernel kernel_of(ggml_type v_type) {
    switch (v_type) {
        case GGML_TYPE_F32:  return kernel<K, of_f32>;
        case GGML_TYPE_F16:  return kernel<K, of_f16>;
        case GGML_TYPE_Q8_0: return kernel<K, of_q8_0>;
        default:             return nullptr;
    }
}

} // namespace

attention_kernel attention_kernel_x86(ggml_type k_type, ggml_type v_type, int64_t d_k, int64_t d_v) {
    if (d_k % 16 != 0 || d_v % 16 != 0) {
        return nullptr;
    }
    switch (k_type) {
        case GGML_TYPE_F32:  return kernel_of<of_f32>(v_type);
        case GGML_TYPE_F16:  return kernel_of<of_f16>(v_type);
        case GGML_TYPE_Q8_0: return kernel_of<of_q8_0>(v_type);
        default:             return nullptr;
    }
}

} // namespace nextn

#else

nextn::attention_kernel nextn::attention_kernel_x86(ggml_type, ggml_type, int64_t, int64_t) {
    return nullptr;
}

#endif
