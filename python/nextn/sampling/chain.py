"""The chain from a row of logits to the distribution that the next token is drawn from.

The steps, their names and their order are those of llama.cpp's samplers (src/llama-sampler.cpp): logit_bias, penalties,
top_k, typical_p, top_p, min_p, temperature. All but the last judge probabilities at temperature 1.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np

from nextn.options import SamplingParams
from nextn.sampling.distribution import Distribution
from nextn.sampling.rows import FloatRow, IdRow, argmax_rows, check_largest, exp_below, top_positions

__all__ = ["Chain", "Penalties"]

_FIRST_LOOKS = (256, 4096)  # how many of the likeliest tokens are sorted before all are


class Penalties:
    """What repeat, frequency and presence penalties remember: the last tokens of the text, prompt and answer.

    Args:
        params: The penalties, and how far back they look (repeat_last_n; -1: to the beginning).
        prompt: Tokens before the first note() [n_prompt].
    """

    def __init__(self, params: SamplingParams, prompt: Iterable[int] = ()) -> None:
        self._params = params
        off = params.repeat_penalty == 1.0 and params.frequency_penalty == params.presence_penalty == 0.0
        window = 0 if off else params.repeat_last_n
        self._last: deque[int] = deque(maxlen=None if window < 0 else window)
        self._counts: Counter[int] = Counter()
        if window != 0:
            for token in prompt:
                self.note(int(token))

    def note(self, token: int) -> None:
        """Remember a token of the text."""
        if self._last.maxlen == 0:
            return
        if len(self._last) == self._last.maxlen:
            oldest = self._last.popleft()
            self._counts[oldest] -= 1
            if not self._counts[oldest]:
                del self._counts[oldest]
        self._last.append(token)
        self._counts[token] += 1

    def __bool__(self) -> bool:
        """Whether there is anything to apply."""
        return bool(self._counts)

    def apply(self, logits: FloatRow) -> None:
        """Change logits [n_vocab] in place."""
        ids = np.fromiter(self._counts.keys(), dtype=np.int64)
        counts = np.fromiter(self._counts.values(), dtype=np.float64)
        before = logits[ids].astype(np.float64)
        repeat = self._params.repeat_penalty
        after = np.where(before <= 0, before * repeat, before / repeat)
        logits[ids] = after - counts * self._params.frequency_penalty - self._params.presence_penalty


class Chain:
    """Turns rows of logits into distributions; the tokens so far are its only state.

    Args:
        params: Every step's parameter.
        prompt: The prompt [n_prompt], for the penalties.
        logit_bias: More biases, besides those of params; -inf bans a token.
    """

    def __init__(
        self, params: SamplingParams, prompt: Iterable[int] = (), logit_bias: Mapping[int, float] | None = None
    ) -> None:
        self._params = params
        self._penalties = Penalties(params, prompt)
        bias = {**params.logit_bias, **(logit_bias or {})}
        self._bias_ids = np.fromiter(bias.keys(), dtype=np.int64)
        self._bias = np.fromiter(bias.values(), dtype=np.float32)

    def note(self, token: int) -> None:
        """A token was added to the text."""
        self._penalties.note(token)

    def adjusted(self, logits: FloatRow) -> FloatRow:
        """The logits [n_vocab] with bias and penalties: the row itself when there are none."""
        if self._bias.size == 0 and not self._penalties:
            return logits
        logits = logits.copy()
        logits[self._bias_ids] += self._bias
        self._penalties.apply(logits)
        return logits

    def distribution(self, logits: FloatRow, ids: IdRow | None = None) -> Distribution:
        """The distribution of the next token.

        Args:
            logits: What adjusted() gives [n].
            ids: The tokens they belong to [n], ascending; None: all of them.
        """
        params = self._params
        if ids is None:
            ids = _all_ids(logits.size)
        if params.temperature == 0.0:
            return Distribution.certain(int(ids[argmax_rows(logits[np.newaxis])[0]]))
        check_largest(logits)
        kept: IdRow | None
        for p, step in ((params.top_k, _top_k), (params.typical_p, _typical_p), (params.top_p, _top_p),
                        (params.min_p, _min_p)):  # fmt: skip
            kept = step(logits, p)
            if kept is not None:
                ids, logits = ids[kept], logits[kept]
        return Distribution.of(ids, exp_below(logits, params.temperature))


@lru_cache(maxsize=4)
def _all_ids(n_vocab: int) -> IdRow:
    """0 .. n_vocab - 1, not to be changed."""
    ids = np.arange(n_vocab)
    ids.flags.writeable = False
    return ids


# Steps: the positions of logits [n] that stay, ascending; None: all of them.


def _top_k(logits: FloatRow, k: float) -> IdRow | None:
    """The k largest."""
    return np.sort(top_positions(logits, int(k))) if 0 < k < logits.size else None


def _typical_p(logits: FloatRow, p: float) -> IdRow | None:
    """Those whose surprise is nearest to the entropy, until they have more than p (Meister et al. 2022)."""
    if p >= 1.0:
        return None
    weights = exp_below(logits)
    total = weights.sum(dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.log(total) - np.log(weights.astype(np.float64))
        entropy = np.where(weights > 0, weights / total * surprise, 0.0).sum()
    return _until(-np.abs(surprise - entropy), weights, p * total, "right")


def _top_p(logits: FloatRow, p: float) -> IdRow | None:
    """The likeliest, until they have at least p (Holtzman et al. 2019)."""
    if p >= 1.0:
        return None
    weights = exp_below(logits)
    return _until(logits, weights, p * weights.sum(dtype=np.float64), "left")


def _min_p(logits: FloatRow, p: float) -> IdRow | None:
    """Those with at least p times the probability of the likeliest (Nguyen et al. 2024)."""
    if p <= 0.0:
        return None
    return np.flatnonzero(logits >= check_largest(logits) + np.log(p))


def _until(order: FloatRow, weights: FloatRow, enough: float, side: str) -> IdRow:
    """The first positions by order, largest first, whose weights come to enough; side as in searchsorted."""
    for n_looks in (*_FIRST_LOOKS, order.size):
        positions = top_positions(order, n_looks)
        sums = np.cumsum(weights[positions], dtype=np.float64)
        n_kept = int(np.searchsorted(sums, enough, side=side)) + 1  # type: ignore[call-overload]
        if n_kept <= positions.size:
            break
    return np.sort(positions[:n_kept])
