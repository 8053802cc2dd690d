// Kernels for weights the engine repacked: eight rows interleaved in runs of eight bytes (repack.cpp). A vector holds
// four values of each of eight rows, in the order 0 4 1 5 2 6 3 7; each row is one float lane.
#pragma once

#include "narrow-x86-common.h"
#include "repack.h"

namespace nextn {

NEXTN_INLINE __m256i row_order() {
    return _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
}

NEXTN_INLINE floats join(__m256 group0, __m256 group1) {
#ifdef NEXTN_SIMD_VNNI
    return _mm512_insertf32x8(_mm512_castps256_ps512(group0), group1, 1);
#else
    (void) group1;
    return group0;
#endif
}

// Values 0-3 and 4-7 of the eight rows, from runs of eight bytes of rows 0-3 and 4-7.
NEXTN_INLINE ints run_start(ints rows03, ints rows47) {
    return odd32(rows03, shuffle32<0xB1>(rows47));
}
NEXTN_INLINE ints run_end(ints rows03, ints rows47) {
    return odd32(shuffle32<0xB1>(rows03), rows47);
}

NEXTN_INLINE ints dup32(const void * p) {
    int32_t x;
    memcpy(&x, p, 4);
    return all32(x);
}

// Running sums of products of unsigned weights (at most 15) and a column, over the 32 values of a block.
#ifdef NEXTN_SIMD_VNNI
NEXTN_INLINE ints dots_add(ints acc, ints weights, ints column) {
    return dot4_acc(acc, weights, column);
}
NEXTN_INLINE ints dots_total(int32_t start, ints acc) {
    return add32(all32(start), acc);
}
#else
NEXTN_INLINE ints dots_add(ints acc, ints weights, ints column) {
    return add16(acc, maddubs(weights, column));
}
NEXTN_INLINE ints dots_total(int32_t start, ints acc) {
    return madd_acc(all32(start), acc, all16(1));
}
#endif

// Blocks of 32 4-bit values that are looked up in a table, one scale per row.
struct type_q4_0_8x8 {
    using block               = block_q4_0x8;
    static constexpr int BIAS = 8;

    // The repacked nibbles are two's complement.
    static NEXTN_INLINE __m128i table() { return _mm_setr_epi8(8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7); }
    static NEXTN_INLINE ints    add(ints acc, ints weights, ints column) { return dots_add(acc, weights, column); }
    static NEXTN_INLINE ints    total(int32_t start, ints acc) { return dots_total(start, acc); }
};

struct type_iq4_nl_8x8 {
    using block = block_iq4_nlx8;

#ifdef NEXTN_SIMD_VNNI
    static constexpr int BIAS = 128;

    static NEXTN_INLINE __m128i table() {
        return _mm_xor_si128(_mm_loadu_si128((const __m128i *) kvalues_iq4nl), _mm_set1_epi8(-128));
    }
    static NEXTN_INLINE ints add(ints acc, ints weights, ints column) { return dots_add(acc, weights, column); }
    static NEXTN_INLINE ints total(int32_t start, ints acc) { return dots_total(start, acc); }
#else
    // Pairs of biased products would not fit 16 bits.
    static constexpr int BIAS = 0;

    static NEXTN_INLINE __m128i table() { return _mm_loadu_si128((const __m128i *) kvalues_iq4nl); }
    static NEXTN_INLINE ints    add(ints acc, ints weights, ints column) {
        return add32(acc, signed_weights(weights).dot(column));
    }
    static NEXTN_INLINE ints total(int32_t, ints acc) { return acc; }
#endif
};

template <typename T>
struct kernel_8x8 {
    template <int NC>
    using panel = q8_0_panel<NC>;

    static constexpr int panel_block = QK8_0;
    static constexpr int block_size  = QK8_0;

    template <int NC>
    static void prepare(const narrow_product & p) {
        prepare_q8_0<NC, 0, T::BIAS>(p);
    }

    template <int NC>
    static void run(const narrow_product & p, int64_t r0, int64_t r1) {
        const int64_t nb    = p.n / QK8_0;
        const ints    table = join(_mm256_broadcastsi128_si256(T::table()), _mm256_broadcastsi128_si256(T::table()));

        for (int64_t r = r0; r < r1; r += 8 * ROWS) {
            const bool   both = ROWS > 1 && r + 8 < r1;
            const auto * x0   = (const typename T::block *) (p.weights + r * p.row_stride);
            const auto * x1   = both ? x0 + nb : x0;
            const auto * y    = (const q8_0_panel<NC> *) p.panel;

            floats acc[NC];
            for (int c = 0; c < NC; ++c) {
                acc[c] = zerof();
            }
            for (int64_t ib = 0; ib < nb; ++ib) {
                prefetch_after(x0[ib], (1 + both) * nb * sizeof(x0[ib]));
                prefetch_after(x1[ib], (1 + both) * nb * sizeof(x0[ib]));
                block_product<NC>(table, x0[ib], x1[ib], y[ib], acc);
            }
            for (int c = 0; c < NC; ++c) {
                const floats ordered = permute_each(acc[c], row_order());
                _mm256_storeu_ps(p.out[c] + r, row_of<0>(ordered));
                if (both) {
                    _mm256_storeu_ps(p.out[c] + r + 8, row_of<ROWS - 1>(ordered));
                }
            }
        }
    }

    template <int NC>
    static NEXTN_INLINE void block_product(ints table, const typename T::block & x0, const typename T::block & x1,
                                           const q8_0_panel<NC> & y, floats (&acc)[NC]) {
        ints dots[NC];
        for (int c = 0; c < NC; ++c) {
            dots[c] = zero();
        }
        unrolled<4>([&](auto i) NEXTN_INLINE_LAMBDA {
            constexpr int at = i % 2 * 64, high = i / 2; // values 8i .. 8i+7
            const ints    a  = values<high>(table, load_each(x0.qs + at, x1.qs + at));
            const ints    b  = values<high>(table, load_each(x0.qs + at + 32, x1.qs + at + 32));
            const ints    w0 = run_start(a, b);
            const ints    w1 = run_end(a, b);
            unrolled<NC>([&](auto c) NEXTN_INLINE_LAMBDA {
                dots[c] = T::add(dots[c], w0, dup32(y.q[c] + 8 * i));
                dots[c] = T::add(dots[c], w1, dup32(y.q[c] + 8 * i + 4));
            });
        });
        const floats d = join(scales(x0.d), scales(x1.d));
        unrolled<NC>([&](auto c) NEXTN_INLINE_LAMBDA {
            acc[c] = fmadd(to_float(T::total(y.start[c], dots[c])), mul(d, allf(y.d[c])), acc[c]);
        });
    }

    template <int HIGH>
    static NEXTN_INLINE ints values(ints table, ints raw) {
        return shuffle8(table, bit_and(move_bits<4 * HIGH, 0>(raw), all8(15)));
    }

    static NEXTN_INLINE __m256 scales(const ggml_half * d) {
        const __m128i order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
        return _mm256_cvtph_ps(_mm_shuffle_epi8(_mm_loadu_si128((const __m128i *) d), order));
    }
};

// Rows of super-blocks of 256. add_block() adds the products of a block, and those of its mins, to sums of integers.
template <typename T>
struct kernel_k_8x8 {
    static constexpr int panel_block = QK_K;
    static constexpr int block_size  = QK_K;

    using column = q8_K_column<0>;
    template <int NC>
    struct panel {
        column c[NC];
    };

    template <int NC>
    static void prepare(const narrow_product & p) {
        prepare_q8_K<NC, 0>(p);
    }

    template <int NC>
    static void run(const narrow_product & p, int64_t r0, int64_t r1) {
        const int64_t nb = p.n / QK_K;

        for (int64_t r = r0; r < r1; r += 8 * ROWS) {
            const bool   both = ROWS > 1 && r + 8 < r1;
            const auto * x0   = (const typename T::block *) (p.weights + r * p.row_stride);
            const auto * x1   = both ? x0 + nb : x0;
            const auto * y    = (const panel<NC> *) p.panel;

            floats acc[NC];
            floats acc_min[NC];
            for (int c = 0; c < NC; ++c) {
                acc[c] = acc_min[c] = zerof();
            }
            for (int64_t ib = 0; ib < nb; ++ib) {
                prefetch_after(x0[ib], (1 + both) * nb * sizeof(x0[ib]));
                prefetch_after(x1[ib], (1 + both) * nb * sizeof(x0[ib]));
                ints sum[NC];
                ints min[NC];
                for (int c = 0; c < NC; ++c) {
                    sum[c] = min[c] = zero();
                }
                T::template add_block<NC>(x0[ib], x1[ib], y[ib].c, sum, min);
                finish_block<NC>(x0[ib], x1[ib], y[ib].c, sum, min, acc, acc_min);
            }
            for (int c = 0; c < NC; ++c) {
                const floats total = sub(permute_each(acc[c], row_order()), acc_min[c]);
                _mm256_storeu_ps(p.out[c] + r, row_of<0>(total));
                if (both) {
                    _mm256_storeu_ps(p.out[c] + r + 8, row_of<ROWS - 1>(total));
                }
            }
        }
    }

    template <int NC>
    static NEXTN_INLINE void finish_block(const typename T::block & x0, const typename T::block & x1, const column * y,
                                          const ints (&sum)[NC], const ints (&min)[NC], floats (&acc)[NC],
                                          floats (&acc_min)[NC]) {
        const floats d    = join(kernel_8x8<type_q4_0_8x8>::scales(x0.d), kernel_8x8<type_q4_0_8x8>::scales(x1.d));
        const floats dmin = join(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) x0.dmin)),
                                 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *) x1.dmin)));
        unrolled<NC>([&](auto c) NEXTN_INLINE_LAMBDA {
            const floats dy = allf(y[c].d);
            acc[c]          = fmadd(to_float(sum[c]), mul(d, dy), acc[c]);
            acc_min[c]      = fmadd(to_float(min[c]), mul(dmin, dy), acc_min[c]);
        });
    }
};

struct type_q4_K_8x8 {
    using block  = block_q4_Kx8;
    using column = q8_K_column<0>;

    template <int NC>
    static NEXTN_INLINE void add_block(const block & x0, const block & x1, const column * y, ints (&sum)[NC],
                                       ints (&min)[NC]) {
        for (int pair = 0; pair < QK_K / 64; ++pair) {
            const sub_blocks s0(x0, pair);
            const sub_blocks s1(x1, pair);
            const ints       mins = join(s0.mins(), s1.mins());
            unrolled<NC>([&](auto c)
                             NEXTN_INLINE_LAMBDA { min[c] = madd_acc(min[c], mins, dup32(y[c].sums32 + 2 * pair)); });

            unrolled<2>([&](auto high) NEXTN_INLINE_LAMBDA {
                const ints scales = join(s0.template scales<high>(), s1.template scales<high>());
                ints       dots[NC];
                for (int c = 0; c < NC; ++c) {
                    dots[c] = zero();
                }
                unrolled<4>([&](auto i) NEXTN_INLINE_LAMBDA {
                    const int  at = pair * 256 + 64 * i;
                    const ints a  = bit_and(move_bits<4 * high, 0>(load_each(x0.qs + at, x1.qs + at)), all8(15));
                    const ints b =
                        bit_and(move_bits<4 * high, 0>(load_each(x0.qs + at + 32, x1.qs + at + 32)), all8(15));
                    const ints w0 = run_start(a, b);
                    const ints w1 = run_end(a, b);
                    unrolled<NC>([&](auto c) NEXTN_INLINE_LAMBDA {
                        const uint8_t * q = y[c].q + 64 * pair + 32 * high + 8 * i;
                        dots[c]           = dots_add(dots[c], w0, dup32(q));
                        dots[c]           = dots_add(dots[c], w1, dup32(q + 4));
                    });
                });
                unrolled<NC>([&](auto c) NEXTN_INLINE_LAMBDA { sum[c] = scaled_acc(sum[c], dots[c], scales); });
            });
        }
    }

    // The scales and mins of two neighbouring sub-blocks of eight rows.
    struct sub_blocks {
        scales_and_mins s[2];

        NEXTN_INLINE sub_blocks(const block_q4_Kx8 & x, int pair)
            : s{x.scales + 24 * pair, x.scales + 24 * pair + 12} {}

        NEXTN_INLINE __m256i mins() const {
            return _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(_mm_cvtsi64_si128(s[0].mins), _mm_cvtsi64_si128(s[1].mins)));
        }
        template <int I>
        NEXTN_INLINE __m256i scales() const {
#ifdef NEXTN_SIMD_VNNI
            const __m128i order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, -1, -1, -1, -1, -1, -1, -1, -1);
            return _mm256_cvtepu8_epi32(_mm_shuffle_epi8(_mm_cvtsi64_si128(s[I].scales), order));
#else
            const __m128i order = _mm_setr_epi8(0, 0, 4, 4, 1, 1, 5, 5, 2, 2, 6, 6, 3, 3, 7, 7);
            return _mm256_cvtepu8_epi16(_mm_shuffle_epi8(_mm_cvtsi64_si128(s[I].scales), order));
#endif
        }
    };

    static NEXTN_INLINE ints scaled_acc(ints acc, ints dots, ints scales) {
#ifdef NEXTN_SIMD_VNNI
        return add32(acc, mul32(dots, scales));
#else
        return madd_acc(acc, dots, scales);
#endif
    }
};

// Scales and mins of 4 bits per 16 values: bytes 16 g + 2 row of group g of 32 values, and the byte after it.
struct type_q2_K_8x8 {
    using block  = block_q2_Kx8;
    using column = q8_K_column<0>;

    static NEXTN_INLINE __m128i nibbles(const uint8_t * p, bool high) {
        const __m128i raw = _mm_loadu_si128((const __m128i *) p);
        return _mm_and_si128(high ? _mm_srli_epi16(raw, 4) : raw, _mm_set1_epi8(15));
    }

    // 128 values at a time; of each byte the four pairs of bits belong to four groups.
    template <int NC>
    static NEXTN_INLINE void add_block(const block & x0, const block & x1, const column * y, ints (&sum)[NC],
                                       ints (&min)[NC]) {
        for (int g = 0; g < QK_K / 32; ++g) {
            const ints mins = join(_mm256_cvtepu8_epi16(nibbles(x0.scales + 16 * g, true)),
                                   _mm256_cvtepu8_epi16(nibbles(x1.scales + 16 * g, true)));
            unrolled<NC>([&](auto c)
                             NEXTN_INLINE_LAMBDA { min[c] = madd_acc(min[c], mins, dup32(y[c].sums16 + 2 * g)); });
        }
        for (int part = 0; part < QK_K / 128; ++part) {
            unrolled<2>([&](auto half) NEXTN_INLINE_LAMBDA {
                ints raw[4]; // values 0-3, 4-7, 8-11, 12-15 of this half of each of the groups
                unrolled<2>([&](auto i) NEXTN_INLINE_LAMBDA {
                    const int  at  = 256 * part + 128 * half + 64 * i;
                    const ints a   = load_each(x0.qs + at, x1.qs + at);
                    const ints b   = load_each(x0.qs + at + 32, x1.qs + at + 32);
                    raw[2 * i]     = run_start(a, b);
                    raw[2 * i + 1] = run_end(a, b);
                });
                unrolled<4>([&](auto g) NEXTN_INLINE_LAMBDA {
                    const int  at     = 16 * (4 * part + g);
                    const ints scales = join(scales_of<half>(x0.scales + at), scales_of<half>(x1.scales + at));
                    unrolled<NC>([&](auto c) NEXTN_INLINE_LAMBDA {
                        const uint8_t * q    = y[c].q + 128 * part + 32 * g + 16 * half;
                        ints            dots = zero();
                        unrolled<4>([&](auto i) NEXTN_INLINE_LAMBDA {
                            dots = dots_add(dots, bit_and(move_bits<2 * g, 0>(raw[i]), all8(3)), dup32(q + 4 * i));
                        });
                        sum[c] = madd_acc(sum[c], dots, scales); // the dot products fit 16 bits
                    });
                });
            });
        }
    }

    // The scale of the first or second 16 values of a group, for each row in the vectors' order.
    template <int HALF>
    static NEXTN_INLINE __m256i scales_of(const uint8_t * p) {
        constexpr int h = HALF;
        const __m128i order =
            _mm_setr_epi8(h, 8 + h, 2 + h, 10 + h, 4 + h, 12 + h, 6 + h, 14 + h, -1, -1, -1, -1, -1, -1, -1, -1);
        const __m128i bytes = _mm_shuffle_epi8(nibbles(p, false), order);
#ifdef NEXTN_SIMD_VNNI
        return _mm256_cvtepu8_epi32(bytes);
#else
        return _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(bytes, bytes)); // both sums of pairs
#endif
    }
};

} // namespace nextn
