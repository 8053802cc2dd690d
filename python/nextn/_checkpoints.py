"""Places in the last prompt to which the memories can be taken back, so that the next need not be read from its start.

A recurrent layer holds one state, not one per token: it can only be taken back to where a copy was made. Copies are
made at the ends of whole chunks of the prompt. Where a chunk ends depends on its tokens and its beginning alone, so
prompts that begin the same are cut the same there, and what is computed behind a checkpoint is computed, bit for bit,
as it would be from the start. Generated tokens were read in other steps, whose last bits may differ; they are read
again as part of the next prompt.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nextn.drafting import IntArray

__all__ = ["Checkpoint", "Checkpoints", "end_of_chunk"]

# A shorter chunk costs more, for each of its tokens, than it saves when a prompt is taken up again.
_SHORTEST = 128


@dataclass(frozen=True)
class Checkpoint:
    """What it takes to go on behind the first n_past tokens of a prompt."""

    n_past: int
    target: bytes  # state of the target's recurrent layers
    drafter: Any  # what the drafter says it needs


def end_of_chunk(prompt: IntArray, start: int, n_most: int, eog_tokens: Collection[int]) -> tuple[int, bool]:
    """Where the chunk that begins at start ends: behind a turn's last token, as that is where the next prompt differs.

    Args:
        prompt: The whole prompt [n_prompt].
        start: 0, or the end of a whole chunk.
        n_most: Tokens that a chunk has at most.
        eog_tokens: Those that end a turn.

    Returns:
        The end, and whether the chunk is whole: it ends there in every prompt that is the same up to there.
    """
    first = start + _SHORTEST - 1
    turns = np.flatnonzero(np.isin(prompt[first : start + n_most], list(eog_tokens)))
    end = min(start + n_most, len(prompt))
    return (first + int(turns[0]) + 1, True) if turns.size else (end, end == start + n_most)


class Checkpoints:
    """The checkpoints of one prompt, at most n_max of them, closer to each other towards its end.

    Args:
        n_max: How many to keep; each holds a copy of the recurrent state.
    """

    def __init__(self, n_max: int) -> None:
        self.n_max = n_max
        self._prompt: IntArray = np.empty(0, dtype=np.int32)
        self._kept: list[Checkpoint] = []

    def find(self, prompt: IntArray) -> Checkpoint | None:
        """The last checkpoint in what the prompt has in common with the one before; one token is left to read."""
        n_compared = min(len(prompt) - 1, len(self._prompt))
        differs = np.flatnonzero(prompt[:n_compared] != self._prompt[:n_compared])
        n_common = int(differs[0]) if differs.size else n_compared
        return next((kept for kept in reversed(self._kept) if kept.n_past <= n_common), None)

    def start(self, prompt: IntArray, n_past: int) -> None:
        """Another prompt is read, from n_past on: what lies behind in the one before is gone."""
        self._prompt = prompt
        self._kept = [kept for kept in self._kept if kept.n_past <= n_past]

    def add(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint behind all others."""
        if self.n_max == 0:
            return
        self._kept.append(checkpoint)
        if len(self._kept) > self.n_max:
            del self._kept[_least_needed([kept.n_past for kept in self._kept])]

    def __len__(self) -> int:
        return len(self._kept)


def _least_needed(places: Sequence[int]) -> int:
    """Index of the place, not the last one, whose loss costs least: its gap, in proportion to how far it is back."""
    edges = [0, *places]
    costs = [(edges[i + 2] - edges[i]) / (places[-1] - edges[i] + 1) for i in range(len(places) - 1)]
    return costs.index(min(costs)) if costs else 0
