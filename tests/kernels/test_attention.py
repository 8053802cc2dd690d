"""Flash attention of a token depends on no other token of the batch, on no thread, and on no padding of the memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ggml_ctypes import F32, TYPES

from kernels.conftest import MOST, WIDTHS, assert_same_bits

HEADS, HEADS_KV = 6, 2
CELLS = [256, 512, 768, 1280]  # how far a memory with up to 1200 tokens and a batch may be padded
# K and V of a memory and the length of their rows. The last one is left to the engine's arithmetic.
MEMORIES = [("F16", "F16", 64), ("F16", "F16", 256), ("F32", "F32", 80), ("Q8_0", "Q8_0", 128), ("Q8_0", "F16", 32),
            ("F16", "F16", 72)]  # fmt: skip
memories = pytest.mark.parametrize("memory", MEMORIES, ids=lambda m: "-".join(map(str, m)))


def attention(ggml, memory, q, k, v, mask):
    """Return [tokens, heads, d] for q [heads, tokens, d], k and v [heads_kv, cells, d], and mask [tokens, cells]."""
    k_type, v_type, d = memory
    m, n_cells = mask.shape
    with ggml.graph() as graph:
        tq = graph.tensor(F32, d, m, HEADS)
        tk = graph.tensor(TYPES[k_type], d, n_cells, HEADS_KV)
        tv = graph.tensor(TYPES[v_type], d, n_cells, HEADS_KV)
        tm = graph.tensor(TYPES["F16"], n_cells, m)
        out = ggml.base.ggml_flash_attn_ext(graph.context, tq, tk, tv, tm, 1 / math.sqrt(d), 0.0, 0.0)
        data = {tq: q[:, :m], tm: mask.astype(np.float16)}
        data[tk], data[tv] = (
            ggml.quantize(name, x[:, :n_cells]) for name, x in ((k_type, k), (v_type, v))
        )  # fmt: skip
        graph.compute([out], data)
        return graph.read(out).reshape(m, HEADS, d)


def causal(first, m, n_cells):
    """The first token stands at cell `first`, and every token sees what is before it."""
    return np.where(np.arange(n_cells) <= first + np.arange(m)[:, np.newaxis], 0.0, -np.inf)


def with_holes(first, m, n_cells):
    """As causal(), but half of the cells, some whole runs among them, belong to other sequences."""
    rng = np.random.default_rng(first)
    hidden = rng.random(n_cells) < 0.3
    hidden[40:200] = True
    hidden[0] = False
    return np.where(hidden, -np.inf, causal(first, m, n_cells))


def qkv(d):
    """Queries of the widest batch, keys and values of the largest memory."""
    rng = np.random.default_rng(0)
    q = rng.standard_normal((HEADS, MOST, d)).astype(np.float32)
    k, v = rng.standard_normal((2, HEADS_KV, CELLS[-1], d)).astype(np.float32)
    return q, k, v


def padded(n):
    """The smallest memory that holds n cells."""
    return next(c for c in CELLS if c >= n)


@memories
@pytest.mark.parametrize("make_mask", [causal, with_holes])
@pytest.mark.parametrize("first", [100, 251, 508, 1200])
def test_rows_have_the_bits_of_one_token_at_a_time(ggml, threads, memory, make_mask, first):
    q, k, v = qkv(memory[2])
    alone = []
    for i in range(MOST):
        mask = make_mask(first, MOST, CELLS[-1])[i : i + 1, : padded(first + i + 1)]
        alone.append(attention(ggml, memory, q[:, i : i + 1], k, v, mask))
    for m in WIDTHS:
        mask = make_mask(first, MOST, CELLS[-1])[:m, : padded(first + m)]
        assert_same_bits(attention(ggml, memory, q, k, v, mask), np.concatenate(alone[:m]), f"{m} tokens")


@memories
@pytest.mark.parametrize("first", [60, 508, 1200])
def test_the_number_of_threads_changes_nothing(ggml, memory, first):
    results = []
    for n_threads in (1, 2, 3):
        ggml.set_threads(n_threads)
        results.append(attention(ggml, memory, *qkv(memory[2]), causal(first, 4, CELLS[-1])))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@memories
@pytest.mark.parametrize("make_mask", [causal, with_holes])
@pytest.mark.parametrize("m", [1, 2, 9, 17])
@pytest.mark.parametrize("first", [0, 300, 1200])
def test_agrees_with_double_precision(ggml, memory, make_mask, m, first):
    k_type, v_type, d = memory
    q, k, v = qkv(d)
    mask = make_mask(first, m, padded(first + m))
    ggml.set_threads(2)
    out = attention(ggml, memory, q, k, v, mask)
    k, v = (
        ggml.dequantize(name, ggml.quantize(name, x), d).reshape(x.shape).astype(np.float64)[:, : mask.shape[1]]
        for name, x in ((k_type, k), (v_type, v))
    )
    exact = (k_type, d) != ("F16", 72)  # the engine rounds its queries and sums to half precision
    for i in range(m):
        for head in range(HEADS):
            kv = head // (HEADS // HEADS_KV)
            score = k[kv] @ q[head, i] / math.sqrt(d) + mask[i]
            weight = np.exp(score - score.max())
            expected = weight @ v[kv] / weight.sum()
            np.testing.assert_allclose(out[i, head], expected, rtol=0, atol=2e-6 if exact else 5e-3)
