"""Rows of logits as arrays: the largest entries and the soft-max, fast on a vocabulary of 248,320 tokens."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nextn.errors import DecodeError

__all__ = ["FloatRow", "IdRow", "argmax_rows", "check_largest", "exp_below", "softmax", "top_positions"]

FloatRow: TypeAlias = npt.NDArray[np.floating[Any]]
IdRow: TypeAlias = npt.NDArray[np.integer[Any]]

_N_PARTS = 64  # a long row is searched in parts
_LONG = 16_384  # entries from which on it pays to look twice, and to compute in float32


def argmax_rows(logits: FloatRow) -> list[int]:
    """The token with the largest logit of each row of logits [n_rows, n_vocab]; of equal ones the lowest id."""
    best: list[int] = logits.argmax(axis=1).tolist()
    # NaN wins every arg-max, so looking at the winners is enough
    if any(math.isnan(logits[row, token]) for row, token in enumerate(best)):
        raise DecodeError("the model gave logits that are no numbers (NaN): the file or the computation is broken")
    return best


def check_largest(logits: FloatRow) -> float:
    """The largest logit of a row [n]; a row that has none is an error."""
    largest = float(logits.max())  # NaN when any is
    if not math.isfinite(largest):
        raise DecodeError("the model gave logits that are no numbers: the file or the computation is broken")
    return largest


def exp_below(logits: FloatRow, temperature: float = 1.0) -> FloatRow:
    """exp((logits - largest) / temperature) of a row [n]: in float64, or in float32 when the row is long.

    A logit of 20 is known to 1e-6 in float32, which is as much of a relative error in its probability; the float32
    exponential adds no more than that.
    """
    shifted = logits.astype(np.float64 if logits.size < _LONG else np.float32)
    shifted -= check_largest(logits)
    with np.errstate(over="ignore", under="ignore"):  # far below the best is zero, as it should be
        if temperature != 1.0:
            shifted /= max(temperature, 1e-30)
        powers: FloatRow = np.exp(shifted, out=shifted)
    return powers


def softmax(logits: FloatRow, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """The probability of every token at a temperature, float64 [n_vocab]."""
    shifted = (logits.astype(np.float64) - check_largest(logits)) / max(temperature, 1e-30)
    with np.errstate(under="ignore"):
        powers = np.exp(shifted)
    probabilities: npt.NDArray[np.float64] = powers / powers.sum()
    return probabilities


def top_positions(values: FloatRow, k: int) -> npt.NDArray[np.int64]:
    """Where the k largest of values [n] are, the largest first; of equal ones the lowest position."""
    k = min(k, values.size)
    positions = np.arange(values.size)
    n_part = values.size // _N_PARTS
    if values.size >= _LONG and k <= n_part:
        # Column j of the folded row has a maximum; k columns have one of at least `least`, so the k largest have, too.
        largest = values[: n_part * _N_PARTS].reshape(_N_PARTS, n_part).max(axis=0)
        least = np.partition(largest, n_part - k)[n_part - k]
        positions = np.flatnonzero(values >= least)
    if k < positions.size:
        kept = values[positions]
        least = np.partition(kept, kept.size - k)[kept.size - k]
        above = positions[kept > least]
        positions = np.concatenate((above, positions[kept == least][: k - above.size]))
    return positions[np.lexsort((positions, -values[positions]))]
