"""A product of few columns has the bits of one column at a time, and is right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kernels.conftest import MOST, WIDTHS, assert_same_bits
from kernels.products import (
    FLOATS,
    LARGEST_MIN,
    NAMED,
    OTHERS,
    RARE,
    REPACKED,
    SCALES,
    columns,
    extreme,
    gaussian,
    largest,
    mul_mat,
    mul_mat_id,
    row_length,
)

LAYOUTS = [(name, False) for name in NAMED + OTHERS] + [(name, True) for name in REPACKED]
LAYOUTS += [pytest.param(name, False, marks=pytest.mark.long) for name in RARE]
layouts = pytest.mark.parametrize(
    ("type_name", "repacked"), LAYOUTS, ids=lambda x: {True: "repacked", False: ""}.get(x, x)
)


@pytest.fixture(autouse=True)
def layout_exists(request, ggml):
    """Skip what this build does not repack."""
    callspec = getattr(request.node, "callspec", None)
    if callspec and callspec.params.get("repacked") and not ggml.repacks(callspec.params["type_name"]):
        pytest.skip("this build does not repack the type")


@layouts
@pytest.mark.parametrize("n_rows", [8, 24, 37, 1])
@pytest.mark.parametrize("make", [gaussian, extreme])
def test_every_width_has_the_bits_of_one_column(ggml, threads, type_name, repacked, n_rows, make):
    if repacked and n_rows % 8:
        pytest.skip("repacked weights have a multiple of 8 rows")
    n = row_length(type_name)
    weights = make(ggml, type_name, n_rows, n)
    x = np.random.default_rng(1).standard_normal((MOST, n)).astype(np.float32)
    alone = np.concatenate([mul_mat(ggml, type_name, weights, x[i : i + 1], repacked) for i in range(MOST)])
    for m in WIDTHS:
        assert_same_bits(mul_mat(ggml, type_name, weights, x[:m], repacked), alone[:m], f"{m} columns")


@layouts
@pytest.mark.parametrize("make", [gaussian, extreme])
def test_agrees_with_double_precision(ggml, type_name, repacked, make):
    n, n_rows = row_length(type_name), 32
    weights = make(ggml, type_name, n_rows, n)
    w = ggml.dequantize(type_name, weights, n).astype(np.float64)
    x = columns(n, MOST)
    ggml.set_threads(2)
    for m in (1, *WIDTHS):
        y = mul_mat(ggml, type_name, weights, x[:m], repacked)
        error = np.abs(y - x[:m].astype(np.float64) @ w.T)
        assert (error <= 2e-6 * (np.abs(x[:m]) @ np.abs(w).T) + 1e-30).all(), f"{m} columns: {error.max()}"


@pytest.mark.parametrize("type_name", SCALES)
@pytest.mark.parametrize("code", [0x00, 0x80, 0x7F, 0xFF], ids=hex)
def test_largest_weights_and_columns(ggml, type_name, code):
    """The outermost codes (-128 of Q8_0 among them) and scales as large as half precision has them."""
    n, n_rows = 512, 16
    weights = largest(ggml, type_name, n_rows, n, code)
    w = ggml.dequantize(type_name, weights, n).astype(np.float64)
    alternating = np.tile(np.array([127, -127], np.float32), (MOST, n // 2))
    alternating[1::2] *= -1
    same = np.full((MOST, n), 127, np.float32)
    tolerance = 2e-6 * 127 * n * max(np.abs(w).max(), 65504 * LARGEST_MIN.get(type_name, 0))
    for repacked in [False] + [True] * (type_name in REPACKED and ggml.repacks(type_name)):
        for x in (alternating, same):
            for m in (1, *WIDTHS):
                y = mul_mat(ggml, type_name, weights, x[:m], repacked)
                np.testing.assert_allclose(y, x[:m].astype(np.float64) @ w.T, rtol=0, atol=tolerance)


@layouts
@pytest.mark.parametrize("n_x", [1, 3])
def test_experts_do_not_depend_on_who_shares_them(ggml, threads, type_name, repacked, n_x):
    n, n_rows, n_expert, n_used = row_length(type_name), 40, 5, 3
    rng = np.random.default_rng(2)
    weights = gaussian(ggml, type_name, n_expert * n_rows, n)
    x = rng.standard_normal((MOST, n_x, n)).astype(np.float32)
    ids = np.stack([rng.permutation(n_expert)[:n_used] for _ in range(MOST)])
    ids[3:6] = ids[3]  # three tokens that agree on everything

    def product(tokens):
        return mul_mat_id(ggml, type_name, weights, n_expert, x[tokens], ids[tokens], repacked)

    alone = np.concatenate([product(slice(i, i + 1)) for i in range(MOST)])
    for m in WIDTHS:
        assert_same_bits(product(slice(0, m)), alone[:m], f"{m} tokens")
    for token, slot in ((0, 0), (4, 2)):  # and is the expert's product
        matrix = weights.reshape(n_expert, -1)[ids[token, slot]]
        expected = mul_mat(ggml, type_name, matrix, x[token, slot % n_x : slot % n_x + 1], repacked)
        assert_same_bits(alone[token, slot], expected[0], "expert")


@layouts
@pytest.mark.parametrize("m", [1, 2, 4, 9, 36])
def test_the_number_of_threads_changes_nothing(ggml, type_name, repacked, m):
    n, n_expert = row_length(type_name), 3
    weights = gaussian(ggml, type_name, n_expert * 48, n)
    x = np.random.default_rng(5).standard_normal((m, n)).astype(np.float32)
    ids = np.stack([np.roll(np.arange(n_expert), i)[:2] for i in range(m)])
    results = []
    for n_threads in (1, 2, 3):
        ggml.set_threads(n_threads)
        dense = mul_mat(ggml, type_name, weights, x, repacked)
        experts = mul_mat_id(ggml, type_name, weights, n_expert, x[:, np.newaxis], ids, repacked)
        results.append(np.concatenate([dense.ravel(), experts.ravel()]))
    assert_same_bits(results[1], results[0], "2 threads")
    assert_same_bits(results[2], results[0], "3 threads")


@pytest.mark.parametrize("type_name", ["F16", "F32", "Q8_0", "BF16"])
def test_planes_share_weights_as_attention_heads_do(ggml, threads, type_name):
    # keys of 2 heads, queries of 6: what attention without flash attention multiplies
    from ggml_ctypes import F32
    from ggml_ctypes import TYPES as IDS

    n, n_rows = 64, 300
    weights = gaussian(ggml, type_name, 2 * n_rows, n)
    x = np.random.default_rng(3).standard_normal((6, MOST, n)).astype(np.float32)

    def product(m):
        with ggml.graph() as graph:
            a = graph.tensor(IDS[type_name], n, n_rows, 2)
            b = graph.tensor(F32, n, m, 6)
            out = ggml.base.ggml_mul_mat(graph.context, a, b)
            graph.compute([out], {a: weights, b: x[:, :m] if m > 1 else x[:, :1]})
            return graph.read(out).reshape(6, m, n_rows)

    wide = product(MOST)
    assert_same_bits(product(1), np.ascontiguousarray(wide[:, :1]), "1 token")
    for m in WIDTHS:
        assert_same_bits(product(m), np.ascontiguousarray(wide[:, :m]), f"{m} tokens")


@pytest.mark.parametrize("type_name", ["F16", "F32"])
def test_convolutions_keep_their_data_in_the_work_buffer(ggml, threads, type_name):
    # A convolution multiplies 3 x 3 patches, few enough to be columns, that it gathered in the work buffer.
    from ggml_ctypes import F32
    from ggml_ctypes import TYPES as IDS

    rng = np.random.default_rng(4)
    kernel = rng.integers(-4, 5, (24, 8, 4, 4)).astype(np.float32)
    image = rng.integers(-4, 5, (1, 8, 6, 6)).astype(np.float32)
    with ggml.graph() as graph:
        a = graph.tensor(IDS[type_name], 4, 4, 8, 24)
        b = graph.tensor(F32, 6, 6, 8, 1)
        out = ggml.base.ggml_conv_2d_direct(graph.context, a, b, 1, 1, 0, 0, 1, 1)
        graph.compute([out], {a: kernel.astype(np.float16 if type_name == "F16" else np.float32), b: image})
        result = graph.read(out).reshape(24, 3, 3)
    patches = np.lib.stride_tricks.sliding_window_view(image[0], (4, 4), axis=(1, 2))
    np.testing.assert_array_equal(result, np.einsum("kcyx,cijyx->kij", kernel, patches))


PRINT_HASHES = """
import hashlib, sys
sys.path[:0] = sys.argv[1:]
from ggml_ctypes import Ggml
from kernels.products import *
ggml = Ggml(n_threads=2)
for type_name in NAMED:
    for repacked in [False] + [True] * (type_name in REPACKED and ggml.repacks(type_name)):
        n = row_length(type_name)
        weights, x = gaussian(ggml, type_name, 48, n), columns(n, 64) * 0.7
        for m in (1, 4, 17, 37, 64):
            y = mul_mat(ggml, type_name, weights, x[:m], repacked)
            print(type_name, repacked, m, hashlib.sha256(y.tobytes()).hexdigest())
"""


def hashes(level):
    """Hashes of products by (type, repacked, columns), with GGML_NEXTN_NARROW set to level."""
    paths = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2] / "scripts")]
    env = dict(os.environ, GGML_NEXTN_NARROW=str(level))
    run = subprocess.run(
        [sys.executable, "-c", PRINT_HASHES, *paths], env=env, capture_output=True, text=True, check=True
    )
    assert "does not reproduce" not in run.stderr, run.stderr  # a kernel that failed its own check and is not used
    return {tuple(line.split()[:3]): line.split()[3] for line in run.stdout.splitlines() if len(line.split()) == 4}


@pytest.fixture(scope="module")
def engine():
    """The hashes of the engine's own kernels."""
    return hashes(0)


def test_one_column_and_wide_batches_are_the_engines(engine):
    ours = hashes(2)
    assert ours.keys() == engine.keys() and len(ours) >= 5 * len(NAMED)
    for key, value in ours.items():
        if key[2] not in ("4", "17"):
            assert value == engine[key], key


def test_kernels_have_the_bits_of_the_engines_kernels_column_by_column():
    assert hashes(2) == hashes(1)


def test_the_comparison_can_fail(engine):
    # The engine's own kernels for four columns are what these tests are about: some must differ from one at a time.
    ours = hashes(2)
    assert {key[0] for key in ours if ours[key] != engine[key]} & {"Q4_K", "Q3_K", *FLOATS}


@layouts
@pytest.mark.parametrize("make", [gaussian, extreme])
def test_columns_of_zeros_give_zeros_and_leave_the_others_alone(ggml, threads, type_name, repacked, make):
    """As the rows are that pad a sequence; they are skipped."""
    n, n_rows = row_length(type_name), 40
    rng = np.random.default_rng(6)
    weights = make(ggml, type_name, n_rows, n)
    x = rng.standard_normal((MOST, n)).astype(np.float32)
    alone = np.concatenate([mul_mat(ggml, type_name, weights, x[i : i + 1], repacked) for i in range(MOST)])
    for m in WIDTHS:
        zero = rng.random(m) < 0.5 if m > 2 else np.array([False, True])
        y = mul_mat(ggml, type_name, weights, np.where(zero[:, None], np.float32(0), x[:m]), repacked)
        assert_same_bits(y[~zero], alone[:m][~zero], f"{m} columns")
        assert (y[zero] == 0).all()


@layouts
def test_tokens_of_zeros_do_not_go_to_experts(ggml, threads, type_name, repacked):
    n, n_rows, n_expert, n_used = row_length(type_name), 40, 5, 3
    rng = np.random.default_rng(7)
    weights = gaussian(ggml, type_name, n_expert * n_rows, n)
    x = rng.standard_normal((MOST, n_used, n)).astype(np.float32)
    ids = np.stack([rng.permutation(n_expert)[:n_used] for _ in range(MOST)])
    expected = mul_mat_id(ggml, type_name, weights, n_expert, x, ids, repacked)
    zero = rng.random((MOST, n_used)) < 0.4
    y = mul_mat_id(ggml, type_name, weights, n_expert, np.where(zero[..., None], np.float32(0), x), ids, repacked)
    assert_same_bits(y[~zero], expected[~zero], "the others")
    assert (y[zero] == 0).all()
