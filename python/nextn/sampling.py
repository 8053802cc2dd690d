"""Choosing one token from one row of the target's logits.

A sampler draws exactly one random number per call. That is what makes sampled text the same with and without
speculation: the i-th emitted token always meets the i-th random number.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nextn.errors import DecodeError
from nextn.options import SamplingParams

__all__ = ["GreedySampler", "Sampler", "TemperatureSampler", "argmax_rows", "make_sampler", "softmax"]

FloatRows = npt.NDArray[np.floating[Any]]


class Sampler(Protocol):
    """Chooses a token from a row of logits."""

    def sample(self, logits: FloatRows) -> int:
        """The token chosen from logits [n_vocab]."""
        ...


class GreedySampler:
    """Takes the token with the largest logit; of equal ones the lowest id."""

    def sample(self, logits: FloatRows) -> int:
        """The token chosen from logits [n_vocab]."""
        return argmax_rows(logits[np.newaxis])[0]


class TemperatureSampler:
    """Draws from softmax(logits / temperature), computed in float64.

    Args:
        temperature: Above 0.
        seed: Seed of the draws; None takes a new one.
    """

    def __init__(self, temperature: float, seed: int | None = None) -> None:
        self._temperature = temperature
        self._random = np.random.default_rng(seed)

    def sample(self, logits: FloatRows) -> int:
        """The token chosen from logits [n_vocab]: the inverse of the cumulative distribution at one uniform number."""
        cumulative = np.cumsum(softmax(logits, self._temperature))
        # side="right" passes over tokens of probability zero; the last sum, not 1, ends the range in spite of rounding
        position = self._random.random() * cumulative[-1]
        return min(int(np.searchsorted(cumulative, position, side="right")), cumulative.size - 1)


def make_sampler(params: SamplingParams) -> Sampler:
    """The sampler for these options."""
    if params.temperature == 0.0:
        return GreedySampler()
    return TemperatureSampler(params.temperature, params.seed)


def argmax_rows(logits: FloatRows) -> list[int]:
    """The token with the largest logit of each row of logits [n_rows, n_vocab]; of equal ones the lowest id."""
    best: list[int] = logits.argmax(axis=1).tolist()
    # NaN wins every arg-max, so looking at the winners is enough
    if any(math.isnan(logits[row, token]) for row, token in enumerate(best)):
        raise DecodeError("the model gave logits that are no numbers (NaN): the file or the computation is broken")
    return best


def softmax(logits: FloatRows, temperature: float = 1.0) -> npt.NDArray[np.float64]:
    """The probability of every token at a temperature, float64 [n_vocab]."""
    shifted = logits.astype(np.float64)
    largest = shifted.max()
    if not np.isfinite(largest):
        raise DecodeError("the model gave logits that are no numbers: the file or the computation is broken")
    shifted -= largest
    with np.errstate(over="ignore", under="ignore"):  # far below the best is zero, as it should be
        shifted /= temperature
        probabilities: npt.NDArray[np.float64] = np.exp(shifted, out=shifted)
        probabilities /= probabilities.sum()
    return probabilities
