"""The convolution of a recurrent layer: the engine's bits, in the places where a model's graph has them."""

from __future__ import annotations

import numpy as np
import pytest
from ggml_ctypes import F32

from kernels.conftest import WIDTHS, assert_same_bits

TAPS, N_SEQS = 4, 2
# Whole vectors, some in the last block, and a model's own number.
CHANNELS = [16, 40, 17, 6144]


def rows(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def make_inputs(ggml, older, newer, n_kept):
    """The inputs of a convolution as a model makes them, and the copies of those that a rollback may need.

    Returns the inputs [seqs, channels, taps - 1 + tokens] and the memory [slots, channels * (taps - 1)], which has a
    cell between each two sequences and was full of sevens.
    """
    n_tokens, n_channels = newer.shape[1:]
    n_state = (TAPS - 1) * n_channels
    base = ggml.base
    with ggml.graph() as graph:
        of_older = graph.tensor(F32, TAPS - 1, n_channels, N_SEQS)
        of_newer = graph.tensor(F32, n_channels, n_tokens, N_SEQS)
        memory = graph.tensor(F32, n_state, 2 * N_SEQS * n_kept)
        inputs = base.ggml_concat(graph.context, of_older, base.ggml_transpose(graph.context, of_newer), 0)
        length, copies = TAPS - 1 + n_tokens, []
        for slot in range(n_kept):
            row, cells = 4 * length, 4 * n_state
            first = 4 * (n_tokens - slot)
            kept = base.ggml_view_3d(graph.context, inputs, TAPS - 1, n_channels, N_SEQS, row, row * n_channels, first)
            to = base.ggml_view_3d(graph.context, memory, n_state, N_SEQS, 1, 2 * cells, 0, 2 * N_SEQS * slot * cells)
            copies.append(base.ggml_cpy(graph.context, kept, to))
        start = np.full((2 * N_SEQS * n_kept, n_state), 7, np.float32)
        graph.compute([inputs, *copies], {of_older: older, of_newer: newer, memory: start})
        return graph.read(inputs).reshape(N_SEQS, n_channels, length), graph.read(memory).reshape(start.shape)


@pytest.mark.parametrize("n_channels", CHANNELS)
@pytest.mark.parametrize("n_tokens", [1, *WIDTHS, 37])
def test_inputs_and_what_a_rollback_needs_of_them(ggml, threads, n_channels, n_tokens):
    rng = np.random.default_rng(n_tokens)
    older, newer = rows(rng, N_SEQS, n_channels, TAPS - 1), rows(rng, N_SEQS, n_tokens, n_channels)
    n_kept = min(n_tokens, 9)
    inputs, memory = make_inputs(ggml, older, newer, n_kept)
    expected = np.concatenate([older, newer.transpose(0, 2, 1)], axis=2)
    assert_same_bits(inputs, expected, "inputs")
    memory = memory.reshape(n_kept, N_SEQS, 2, n_channels, TAPS - 1)
    for slot in range(n_kept):
        kept = expected[:, :, n_tokens - slot : n_tokens - slot + TAPS - 1]
        assert_same_bits(np.ascontiguousarray(memory[slot, :, 0]), np.ascontiguousarray(kept), f"slot {slot}")
    assert (memory[:, :, 1] == 7).all()


def convolve(ggml, inputs, weights, *, read_sums):
    """Activations [seqs, tokens, channels], and the sums before them, which need not be written without read_sums."""
    n_channels, length = inputs.shape[1:]
    base = ggml.base
    with ggml.graph() as graph:
        of_inputs = graph.tensor(F32, length, n_channels, N_SEQS)
        of_weights = graph.tensor(F32, TAPS, n_channels)
        sums = base.ggml_ssm_conv(graph.context, of_inputs, of_weights)
        out = base.ggml_silu(graph.context, sums)
        nothing = np.full((N_SEQS, length - TAPS + 1, n_channels), 7, np.float32)
        results = [out] + [base.ggml_cont(graph.context, sums)] * read_sums
        graph.compute(results, {of_inputs: inputs, of_weights: weights, sums: nothing})
        return graph.read(out).reshape(nothing.shape), graph.read(sums).reshape(nothing.shape)


@pytest.mark.parametrize("n_channels", CHANNELS)
@pytest.mark.parametrize("n_tokens", [1, *WIDTHS])
def test_the_bits_of_the_engine(ggml, threads, n_channels, n_tokens):
    rng = np.random.default_rng(n_tokens)
    inputs, weights = rows(rng, N_SEQS, n_channels, TAPS - 1 + n_tokens), rows(rng, n_channels, TAPS)
    expected, sums = convolve(ggml, inputs, weights, read_sums=True)  # two read the sums, so the engine computes them
    exact = sum(inputs[:, :, i : i + n_tokens].astype(np.float64) * weights[:, i : i + 1] for i in range(TAPS))
    np.testing.assert_allclose(sums, exact.transpose(0, 2, 1), rtol=1e-4, atol=1e-5)
    out, sums = convolve(ggml, inputs, weights, read_sums=False)
    assert (sums == 7).all(), "the engine computed it"
    assert_same_bits(out, expected)


def test_a_prompt_is_left_to_the_engine(ggml, threads):
    rng = np.random.default_rng(0)
    inputs, weights = rows(rng, N_SEQS, 64, TAPS - 1 + 37), rows(rng, 64, TAPS)
    out, sums = convolve(ggml, inputs, weights, read_sums=False)
    assert not (sums == 7).any()
    assert_same_bits(out, convolve(ggml, inputs, weights, read_sums=True)[0])
