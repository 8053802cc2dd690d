"""How probable the model found the tokens it was given: log probabilities, for drafted tokens as for any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LogprobRecorder", "TokenLogprobs"]


@dataclass(frozen=True, kw_only=True)
class TokenLogprobs:
    """A generated token among its alternatives.

    The probabilities are those of the model itself, softmax(logits), whatever the options of sampling made of them.

    Attributes:
        token: The generated token.
        logprob: Natural logarithm of its probability.
        top: The most probable tokens at its place with theirs, most probable first; of equal ones the lowest id first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class LogprobRecorder:
    """Keeps the log probabilities of what a round chose until the round knows how much of it is emitted.

    Args:
        n_top: How many alternatives to keep for each token.
    """

    def __init__(self, n_top: int) -> None:
        self._n_top = n_top
        self._noted: list[TokenLogprobs] = []

    def note(self, tokens: Sequence[int], logits: npt.NDArray[np.floating[Any]]) -> None:
        """Take the tokens [n] chosen from the first n rows of logits [>= n, n_vocab]."""
        self._noted = [self._of(token, logits[i]) for i, token in enumerate(tokens)]

    def take(self, n_tokens: int) -> list[TokenLogprobs]:
        """Give those of the first n_tokens tokens that were noted."""
        return self._noted[:n_tokens]

    def _of(self, token: int, row: npt.NDArray[np.floating[Any]]) -> TokenLogprobs:
        """The log probabilities of one row of logits [n_vocab], in float64."""
        logits = row.astype(np.float64)
        largest = logits.max()
        logits -= largest + np.log(np.exp(logits - largest).sum())
        n_top = min(self._n_top, len(logits))
        likely = np.argpartition(-logits, n_top - 1)[:n_top] if n_top else np.empty(0, dtype=np.int64)
        if n_top:  # of tokens as probable as the last one, those with the lowest ids
            floor = logits[likely].min()
            above, equal = np.flatnonzero(logits > floor), np.flatnonzero(logits == floor)
            likely = np.concatenate([above, equal[: n_top - len(above)]])
        ranked = sorted(((int(i), float(logits[i])) for i in likely), key=lambda entry: (-entry[1], entry[0]))
        return TokenLogprobs(token=int(token), logprob=float(logits[token]), top=tuple(ranked))
