"""Matrix products through the public ggml API, and the weights and columns the tests give them."""

from __future__ import annotations

import numpy as np
from ggml_ctypes import F32, I32, TYPES

# Every type that has a kernel on x86 with AVX2, and those that take the engine's kernels column by column.
NAMED = ["Q8_0", "Q6_K", "Q5_K", "Q5_0", "Q5_1", "Q4_K", "Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS", "Q3_K", "Q2_K"]
NAMED += ["F16", "BF16", "F32"]
OTHERS = ["IQ3_XXS", "MXFP4"]
RARE = [name for name in TYPES if name not in NAMED + OTHERS]
REPACKED = ["Q4_0", "Q4_K", "IQ4_NL", "Q2_K"]
FLOATS = ["F16", "BF16", "F32"]
# Where a block has its half-precision numbers, and the largest share of a weight that a type with minima subtracts.
SCALES = {
    "Q8_0": [0], "Q4_0": [0], "Q5_0": [0], "IQ4_NL": [0], "IQ4_XS": [0], "Q6_K": [208], "Q3_K": [108],
    "Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q2_K": [80, 82],
}  # fmt: skip
LARGEST_MIN = {"Q4_1": 15, "Q5_1": 31, "Q4_K": 63 * 15, "Q5_K": 63 * 31, "Q2_K": 15 * 3}


def row_length(type_name):
    """Long enough for two blocks; for floats with a rest that fills no vector."""
    return 525 if type_name in FLOATS else 512


def columns(n, count, seed=1):
    """Activations [count, n] that survive quantization unchanged: whole numbers up to 127 in every block of 32."""
    values = np.random.default_rng(seed).integers(-127, 128, (count, n))
    values[:, ::32] = 127
    return (values / 128).astype(np.float32)


def gaussian(ggml, type_name, n_rows, n, seed=0):
    """Weights as a model has them."""
    return ggml.quantize(type_name, np.random.default_rng(seed).standard_normal((n_rows, n)))


def extreme(ggml, type_name, n_rows, n, seed=0):
    """Weights of arbitrary bytes, with blocks of zeros and of the bytes 0x80 and 0x3f among them.

    Bit 6 of every byte is clear, so that no scale in them is infinite or not a number.
    """
    rng = np.random.default_rng(seed)
    size = n_rows * ggml.row_size(type_name, n)
    data = rng.integers(0, 256, size, np.uint8) & 0xBF
    for start in range(0, size - 64, 256):
        data[start : start + 64] = rng.choice([data[start], 0, 0x80, 0x3F])
    return data


def largest(ggml, type_name, n_rows, n, code):
    """Weights of one byte, but for the half-precision numbers of each block, which are the largest there are."""
    n_block = 256 if "_K" in type_name or type_name == "IQ4_XS" else 32
    blocks = np.full((n_rows * n // n_block, ggml.row_size(type_name, n_block)), code, np.uint8)
    for at in SCALES[type_name]:
        blocks[:, at : at + 2] = np.array([65504], np.float16).view(np.uint8)
    return blocks.ravel()


def mul_mat(ggml, type_name, weights, x, repacked=False):
    """Return [columns, rows] of weights [rows, n] times x [columns, n]."""
    n = x.shape[1]
    n_rows = weights.size // ggml.row_size(type_name, n)
    with ggml.graph() as graph:
        a = graph.tensor(TYPES[type_name], n, n_rows, weight=True)
        b = graph.tensor(F32, n, x.shape[0])
        out = ggml.base.ggml_mul_mat(graph.context, a, b)
        graph.compute([out], {a: weights, b: x}, "CPU_REPACK" if repacked else "CPU")
        return graph.read(out).reshape(x.shape[0], n_rows)


def mul_mat_id(ggml, type_name, weights, n_expert, x, ids, repacked=False):
    """Return [tokens, used, rows]: for each token the products with the experts it chose.

    Args:
        weights: n_expert matrices [rows, n].
        x: [tokens, 1 or used, n].
        ids: [tokens, used].
    """
    n_tokens, n_x, n = x.shape
    n_rows = weights.size // n_expert // ggml.row_size(type_name, n)
    with ggml.graph() as graph:
        a = graph.tensor(TYPES[type_name], n, n_rows, n_expert, weight=True)
        b = graph.tensor(F32, n, n_x, n_tokens)
        c = graph.tensor(I32, ids.shape[1], n_tokens)
        out = ggml.base.ggml_mul_mat_id(graph.context, a, b, c)
        graph.compute([out], {a: weights, b: x, c: ids.astype(np.int32)}, "CPU_REPACK" if repacked else "CPU")
        return graph.read(out).reshape(n_tokens, ids.shape[1], n_rows)
