"""The gated delta net of several tokens: outputs and states of one token at a time, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from ggml_ctypes import F32, I32

from kernels.conftest import MOST, WIDTHS, assert_same_bits

HEADS_K, HEADS_V, N_SEQS = 2, 4, 2


def delta_net(ggml, inputs, state, n_snapshots):
    """Return outputs [seqs, tokens, heads, n] and the newest states first [snapshots, seqs, heads, n, n]."""
    q, k, v, gate, beta = inputs
    n_tokens, n = v.shape[1], v.shape[3]
    with ggml.graph() as graph:
        tensors = [graph.tensor(F32, *reversed(x.shape)) for x in (q, k, v, gate, beta, state)]
        out = ggml.base.ggml_gated_delta_net(graph.context, *tensors, n_snapshots)
        graph.compute([out], dict(zip(tensors, (q, k, v, gate, beta, state), strict=True)))
        values = graph.read(out)
    size = N_SEQS * n_tokens * HEADS_V * n
    return values[:size].reshape(N_SEQS, n_tokens, HEADS_V, n), values[size:].reshape(-1, *state.shape)


def make(n):
    """Inputs of the widest batch (q, k, v, gate, beta) and a state."""
    rng = np.random.default_rng(n)
    q, k = rng.standard_normal((2, N_SEQS, MOST, HEADS_K, n)).astype(np.float32) / n**0.5
    v = rng.standard_normal((N_SEQS, MOST, HEADS_V, n)).astype(np.float32)
    gate, beta = rng.random((2, N_SEQS, MOST, HEADS_V, 1)).astype(np.float32)
    return (q, k, v, -gate, beta), rng.standard_normal((N_SEQS, HEADS_V, n, n)).astype(np.float32)


@pytest.mark.parametrize("n", [16, 24, 64, 128])
@pytest.mark.parametrize("n_snapshots", [1, 4, 17])
def test_batches_have_the_bits_of_one_token_at_a_time(ggml, threads, n, n_snapshots):
    inputs, start = make(n)
    outputs, states, state = [], [], start
    for i in range(MOST):
        out, new = delta_net(ggml, [np.ascontiguousarray(x[:, i : i + 1]) for x in inputs], state, 1)
        state = new[0].copy()
        outputs.append(out)
        states.append(state)
    for m in WIDTHS:
        out, kept = delta_net(ggml, [np.ascontiguousarray(x[:, :m]) for x in inputs], start, n_snapshots)
        assert_same_bits(out, np.concatenate(outputs[:m], axis=1), f"outputs of {m} tokens")
        for slot in range(min(m, n_snapshots)):
            assert_same_bits(kept[slot], states[m - 1 - slot], f"state {slot} back of {m} tokens")


@pytest.mark.parametrize("n", [24, 128])
@pytest.mark.parametrize("m", [1, 4, 9, 36])
def test_the_number_of_threads_changes_nothing(ggml, n, m):
    inputs, start = make(n)
    results = []
    for n_threads in (1, 2, 3):
        ggml.set_threads(n_threads)
        out, kept = delta_net(ggml, [np.ascontiguousarray(x[:, :m]) for x in inputs], start, 4)
        results.append(np.concatenate([out.ravel(), kept[: min(m, 4)].ravel()]))
    assert_same_bits(results[1], results[0], "2 threads")
    assert_same_bits(results[2], results[0], "3 threads")


def with_memory(ggml, inputs, state, n_kept, read_states):
    """The delta net as a model has it: its newest states copied to every second slot of a memory.

    Returns the outputs, the memory, and the states behind the outputs, which need not be written without read_states.
    """
    n_tokens, n = inputs[2].shape[1], inputs[2].shape[3]
    n_state, n_out = HEADS_V * n * n, N_SEQS * n_tokens * HEADS_V * n
    base, memory_rows = ggml.base, 2 * n_kept * N_SEQS
    with ggml.graph() as graph:
        tensors = [graph.tensor(F32, *reversed(x.shape)) for x in (*inputs, state)]
        memory = graph.tensor(F32, n_state, memory_rows)
        net = base.ggml_gated_delta_net(graph.context, *tensors, n_kept)
        row = 4 * n_state
        states = base.ggml_view_3d(graph.context, net, n_state, N_SEQS, n_kept, row, row * N_SEQS, 4 * n_out)
        slots = base.ggml_view_3d(graph.context, memory, n_state, N_SEQS, n_kept, row, 2 * row * N_SEQS, 0)
        copy = base.ggml_cpy(graph.context, states, slots)
        outputs = base.ggml_cont(graph.context, base.ggml_view_3d(graph.context, net, n_out, 1, 1, 0, 0, 0))
        results = [copy, outputs] + [base.ggml_cont(graph.context, states)] * read_states
        start = np.full((memory_rows, n_state), 7, np.float32)
        nothing = np.full(n_out + n_kept * N_SEQS * n_state, 7, np.float32)
        graph.compute(results, dict(zip([*tensors, memory, net], [*inputs, state, start, nothing], strict=True)))
        return [
            graph.read(outputs),
            graph.read(memory),
            graph.read(results[-1] if read_states else net)[-nothing.size + n_out :],
        ]


@pytest.mark.parametrize("m", [1, 2, 4, 9, 17])
@pytest.mark.parametrize("read_states", [False, True])
def test_states_reach_the_memory(ggml, threads, m, read_states):
    inputs, start = make(32)
    inputs = [np.ascontiguousarray(x[:, :m]) for x in inputs]
    n_kept = min(m, 3)
    out, states = delta_net(ggml, inputs, start, n_kept)
    result = with_memory(ggml, inputs, start, n_kept, read_states)
    assert_same_bits(result[0], out.ravel(), "outputs")
    memory = result[1].reshape(n_kept, 2, N_SEQS, -1)
    assert_same_bits(np.ascontiguousarray(memory[:, 0]).ravel(), states.ravel(), "memory")
    assert (memory[:, 1] == 7).all()
    if read_states:
        assert_same_bits(result[2], states.ravel(), "states in the result")
    else:
        assert (result[2] == 7).all(), "the states went through the result"


@pytest.mark.parametrize("n", [64, 128])
def test_agrees_with_double_precision(ggml, n):
    inputs, start = make(n)
    out, kept = delta_net(ggml, inputs, start, 1)
    q, k, v, gate, beta = (x.astype(np.float64) for x in inputs)
    for seq in range(N_SEQS):
        for head in range(HEADS_V):
            s = start[seq, head].astype(np.float64)  # [value, key]
            for t in range(MOST):
                key, query = (x[seq, t, head % HEADS_K] for x in (k, q))
                s *= np.exp(gate[seq, t, head])
                s += np.outer((v[seq, t, head] - s @ key) * beta[seq, t, head], key)
                np.testing.assert_allclose(out[seq, t, head], s @ query / n**0.5, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(kept[0][seq, head], s, rtol=1e-4, atol=1e-5)


CELLS = 3  # of the memory below, one of which is no sequence's


def from_memory(ggml, inputs, memory, ids, n_kept, write_between):
    """The delta net as a server has it: first states from rows of the memory, the newest ones back to its cells.

    memory is [planes, cells, state]; ids are the rows of it that the sequences begin with. Returns the outputs, the
    memory and what the gathering left where it puts the states.
    """
    n_tokens, n = inputs[2].shape[1], inputs[2].shape[3]
    n_state, n_out = HEADS_V * n * n, N_SEQS * n_tokens * HEADS_V * n
    base = ggml.base
    with ggml.graph() as graph:
        tensors = [graph.tensor(F32, *reversed(x.shape)) for x in inputs]
        cells = graph.tensor(F32, n_state, memory.shape[0] * CELLS)
        of_ids, other = graph.tensor(I32, N_SEQS), graph.tensor(F32, n_state)
        gathered = base.ggml_get_rows(graph.context, cells, of_ids)
        row = 4 * n_state
        between = []
        if write_between:  # the last cell of the first plane
            to = base.ggml_view_2d(graph.context, cells, n_state, 1, row, (CELLS - 1) * row)
            between = [base.ggml_cpy(graph.context, other, to)]
        state = base.ggml_reshape_4d(graph.context, gathered, n, n, HEADS_V, N_SEQS)
        net = base.ggml_gated_delta_net(graph.context, *tensors, state, n_kept)
        states = base.ggml_view_3d(graph.context, net, n_state, N_SEQS, n_kept, row, row * N_SEQS, 4 * n_out)
        slots = base.ggml_view_3d(graph.context, cells, n_state, N_SEQS, n_kept, row, CELLS * row, 0)
        copy = base.ggml_cpy(graph.context, states, slots)
        outputs = base.ggml_cont(graph.context, base.ggml_view_3d(graph.context, net, n_out, 1, 1, 0, 0, 0))
        data = dict(zip(tensors, inputs, strict=True))
        data |= {cells: memory, of_ids: np.array(ids, np.int32), other: np.full(n_state, 5, np.float32)}
        data |= {gathered: np.full((N_SEQS, n_state), 7, np.float32)}
        graph.compute([gathered, *between, copy, outputs], data)
        return graph.read(outputs), graph.read(cells).reshape(memory.shape), graph.read(gathered).reshape(N_SEQS, -1)


# rows that the two sequences begin with: plane * CELLS + cell
BEGINS = {
    "their own": (0, 1),
    "rolled back": (2 * CELLS, 1 * CELLS + 1),
    "each other's": (1, 0),
    "one state for both": (2, 2),
    "a snapshot of the other": (CELLS + 1, 1),
}


@pytest.mark.parametrize("n", [32, 128])
@pytest.mark.parametrize("m", [1, 3, 9])
@pytest.mark.parametrize("write_between", [False, True])
@pytest.mark.parametrize("ids", BEGINS.values(), ids=BEGINS)
def test_states_are_read_where_the_memory_has_them(ggml, threads, n, m, ids, write_between):
    inputs, _ = make(n)
    inputs = [np.ascontiguousarray(x[:, :m]) for x in inputs]
    n_kept = min(m, 3)
    memory = np.random.default_rng(m).standard_normal((3, CELLS, HEADS_V * n * n)).astype(np.float32)
    start = np.ascontiguousarray(memory.reshape(3 * CELLS, HEADS_V, n, n)[list(ids)])
    expected, states = delta_net(ggml, inputs, start, n_kept)
    outputs, after, gathered = from_memory(ggml, inputs, memory, ids, n_kept, write_between)

    assert_same_bits(outputs, expected.ravel(), "outputs")
    assert_same_bits(after[:n_kept, :N_SEQS].ravel(), states[:n_kept].ravel(), "memory")
    wanted = memory.copy()
    if write_between:
        wanted[0, CELLS - 1] = 5
    assert_same_bits(after[:, N_SEQS:].ravel(), wanted[:, N_SEQS:].ravel(), "the cell of no sequence")
    assert_same_bits(after[n_kept:].ravel(), wanted[n_kept:].ravel(), "older planes")
    rows_written = {plane * CELLS + cell for plane in range(n_kept) for cell in range(N_SEQS)}
    clash = any(row in rows_written and row % CELLS != seq for seq, row in enumerate(ids))
    assert (gathered[:, 64:] == 7).all() == (not clash and not write_between), "gathered only where it has to be"
