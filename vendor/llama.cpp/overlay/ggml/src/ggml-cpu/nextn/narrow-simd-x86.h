// One vector type for the x86 kernels. With AVX-512 and VNNI a vector holds 32 bytes of two weight rows, one per half;
// with AVX2 it holds 32 bytes of one. Either way a row keeps the eight float lanes the engine's own kernels sum in.
#pragma once

#include "ggml-cpu-impl.h"

#include <cstdint>
#include <cstring>
#include <immintrin.h>

namespace nextn::simd {

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) &&                 \
    defined(__AVX512VNNI__)

#define NEXTN_SIMD_VNNI

constexpr int ROWS      = 2;
constexpr int REGISTERS = 32;

using ints   = __m512i;
using floats = __m512;

inline ints join(__m256i row0, __m256i row1) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(row0), row1, 1);
}

inline ints load_each(const void * row0, const void * row1) {
    return join(_mm256_loadu_si256((const __m256i *) row0), _mm256_loadu_si256((const __m256i *) row1));
}
inline ints load_each_half_twice(const void * row0, const void * row1) {
    return join(_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) row0)),
                _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) row1)));
}
inline ints load_all(const void * p) {
    return _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *) p));
}

inline ints zero() {
    return _mm512_setzero_si512();
}
inline ints all8(int x) {
    return _mm512_set1_epi8(x);
}
inline ints all16(int x) {
    return _mm512_set1_epi16(x);
}
inline ints all32(int x) {
    return _mm512_set1_epi32(x);
}
inline floats allf(float x) {
    return _mm512_set1_ps(x);
}
inline floats each_half(ggml_half row0, ggml_half row1) {
    return _mm512_cvtph_ps(_mm256_mask_set1_epi16(_mm256_set1_epi16((short) row0), 0xff00, (short) row1));
}

inline ints bit_and(ints a, ints b) {
    return _mm512_and_si512(a, b);
}
inline ints bit_or(ints a, ints b) {
    return _mm512_or_si512(a, b);
}
inline ints and_not(ints a, ints b) {
    return _mm512_andnot_si512(a, b);
}
inline ints add32(ints a, ints b) {
    return _mm512_add_epi32(a, b);
}
inline ints sub32(ints a, ints b) {
    return _mm512_sub_epi32(a, b);
}
inline ints sub8(ints a, ints b) {
    return _mm512_sub_epi8(a, b);
}
inline ints shuffle8(ints a, ints b) {
    return _mm512_shuffle_epi8(a, b);
}
inline ints maddubs(ints u, ints s) {
    return _mm512_maddubs_epi16(u, s);
}
inline ints abs8(ints a) {
    return _mm512_abs_epi8(a);
}
inline ints sign8(ints a, ints b) { // where b is zero the result is any number: it meets a zero
    return _mm512_mask_sub_epi8(a, _mm512_movepi8_mask(b), _mm512_setzero_si512(), a);
}
inline ints bytes_of_bits(const void * row0, const void * row1) {
    uint32_t bits0, bits1;
    memcpy(&bits0, row0, 4);
    memcpy(&bits1, row1, 4);
    return _mm512_movm_epi8((uint64_t) bits1 << 32 | bits0);
}
template <int N>
inline ints shift_right16(ints a) {
    return _mm512_srli_epi16(a, N);
}
template <int N>
inline ints shift_left16(ints a) {
    return _mm512_slli_epi16(a, N);
}
template <int N>
inline ints shift_left32(ints a) {
    return _mm512_slli_epi32(a, N);
}
template <int N>
inline ints shuffle32(ints a) {
    return _mm512_shuffle_epi32(a, (_MM_PERM_ENUM) N);
}
inline ints nibbles_of_halves(ints a) {
    return bit_and(_mm512_srlv_epi64(a, _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0)), all8(15));
}
inline ints odd32(ints even, ints odd) {
    return _mm512_mask_mov_epi32(even, 0xAAAA, odd);
}

inline ints madd_acc(ints acc, ints a, ints b) {
    return _mm512_dpwssd_epi32(acc, a, b);
}
inline ints dot4_acc(ints acc, ints u, ints s) {
    return _mm512_dpbusd_epi32(acc, u, s);
}
inline ints mul32(ints a, ints b) {
    return _mm512_mullo_epi32(a, b);
}
inline floats to_float(ints a) {
    return _mm512_cvtepi32_ps(a);
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
inline floats fmadd(floats a, floats b, floats c) {
    return _mm512_fmadd_ps(a, b, c);
}
inline floats zerof() {
    return _mm512_setzero_ps();
}
inline floats permute_each(floats a, __m256i index) {
    return _mm512_permutexvar_ps(_mm512_or_si512(_mm512_broadcast_i64x4(index),
                                                 _mm512_set_epi32(8, 8, 8, 8, 8, 8, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0)),
                                 a);
}

template <int ROW>
inline __m256 row_of(floats a) {
    return ROW == 0 ? _mm512_castps512_ps256(a) : _mm512_extractf32x8_ps(a, 1);
}

#else

constexpr int ROWS      = 1;
constexpr int REGISTERS = 16;

using ints   = __m256i;
using floats = __m256;

inline ints join(__m256i row0, __m256i) {
    return row0;
}

inline ints load_each(const void * row0, const void *) {
    return _mm256_loadu_si256((const __m256i *) row0);
}
inline ints load_each_half_twice(const void * row0, const void *) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *) row0));
}
inline ints load_all(const void * p) {
    return _mm256_loadu_si256((const __m256i *) p);
}

inline ints zero() {
    return _mm256_setzero_si256();
}
inline ints all8(int x) {
    return _mm256_set1_epi8(x);
}
inline ints all16(int x) {
    return _mm256_set1_epi16(x);
}
inline ints all32(int x) {
    return _mm256_set1_epi32(x);
}
inline floats allf(float x) {
    return _mm256_set1_ps(x);
}
inline floats each_half(ggml_half row0, ggml_half) {
    return _mm256_cvtph_ps(_mm_set1_epi16((short) row0));
}

inline ints bit_and(ints a, ints b) {
    return _mm256_and_si256(a, b);
}
inline ints bit_or(ints a, ints b) {
    return _mm256_or_si256(a, b);
}
inline ints and_not(ints a, ints b) {
    return _mm256_andnot_si256(a, b);
}
inline ints add32(ints a, ints b) {
    return _mm256_add_epi32(a, b);
}
inline ints add16(ints a, ints b) {
    return _mm256_add_epi16(a, b);
}
inline ints sub32(ints a, ints b) {
    return _mm256_sub_epi32(a, b);
}
inline ints sub8(ints a, ints b) {
    return _mm256_sub_epi8(a, b);
}
inline ints shuffle8(ints a, ints b) {
    return _mm256_shuffle_epi8(a, b);
}
inline ints maddubs(ints u, ints s) {
    return _mm256_maddubs_epi16(u, s);
}
inline ints sign8(ints a, ints b) {
    return _mm256_sign_epi8(a, b);
}
inline ints abs8(ints a) {
    return _mm256_abs_epi8(a);
}
inline ints bytes_of_bits(const void * row0, const void *) {
    uint32_t bits;
    memcpy(&bits, row0, 4);
    const __m256i places = _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0);
    const __m256i each   = _mm256_set1_epi64x((int64_t) 0x8040201008040201);
    return _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int) bits), places), each), each);
}
template <int N>
inline ints shift_right16(ints a) {
    return _mm256_srli_epi16(a, N);
}
template <int N>
inline ints shift_left16(ints a) {
    return _mm256_slli_epi16(a, N);
}
template <int N>
inline ints shift_left32(ints a) {
    return _mm256_slli_epi32(a, N);
}
template <int N>
inline ints shuffle32(ints a) {
    return _mm256_shuffle_epi32(a, N);
}
inline ints nibbles_of_halves(ints a) {
    return bit_and(_mm256_srlv_epi64(a, _mm256_set_epi64x(4, 4, 0, 0)), all8(15));
}
inline ints odd32(ints even, ints odd) {
    return _mm256_blend_epi32(even, odd, 0xAA);
}

inline ints madd_acc(ints acc, ints a, ints b) {
    return add32(acc, _mm256_madd_epi16(a, b));
}
inline floats to_float(ints a) {
    return _mm256_cvtepi32_ps(a);
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
inline floats fmadd(floats a, floats b, floats c) {
    return _mm256_fmadd_ps(a, b, c);
}
inline floats zerof() {
    return _mm256_setzero_ps();
}
inline floats permute_each(floats a, __m256i index) {
    return _mm256_permutevar8x32_ps(a, index);
}

template <int ROW>
inline __m256 row_of(floats a) {
    return a;
}

#endif

// The horizontal sums of eight and of the first four lanes, in the engine's order.
inline float sum4(__m128 a) {
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
}
inline float sum8(__m256 a) {
    return sum4(_mm_add_ps(_mm256_extractf128_ps(a, 1), _mm256_castps256_ps128(a)));
}

} // namespace nextn::simd
