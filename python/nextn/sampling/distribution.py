"""Probabilities of tokens, and what is done with them: draw, look up, subtract."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nextn.sampling.rows import FloatRow, IdRow

__all__ = ["Distribution"]

_BLOCK = 512


@dataclass(frozen=True)
class Distribution:
    """Probabilities of some tokens; all others have none.

    Attributes:
        ids: The tokens [n], ascending.
        p: Their probabilities [n], which add up to 1 but for rounding; draw() makes good for that.
    """

    ids: IdRow
    p: FloatRow

    @classmethod
    def certain(cls, token: int) -> Distribution:
        """All of the probability on one token."""
        return cls(np.array([token]), np.ones(1))

    @classmethod
    def of(cls, ids: IdRow, weights: FloatRow) -> Distribution:
        """Probabilities in proportion to weights [n] of ids [n], ascending."""
        return cls(ids, weights / weights.sum(dtype=np.float64).astype(weights.dtype))

    def __getitem__(self, token: int) -> float:
        """The probability of a token."""
        at = int(np.searchsorted(self.ids, token))
        return float(self.p[at]) if at < self.ids.size and self.ids[at] == token else 0.0

    def of_ids(self, ids: IdRow) -> FloatRow:
        """The probabilities of tokens ids [n]."""
        at, found = self._find(ids)
        p: FloatRow = np.where(found, self.p[at], 0)
        return p

    def _find(self, ids: IdRow) -> tuple[IdRow, npt.NDArray[np.bool_]]:
        """Where ids [n] are, and whether they are there."""
        at = np.minimum(np.searchsorted(self.ids, ids), self.ids.size - 1)
        return at, self.ids[at] == ids

    def draw(self, u: float) -> int:
        """The token at u, 0 <= u < 1, in the cumulative distribution."""
        # float64 sums of blocks first: one long cumulative sum costs ten times as much
        n_blocks = self.p.size // _BLOCK
        if n_blocks == 0:
            sums = np.cumsum(self.p, dtype=np.float64)
            return self._at(sums, u * sums[-1])
        whole = self.p[: n_blocks * _BLOCK].reshape(n_blocks, _BLOCK).sum(axis=1, dtype=np.float64)
        sums = np.cumsum(np.append(whole, self.p[n_blocks * _BLOCK :].sum(dtype=np.float64)))
        position = u * sums[-1]  # the last sum, not 1, ends the range in spite of rounding
        block = min(int(np.searchsorted(sums, position, side="right")), n_blocks)
        start = block * _BLOCK
        inside = np.cumsum(self.p[start : start + _BLOCK], dtype=np.float64) + (sums[block - 1] if block else 0.0)
        return self._at(inside, position, start)

    def _at(self, sums: FloatRow, position: float, start: int = 0) -> int:
        """The token at a position in the cumulative sums [n] of what is there from start on."""
        # side="right" passes over tokens of probability zero
        at = start + int(sums.searchsorted(position, side="right"))
        if at >= self.p.size or self.p[at] <= 0:  # by rounding
            at = int(self.p.size - 1 - np.argmax(self.p[::-1] > 0))
        return int(self.ids[at])

    def minus(self, other: Distribution) -> Distribution:
        """The positive part of self - other, normalised: what is left to draw when a token from other was rejected.

        Nothing is left when the two are the same but for rounding; then it is self.
        """
        rest = self.p.astype(np.float64)
        at, shared = self._find(other.ids)
        rest[at[shared]] -= other.p[shared]
        np.maximum(rest, 0.0, out=rest)
        total = rest.sum()
        return Distribution(self.ids, rest / total) if total > 0 else self

    def only(self, allowed: npt.NDArray[np.bool_]) -> Distribution | None:
        """The same among the allowed of its ids, allowed bool [n]; None when they have no probability."""
        kept = self.p[allowed]
        return Distribution.of(self.ids[allowed], kept) if kept.sum() > 0 else None
