"""Flash attention of a token depends on no other token of the batch, on no thread, and on no padding of the memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ggml_ctypes import F32, TYPES

from kernels.conftest import WIDTHS, assert_same_bits

D, HEADS, HEADS_KV = 64, 6, 2
CELLS = [256, 512, 768, 1280]  # how far a memory with up to 1200 tokens may be padded


def attention(ggml, kv_type, q, k, v, first, n_cells):
    """Return [tokens, heads, D]: causal attention of q [heads, tokens, D], the first token standing at cell `first`."""
    m = q.shape[1]
    mask = np.full((m, n_cells), -np.inf, np.float16)
    for i in range(m):
        mask[i, : first + i + 1] = 0
    with ggml.graph() as graph:
        tq = graph.tensor(F32, D, m, HEADS)
        tk = graph.tensor(TYPES[kv_type], D, n_cells, HEADS_KV)
        tv = graph.tensor(TYPES[kv_type], D, n_cells, HEADS_KV)
        tm = graph.tensor(TYPES["F16"], n_cells, m)
        out = ggml.base.ggml_flash_attn_ext(graph.context, tq, tk, tv, tm, 1 / math.sqrt(D), 0.0, 0.0)
        data = {tq: q, tm: mask}
        data[tk], data[tv] = (ggml.quantize(kv_type, x[:, :n_cells]) for x in (k, v))
        graph.compute([out], data)
        return graph.read(out).reshape(m, HEADS, D)


@pytest.fixture(scope="module")
def qkv():
    """Queries of 9 tokens, keys and values of the largest memory."""
    rng = np.random.default_rng(0)
    q = rng.standard_normal((HEADS, 9, D)).astype(np.float32)
    k, v = rng.standard_normal((2, HEADS_KV, CELLS[-1], D)).astype(np.float32)
    return q, k, v


def padded(n):
    """The smallest memory that holds n cells."""
    return next(c for c in CELLS if c >= n)


@pytest.mark.parametrize("kv_type", ["F16", "F32", "Q8_0"])
@pytest.mark.parametrize("first", [100, 251, 508, 765, 1200])
def test_rows_have_the_bits_of_one_token_at_a_time(ggml, threads, qkv, kv_type, first):
    q, k, v = qkv
    alone = np.concatenate(
        [attention(ggml, kv_type, q[:, i : i + 1], k, v, first + i, padded(first + i + 1)) for i in range(9)]
    )
    for m in WIDTHS:
        batch = attention(ggml, kv_type, q[:, :m], k, v, first, padded(first + m))
        assert_same_bits(batch, alone[:m], f"{m} tokens")


@pytest.mark.parametrize("first", [508, 1200])
def test_the_number_of_threads_changes_nothing(ggml, qkv, first):
    results = []
    for n_threads in (1, 2, 3):
        ggml.set_threads(n_threads)
        results.append(attention(ggml, "F16", qkv[0][:, :4], qkv[1], qkv[2], first, CELLS[-1]))
    assert_same_bits(results[1], results[0])
    assert_same_bits(results[2], results[0])


@pytest.mark.parametrize("m", [1, 2, 9])
@pytest.mark.parametrize("first", [0, 300, 1200])
def test_agrees_with_double_precision(ggml, qkv, m, first):
    q, k, v = (x.astype(np.float64) for x in qkv)
    ggml.set_threads(2)
    out = attention(ggml, "F32", qkv[0][:, :m], qkv[1], qkv[2], first, padded(first + m))
    for i in range(m):
        for head in range(HEADS):
            kv = head // (HEADS // HEADS_KV)
            score = k[kv, : first + i + 1] @ q[head, i] / math.sqrt(D)
            weight = np.exp(score - score.max())
            expected = weight @ v[kv, : first + i + 1] / weight.sum()
            np.testing.assert_allclose(out[i, head], expected, rtol=1e-3, atol=1e-4)
