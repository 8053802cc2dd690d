// Kernels for weights in the engine's plain layout. Adding a type of blocks of 32 takes its values(), one of
// super-blocks its group(), its scales and what finish() does with a sum.
#pragma once

#include "narrow-x86-common.h"

#include <type_traits>

namespace nextn {

// Pointers to ROWS consecutive rows; past the end the last row stands in for the missing ones.
template <typename B>
struct row_pointers {
    const B * row[ROWS];

    NEXTN_INLINE row_pointers(const narrow_product & p, int64_t r, int64_t end) {
        for (int i = 0; i < ROWS; ++i) {
            row[i] = (const B *) (p.weights + std::min(r + i, end - 1) * p.row_stride);
        }
    }
    NEXTN_INLINE const B & first(int64_t ib) const { return row[0][ib]; }
    NEXTN_INLINE const B & last(int64_t ib) const { return row[ROWS - 1][ib]; }
    NEXTN_INLINE void      prefetch_after(int64_t ib, int64_t distance) const {
        for (int i = 0; i < ROWS; ++i) {
            nextn::prefetch_after(row[i][ib], distance);
        }
    }
};

// Write sum(lanes of one row) for the rows of a vector that exist.
template <typename F>
NEXTN_INLINE void store_rows(float * out, int64_t r, int64_t end, F sum) {
    unrolled<ROWS>([&](auto row) NEXTN_INLINE_LAMBDA {
        if (r + row < end) {
            out[r + row] = sum(row);
        }
    });
}

//
// Plain rows of blocks of 32 with one scale. SUMS: the engine sums block i into accumulator i % SUMS. MINS: the value
// is d * q + m, with q unsigned, and the engine sums the products of the mins apart.
//

template <typename B, int N_SUMS = 1>
struct signed_32 {
    using block                = B;
    using weights              = signed_weights;
    static constexpr int  SUMS = N_SUMS;
    static constexpr bool MINS = false;

    static NEXTN_INLINE ggml_half scale(const B & x) { return x.d; }
};

template <typename B>
struct unsigned_32 {
    using block                = B;
    using weights              = unsigned_weights;
    static constexpr int  SUMS = 1;
    static constexpr bool MINS = true;

    static NEXTN_INLINE ggml_half scale(const B & x) { return x.data.data.d; }
    static NEXTN_INLINE float     min(const B & x) { return GGML_CPU_FP16_TO_FP32(x.data.data.m); }
};

struct type_q8_0 : signed_32<block_q8_0> {
    static NEXTN_INLINE ints values(const block & x0, const block & x1) { return load_each(x0.qs, x1.qs); }
};

struct type_q4_0 : signed_32<block_q4_0> {

    static NEXTN_INLINE ints values(const block & x0, const block & x1) {
        return sub8(nibbles_of_halves(load_each_half_twice(x0.qs, x1.qs)), all8(8));
    }
};

struct type_q4_1 : unsigned_32<block_q4_1> {
    static NEXTN_INLINE ints values(const block & x0, const block & x1) {
        return nibbles_of_halves(load_each_half_twice(x0.qs, x1.qs));
    }
};

// The fifth bit, where it is not set, takes 16 away.
struct type_q5_0 : signed_32<block_q5_0> {
    static NEXTN_INLINE ints values(const block & x0, const block & x1) {
        return bit_or(nibbles_of_halves(load_each_half_twice(x0.qs, x1.qs)),
                      and_not(bytes_of_bits(x0.qh, x1.qh), all8(-16)));
    }
};

struct type_q5_1 : unsigned_32<block_q5_1> {
    static NEXTN_INLINE ints values(const block & x0, const block & x1) {
        return bit_or(nibbles_of_halves(load_each_half_twice(x0.qs, x1.qs)),
                      bit_and(bytes_of_bits(x0.qh, x1.qh), all8(16)));
    }
};

struct type_iq4_nl : signed_32<block_iq4_nl, 2> {
    static NEXTN_INLINE ints values(const block & x0, const block & x1) {
        return shuffle8(load_each_half_twice(kvalues_iq4nl, kvalues_iq4nl),
                        nibbles_of_halves(load_each_half_twice(x0.qs, x1.qs)));
    }
};

// The products of the mins of a row with the sums of all columns, one column a lane.
template <int NC>
struct sums_of_mins {
    __m256 low  = _mm256_setzero_ps();
    float  last = 0.0f;

    static_assert(NC <= 9, "eight lanes and one more");

    NEXTN_INLINE void add(float min, const float * sums) {
        low = _mm256_fmadd_ps(_mm256_set1_ps(min), _mm256_load_ps(sums), low);
        if (NC > 8) {
            last = _mm_cvtss_f32(_mm_fmadd_ss(_mm_set_ss(min), _mm_set_ss(sums[8]), _mm_set_ss(last)));
        }
    }
    NEXTN_INLINE float of(int c) const {
        alignas(32) float lanes[8];
        _mm256_store_ps(lanes, low);
        return c < 8 ? lanes[c] : last;
    }
};

template <typename T>
struct kernel_32 {
    template <int NC>
    using panel = std::conditional_t<T::MINS, q8_1_panel<NC>, q8_0_panel<NC>>;

    static constexpr int panel_block = QK8_0;
    static constexpr int block_size  = QK8_0 * T::SUMS;

    template <int NC>
    static void prepare(const narrow_product & p) {
        if constexpr (T::MINS) {
            prepare_q8_1<NC>(p);
        } else {
            prepare_q8_0<NC, signed_weights::FLIP, 0>(p);
        }
    }

    template <int NC>
    static void run(const narrow_product & p, int64_t r0, int64_t r1) {
        constexpr int V = 2 * NC * T::SUMS + 8 <= REGISTERS ? 2 : 1; // row vectors that share a loaded column
        for (int64_t r = r0; r < r1; r += V * ROWS) {
            run_rows<NC, V>(p, r, r1);
        }
    }

    template <int NC, int V>
    static NEXTN_INLINE void run_rows(const narrow_product & p, int64_t r, int64_t end) {
        using rows    = row_pointers<typename T::block>;
        using weights = typename T::weights;

        const panel<NC> * y    = (const panel<NC> *) p.panel;
        const rows        x[2] = {rows(p, r, end), rows(p, r + (V - 1) * ROWS, end)};

        floats acc[T::SUMS][V][NC];
        for (int s = 0; s < T::SUMS; ++s) {
            for (int v = 0; v < V; ++v) {
                for (int c = 0; c < NC; ++c) {
                    acc[s][v][c] = zerof();
                }
            }
        }
        [[maybe_unused]] sums_of_mins<NC> min[T::MINS ? V * ROWS : 1];
        for (int64_t ib = 0; ib < p.n / QK8_0; ib += T::SUMS) {
            unrolled<T::SUMS>([&](auto s) NEXTN_INLINE_LAMBDA {
                for (int v = 0; v < V; ++v) {
                    x[v].prefetch_after(ib + s, V * ROWS * p.row_stride);
                }
                const weights w[2] = {T::values(x[0].first(ib + s), x[0].last(ib + s)),
                                      T::values(x[V - 1].first(ib + s), x[V - 1].last(ib + s))};
                const floats  d[2] = {each_half(T::scale(x[0].first(ib + s)), T::scale(x[0].last(ib + s))),
                                      each_half(T::scale(x[V - 1].first(ib + s)), T::scale(x[V - 1].last(ib + s)))};
                if constexpr (T::MINS) {
                    unrolled<V * ROWS>([&](auto i) NEXTN_INLINE_LAMBDA {
                        min[i].add(T::min(x[i / ROWS].row[i % ROWS][ib]), y[ib].sums);
                    });
                }
                unrolled<NC>([&](auto c) NEXTN_INLINE_LAMBDA {
                    const ints   column = load_all(y[ib + s].q[c]);
                    const floats dy     = allf(y[ib + s].d[c]);
                    unrolled<V>([&](auto v) NEXTN_INLINE_LAMBDA {
                        acc[s][v][c] = fmadd(mul(d[v], dy), to_float(w[v].dot(column)), acc[s][v][c]);
                    });
                });
            });
        }
        for (int v = 0; v < V; ++v) {
            for (int c = 0; c < NC; ++c) {
                const floats total = T::SUMS == 1 ? acc[0][v][c] : add(acc[0][v][c], acc[T::SUMS - 1][v][c]);
                store_rows(p.out[c], r + v * ROWS, end, [&](auto row) {
                    return T::MINS ? sum8(row_of<row>(total)) + min[T::MINS ? v * ROWS + row : 0].of(c)
                                   : sum8(row_of<row>(total));
                });
            }
        }
    }
};

//
// Rows of super-blocks of 256: eight groups of 32 values, with the scales of group g where group_scale<g> finds them.
//

// How weights and columns are multiplied, where one side must be unsigned and two products fit 16 bits: unsigned
// weights; small signed ones, with columns whose sign bits are flipped; large ones, whose signs go to the columns.
enum class k_product { unsigned_weights, small_weights, large_weights };

template <typename B>
struct k_rows {
    const B & x0;
    const B & x1;
    floats    d;
    ints      scales; // 16-bit, the scale of group g at place g of each 128-bit lane

    NEXTN_INLINE k_rows(const B & x0, const B & x1, ggml_half d0, ggml_half d1)
        : x0(x0), x1(x1), d(each_half(d0, d1)) {}

    template <int G>
    NEXTN_INLINE ints group_scale() const {
        return shuffle8(scales, all16((2 * G + 1) << 8 | 2 * G));
    }
};

// Q4_K and Q5_K have the same scales, and mins: the value is d * scale * q - dmin * min.
template <typename B>
struct k_rows_with_mins : k_rows<B> {
    floats dmin;
    ints   mins; // 16-bit, in the lower lane of each row

    NEXTN_INLINE k_rows_with_mins(const B & x0, const B & x1)
        : k_rows<B>(x0, x1, x0.data.data.d, x1.data.data.d), dmin(each_half(x0.data.data.dmin, x1.data.data.dmin)) {
        const scales_and_mins s0(x0.scales);
        const scales_and_mins s1(x1.scales);
        this->scales =
            join(_mm256_broadcastsi128_si256(widen(s0.scales)), _mm256_broadcastsi128_si256(widen(s1.scales)));
        mins = join(_mm256_zextsi128_si256(widen(s0.mins)), _mm256_zextsi128_si256(widen(s1.mins)));
    }

    static NEXTN_INLINE __m128i widen(uint64_t bytes) { return _mm_cvtepu8_epi16(_mm_cvtsi64_si128(bytes)); }
};

struct type_q4_K : k_rows_with_mins<block_q4_K> {
    using block                     = block_q4_K;
    static constexpr k_product KIND = k_product::unsigned_weights;

    using k_rows_with_mins::k_rows_with_mins;

    template <int G>
    NEXTN_INLINE ints group() const {
        const ints raw = load_each(x0.qs + G / 2 * 32, x1.qs + G / 2 * 32);
        return bit_and(move_bits<4 * (G % 2), 0>(raw), all8(15));
    }

    template <typename C>
    NEXTN_INLINE void finish(floats & acc, floats & acc_min, ints sum, const C & y) const {
        acc     = fmadd(mul(d, allf(y.d)), to_float(sum), acc);
        acc_min = fmadd(mul(dmin, allf(-y.d)), to_float(madd_acc(zero(), mins, load_all(y.sums32))), acc_min);
    }
    static NEXTN_INLINE float total(__m256 acc, __m256 acc_min) {
        return sum8(acc) + sum4(_mm256_castps256_ps128(acc_min));
    }
};

struct type_q5_K : k_rows_with_mins<block_q5_K> {
    using block                     = block_q5_K;
    static constexpr k_product KIND = k_product::unsigned_weights;

    using k_rows_with_mins::k_rows_with_mins;

    template <int G>
    NEXTN_INLINE ints group() const {
        const ints low  = load_each(x0.qs + G / 2 * 32, x1.qs + G / 2 * 32);
        const ints high = load_each(x0.qh, x1.qh);
        return bit_or(bit_and(move_bits<4 * (G % 2), 0>(low), all8(15)), bit_and(move_bits<G, 4>(high), all8(16)));
    }

    // The engine sums the mins of a block as one integer.
    template <typename C>
    NEXTN_INLINE void finish(floats & acc, floats & acc_min, ints sum, const C & y) const {
        ints min = madd_acc(zero(), mins, load_all(y.sums32));
        min      = add32(min, shuffle32<0x4E>(min));
        min      = add32(min, shuffle32<0xB1>(min));
        acc      = fmadd(mul(d, allf(y.d)), to_float(sum), acc);
        acc_min  = fmadd(mul(dmin, allf(-y.d)), to_float(min), acc_min);
    }
    static NEXTN_INLINE float total(__m256 acc, __m256 acc_min) { return sum8(acc) + _mm256_cvtss_f32(acc_min); }
};

// Types with a signed 8-bit scale per 16 values.
template <typename B>
struct k_rows_of_16 : k_rows<B> {
    NEXTN_INLINE k_rows_of_16(const B & x0, const B & x1, __m128i scales0, __m128i scales1)
        : k_rows_of_16(x0, x1, x0.d, x1.d, scales0, scales1) {}
    NEXTN_INLINE k_rows_of_16(const B & x0, const B & x1, ggml_half d0, ggml_half d1, __m128i scales0, __m128i scales1)
        : k_rows<B>(x0, x1, d0, d1) {
        this->scales = join(even_odd(scales0), even_odd(scales1));
    }

    // The scales of the first halves of the groups, then those of the second halves.
    static NEXTN_INLINE __m256i even_odd(__m128i s) {
        return _mm256_cvtepi8_epi16(
            _mm_shuffle_epi8(s, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)));
    }
};

struct type_q6_K : k_rows_of_16<block_q6_K> {
    using block                     = block_q6_K;
    static constexpr k_product KIND = k_product::unsigned_weights;

    ints scales_in_order;

    NEXTN_INLINE type_q6_K(const block & x0, const block & x1) : type_q6_K(x0, x1, load(x0.scales), load(x1.scales)) {}
    NEXTN_INLINE type_q6_K(const block & x0, const block & x1, __m128i s0, __m128i s1)
        : k_rows_of_16(x0, x1, s0, s1), scales_in_order(join(_mm256_cvtepi8_epi16(s0), _mm256_cvtepi8_epi16(s1))) {}

    static NEXTN_INLINE __m128i load(const int8_t * p) { return _mm_loadu_si128((const __m128i *) p); }

    template <int G>
    NEXTN_INLINE ints group() const {
        constexpr int half = G / 4, part = G % 4;
        constexpr int at   = 64 * half + 32 * (part % 2);
        const ints    low  = load_each(x0.ql + at, x1.ql + at);
        const ints    high = load_each(x0.qh + 32 * half, x1.qh + 32 * half);
        return bit_or(bit_and(move_bits<part / 2 * 4, 0>(low), all8(15)),
                      bit_and(move_bits<2 * part, 4>(high), all8(48)));
    }

    // The values are stored with 32 added.
    template <typename C>
    NEXTN_INLINE void finish(floats & acc, floats &, ints sum, const C & y) const {
        const ints bias = shift_left32<5>(madd_acc(zero(), scales_in_order, load_all(y.sums16)));
        acc             = fmadd(mul(d, allf(y.d)), to_float(sub32(sum, bias)), acc);
    }
    static NEXTN_INLINE float total(__m256 acc, __m256) { return sum8(acc); }
};

struct type_q3_K : k_rows_of_16<block_q3_K> {
    using block                     = block_q3_K;
    static constexpr k_product KIND = k_product::small_weights;

    NEXTN_INLINE type_q3_K(const block & x0, const block & x1)
        : k_rows_of_16(x0, x1, unpack(x0.scales), unpack(x1.scales)) {}

    // Sixteen 6-bit scales with 32 added: the low nibbles of bytes 0-7, their high nibbles, and two bits each from the
    // rest.
    static NEXTN_INLINE __m128i unpack(const uint8_t * packed) {
        uint64_t low;
        uint32_t high;
        memcpy(&low, packed, 8);
        memcpy(&high, packed + 8, 4);
        const uint64_t nibbles = 0x0f0f0f0f0f0f0f0f;
        const uint64_t s0      = (low & nibbles) | (uint64_t) (high << 2 & 0x30303030) << 32 | (high << 4 & 0x30303030);
        const uint64_t s1      = (low >> 4 & nibbles) | (uint64_t) (high >> 2 & 0x30303030) << 32 | (high & 0x30303030);
        return _mm_sub_epi8(_mm_set_epi64x(s1, s0), _mm_set1_epi8(32));
    }

    template <int G>
    NEXTN_INLINE ints group() const {
        const ints low  = load_each(x0.qs + G / 4 * 32, x1.qs + G / 4 * 32);
        const ints high = load_each(x0.hmask, x1.hmask);
        return sub8(bit_or(bit_and(move_bits<G % 4 * 2, 0>(low), all8(3)), bit_and(move_bits<G, 2>(high), all8(4))),
                    all8(4));
    }

    template <typename C>
    NEXTN_INLINE void finish(floats & acc, floats &, ints sum, const C & y) const {
        acc = fmadd(mul(d, allf(y.d)), to_float(sum), acc);
    }
    static NEXTN_INLINE float total(__m256 acc, __m256) { return sum8(acc); }
};

// Scales and mins of 4 bits. The engine adds the mins of a block to the same sums as its products.
struct type_q2_K : k_rows_of_16<block_q2_K> {
    using block                     = block_q2_K;
    static constexpr k_product KIND = k_product::unsigned_weights;

    floats dmin;
    ints   mins_in_order;

    NEXTN_INLINE type_q2_K(const block & x0, const block & x1)
        : k_rows_of_16(x0, x1, x0.data.data.d, x1.data.data.d, nibbles<0>(x0), nibbles<0>(x1)),
          dmin(each_half(x0.data.data.dmin, x1.data.data.dmin)),
          mins_in_order(join(_mm256_cvtepi8_epi16(nibbles<4>(x0)), _mm256_cvtepi8_epi16(nibbles<4>(x1)))) {}

    template <int SHIFT>
    static NEXTN_INLINE __m128i nibbles(const block & x) {
        return _mm_and_si128(_mm_srli_epi16(_mm_loadu_si128((const __m128i *) x.scales), SHIFT), _mm_set1_epi8(15));
    }

    template <int G>
    NEXTN_INLINE ints group() const {
        return bit_and(move_bits<G % 4 * 2, 0>(load_each(x0.qs + G / 4 * 32, x1.qs + G / 4 * 32)), all8(3));
    }

    template <typename C>
    NEXTN_INLINE void finish(floats & acc, floats &, ints sum, const C & y) const {
        const ints min = madd_acc(zero(), mins_in_order, load_all(y.sums16));
        acc            = fmadd(mul(dmin, allf(-y.d)), to_float(min), acc);
        acc            = fmadd(mul(d, allf(y.d)), to_float(sum), acc);
    }
    static NEXTN_INLINE float total(__m256 acc, __m256) { return sum8(acc); }
};

// Values from a table that uses all of a signed byte, and a 6-bit scale with 32 added per 32 of them.
struct type_iq4_xs : k_rows<block_iq4_xs> {
    using block                     = block_iq4_xs;
    static constexpr k_product KIND = k_product::large_weights;

    NEXTN_INLINE type_iq4_xs(const block & x0, const block & x1) : k_rows(x0, x1, x0.d, x1.d) {
        scales = join(_mm256_broadcastsi128_si256(unpack(x0)), _mm256_broadcastsi128_si256(unpack(x1)));
    }

    // Four bits of a scale come from a nibble, two from a pair of bits.
    static NEXTN_INLINE __m128i unpack(const block & x) {
        uint32_t low;
        memcpy(&low, x.scales_l, 4);
        const __m128i pairs   = _mm_cvtepu8_epi16(_mm_cvtsi32_si128((int) low));
        const __m128i nibbles = _mm_and_si128(_mm_or_si128(pairs, _mm_slli_epi16(pairs, 4)), _mm_set1_epi8(15));
        const __m128i to_top  = _mm_setr_epi16(1 << 14, 1 << 12, 1 << 10, 1 << 8, 1 << 6, 1 << 4, 1 << 2, 1);
        const __m128i high    = _mm_mullo_epi16(_mm_set1_epi16((short) x.scales_h), to_top);
        const __m128i all =
            _mm_or_si128(_mm_cvtepu8_epi16(nibbles), _mm_and_si128(_mm_srli_epi16(high, 10), _mm_set1_epi16(0x30)));
        return _mm_sub_epi16(all, _mm_set1_epi16(32));
    }

    template <int G>
    NEXTN_INLINE ints group() const {
        return shuffle8(load_each_half_twice(kvalues_iq4nl, kvalues_iq4nl),
                        nibbles_of_halves(load_each_half_twice(x0.qs + 16 * G, x1.qs + 16 * G)));
    }

    template <typename C>
    NEXTN_INLINE void finish(floats & acc, floats &, ints sum, const C & y) const {
        acc = fmadd(mul(d, allf(y.d)), to_float(sum), acc);
    }
    static NEXTN_INLINE float total(__m256 acc, __m256) { return sum8(acc); }
};

template <typename T>
struct kernel_k {
    static constexpr bool SIGNED      = T::KIND == k_product::small_weights;
    static constexpr int  FLIP        = SIGNED ? 0x80 : 0;
    static constexpr int  panel_block = QK_K;
    static constexpr int  block_size  = QK_K;

    using column = q8_K_column<FLIP>;
    template <int NC>
    struct panel {
        column c[NC];
    };

    template <int NC>
    static void prepare(const narrow_product & p) {
        prepare_q8_K<NC, FLIP>(p);
    }

    template <int NC>
    static void run(const narrow_product & p, int64_t r0, int64_t r1) {
        for (int64_t r = r0; r < r1; r += ROWS) {
            const row_pointers<typename T::block> x(p, r, r1);

            floats acc[NC];
            floats second[NC]; // of the mins, where the type has them
            for (int c = 0; c < NC; ++c) {
                acc[c] = second[c] = zerof();
            }
            for (int64_t ib = 0; ib < p.n / QK_K; ++ib) {
                const panel<NC> & y = ((const panel<NC> *) p.panel)[ib];
                x.prefetch_after(ib, ROWS * p.row_stride);
                block_product<NC>(T(x.first(ib), x.last(ib)), y, acc, second);
            }
            for (int c = 0; c < NC; ++c) {
                store_rows(p.out[c], r, r1,
                           [&](auto row) { return T::total(row_of<row>(acc[c]), row_of<row>(second[c])); });
            }
        }
    }

    template <int NC>
    static NEXTN_INLINE void block_product(const T & w, const panel<NC> & y, floats (&acc)[NC], floats (&second)[NC]) {
        ints sum[NC];
        for (int c = 0; c < NC; ++c) {
            sum[c] = zero();
        }
        ints flipped = zero(); // 128 times the weights, which the flipped columns add
        unrolled<8>([&](auto g) NEXTN_INLINE_LAMBDA {
            const ints q = w.template group<g>();
            const ints s = w.template group_scale<g>();
            if constexpr (SIGNED) {
                flipped = madd_acc(flipped, s, maddubs(all8(-128), q));
            }
            unrolled<NC>([&](auto c) NEXTN_INLINE_LAMBDA {
                const ints column = load_all(y.c[c].q + 32 * g);
                sum[c]            = madd_acc(sum[c], s, products(q, column));
            });
        });
        unrolled<NC>([&](auto c) NEXTN_INLINE_LAMBDA {
            w.finish(acc[c], second[c], SIGNED ? sub32(sum[c], flipped) : sum[c], y.c[c]);
        });
    }

    static NEXTN_INLINE ints products(ints q, ints column) {
        switch (T::KIND) {
            case k_product::unsigned_weights: return maddubs(q, column);
            case k_product::small_weights:    return maddubs(column, q);
            default:                          return maddubs(abs8(q), sign8(column, q));
        }
    }
};

} // namespace nextn
