// What the x86 kernels share: unrolling, one function per number of columns, and the columns as the kernels read them.
#pragma once

#define GGML_COMMON_DECL_CPP
#include "ggml-common.h"
#include "narrow-kernel.h"
#include "narrow-simd-x86.h"
#include "simd-mappings.h"

#include <algorithm>
#include <cstring>
#include <utility>

#if defined(_MSC_VER) && !defined(__clang__)
#define NEXTN_INLINE __forceinline
#define NEXTN_INLINE_LAMBDA
#else
#define NEXTN_INLINE inline __attribute__((always_inline))
#define NEXTN_INLINE_LAMBDA __attribute__((always_inline))
#endif

namespace nextn {

using namespace simd;

// Call f with the constants 0 .. N-1.
template <typename F, int... I>
NEXTN_INLINE void unrolled_impl(F & f, std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>()), ...);
}
template <int N, typename F>
NEXTN_INLINE void unrolled(F f) {
    unrolled_impl(f, std::make_integer_sequence<int, N>());
}

// Ask for the weights that follow this block by a distance in bytes. (The hardware looks ahead no further than a page.)
template <typename B>
NEXTN_INLINE void prefetch_after(const B & block, int64_t distance) {
    for (size_t i = 0; i < sizeof(B); i += 64) {
        _mm_prefetch((const char *) &block + distance + i, _MM_HINT_T0);
    }
}

// A kernel's functions exist once per number of columns; these pick the one for a product.
template <typename K>
struct by_columns {
    using columns = std::make_integer_sequence<int, MAX_COLUMNS>;

    template <int... I>
    static void run(const narrow_product & p, int64_t r0, int64_t r1, std::integer_sequence<int, I...>) {
        static constexpr void (*table[])(const narrow_product &, int64_t, int64_t) = {K::template run<I + 1>...};
        table[p.n_columns - 1](p, r0, r1);
    }
    template <int... I>
    static void prepare(const narrow_product & p, std::integer_sequence<int, I...>) {
        static constexpr void (*table[])(const narrow_product &) = {K::template prepare<I + 1>...};
        table[p.n_columns - 1](p);
    }
    template <int... I>
    static size_t panel_size(int64_t n, int n_columns, std::integer_sequence<int, I...>) {
        static constexpr size_t table[] = {sizeof(typename K::template panel<I + 1>)...};
        return n / K::panel_block * table[n_columns - 1];
    }

    static void   run(const narrow_product & p, int64_t r0, int64_t r1) { run(p, r0, r1, columns()); }
    static void   prepare(const narrow_product & p) { prepare(p, columns()); }
    static size_t panel_size(int64_t n, int n_columns) { return panel_size(n, n_columns, columns()); }

    static const narrow_kernel * kernel() {
        static const narrow_kernel k = {K::block_size, panel_size, prepare, run};
        return &k;
    }
};

// Move bit FROM of every byte to bit TO; other bits are garbage.
template <int FROM, int TO>
NEXTN_INLINE ints move_bits(ints a) {
    if constexpr (FROM > TO) {
        return shift_right16<FROM - TO>(a);
    } else {
        return shift_left16<TO - FROM>(a);
    }
}

// The 6-bit scales and mins of a Q4_K or Q5_K block, eight bytes each.
struct scales_and_mins {
    uint64_t scales;
    uint64_t mins;

    NEXTN_INLINE scales_and_mins(const uint8_t * packed) {
        uint32_t a, b, c;
        memcpy(&a, packed, 4);
        memcpy(&b, packed + 4, 4);
        memcpy(&c, packed + 8, 4);
        const uint32_t scales_hi = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030);
        const uint32_t mins_hi   = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
        scales                   = (uint64_t) scales_hi << 32 | (a & 0x3f3f3f3f);
        mins                     = (uint64_t) mins_hi << 32 | (b & 0x3f3f3f3f);
    }
};

//
// Columns in Q8_0: a panel holds one block of every column, so that a kernel walks one pointer.
//

template <int NC>
struct alignas(32) q8_0_panel {
    uint8_t q[NC][QK8_0];
    int32_t start[NC]; // what the integer sum of this column starts from
    float   d[NC];
};

// Columns in Q8_1: in Q8_0 with the sum of each block, times its scale. A row's min is multiplied with all of them at
// once.
template <int NC>
struct alignas(64) q8_1_panel {
    uint8_t q[NC][QK8_1];
    float   sums[16]; // of the columns there are
    float   d[NC];
};

template <int NC>
static void prepare_q8_1(const narrow_product & p) {
    auto * panel = (q8_1_panel<NC> *) p.panel;
    for (int64_t ib = 0; ib < p.n / QK8_1; ++ib, ++panel) {
        for (int c = 0; c < 16; ++c) {
            panel->sums[c] = 0.0f;
        }
        for (int c = 0; c < NC; ++c) {
            const block_q8_1 & y = ((const block_q8_1 *) p.columns[c])[ib];
            memcpy(panel->q[c], y.qs, QK8_1);
            panel->sums[c] = GGML_CPU_FP16_TO_FP32(y.data.data.s);
            panel->d[c]    = GGML_CPU_FP16_TO_FP32(y.data.data.d);
        }
    }
}

// The bytes are stored with their sign bit flipped where FLIP is 0x80; BIAS is what the kernel adds to each weight.
template <int NC, int FLIP, int BIAS>
static void prepare_q8_0(const narrow_product & p) {
    auto * panel = (q8_0_panel<NC> *) p.panel;
    for (int64_t ib = 0; ib < p.n / QK8_0; ++ib) {
        for (int c = 0; c < NC; ++c) {
            const block_q8_0 & y   = ((const block_q8_0 *) p.columns[c])[ib];
            int32_t            sum = 0;
            for (int i = 0; i < QK8_0; ++i) {
                panel[ib].q[c][i] = (uint8_t) y.qs[i] ^ FLIP;
                sum += y.qs[i];
            }
            panel[ib].start[c] = -BIAS * sum;
            panel[ib].d[c]     = GGML_CPU_FP16_TO_FP32(y.d);
        }
    }
}

// The dot products, four bytes to a lane, of signed weights and any number of columns.
struct signed_weights {
#ifdef NEXTN_SIMD_VNNI
    // u8 x s8 with the column as the unsigned side: its sign bits are flipped, which adds 128 to every byte.
    static constexpr int FLIP = 0x80;

    ints q;
    ints start;

    NEXTN_INLINE      signed_weights(ints q) : q(q), start(sub32(zero(), dot4_acc(zero(), all8(-128), q))) {}
    NEXTN_INLINE ints dot(ints column) const { return dot4_acc(start, column, q); }
#else
    static constexpr int FLIP = 0;

    ints q;
    ints abs;

    NEXTN_INLINE      signed_weights(ints q) : q(q), abs(sign8(q, q)) {}
    NEXTN_INLINE ints dot(ints column) const { return madd_acc(zero(), maddubs(abs, sign8(column, q)), all16(1)); }
#endif
};

// The same of unsigned weights.
struct unsigned_weights {
    ints q;

    NEXTN_INLINE      unsigned_weights(ints q) : q(q) {}
    NEXTN_INLINE ints dot(ints column) const {
#ifdef NEXTN_SIMD_VNNI
        return dot4_acc(zero(), q, column);
#else
        return madd_acc(zero(), maddubs(q, column), all16(1));
#endif
    }
};

//
// Columns in Q8_K
//

template <int FLIP>
struct alignas(32) q8_K_column {
    uint8_t q[QK_K];
    int16_t sums16[QK_K / 16];
    int16_t sums32[QK_K / 16]; // the upper half is zero
    float   d;

    void set(const block_q8_K & y) {
        for (int i = 0; i < QK_K; ++i) {
            q[i] = (uint8_t) y.qs[i] ^ FLIP;
        }
        memcpy(sums16, y.bsums, sizeof(sums16));
        for (int i = 0; i < QK_K / 16; ++i) {
            sums32[i] = i < QK_K / 32 ? y.bsums[2 * i] + y.bsums[2 * i + 1] : 0;
        }
        d = y.d;
    }
};

template <int NC, int FLIP>
static void prepare_q8_K(const narrow_product & p) {
    auto * panel = (q8_K_column<FLIP> *) p.panel;
    for (int64_t ib = 0; ib < p.n / QK_K; ++ib) {
        for (int c = 0; c < NC; ++c) {
            (panel++)->set(((const block_q8_K *) p.columns[c])[ib]);
        }
    }
}

} // namespace nextn
