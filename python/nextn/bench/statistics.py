"""Figures with intervals. What is drawn again in the bootstrap are prompts, never single runs.

Runs of one prompt are alike: the same text, the same acceptance. Drawing runs would call a difference between two
prompts noise, and intervals would be far too narrow. The intervals are BCa (bias-corrected and accelerated; Efron,
"Better bootstrap confidence intervals", 1987) as scipy computes them, with a fixed seed, so that a report is the same
each time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FEWEST_PROMPTS", "Estimate", "geometric_mean", "ratio_of_sums"]

FloatArray = npt.NDArray[np.float64]

CONFIDENCE = 0.95
N_RESAMPLES = 4999
FEWEST_PROMPTS = 3  # of fewer a bootstrap says nothing


@dataclass(frozen=True)
class Estimate:
    """A figure.

    Attributes:
        value: The figure.
        low, high: Its interval; None when there are too few prompts, or all agree, so that nothing can be said.
        n_prompts: Over how many prompts.
    """

    value: float
    low: float | None
    high: float | None
    n_prompts: int

    def covers(self, value: float) -> bool:
        """Whether the figure cannot be told from this value; without an interval nothing can."""
        return self.low is None or self.high is None or self.low <= value <= self.high

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "n_prompts": self.n_prompts}


def ratio_of_sums(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate | None:
    """The sum of one over the sum of the other, for example accepted over drafted tokens.

    Args:
        numerators: One number per prompt.                                              # [n_prompts]
        denominators: Another, not negative.                                            # [n_prompts]

    Returns:
        The ratio; None when the denominators are all 0.
    """
    over, under = np.asarray(numerators, float), np.asarray(denominators, float)
    over, under = over[under > 0], under[under > 0]
    if under.size == 0:
        return None

    def statistic(a: FloatArray, b: FloatArray, axis: int = -1) -> FloatArray:
        return np.asarray(a.sum(axis=axis) / b.sum(axis=axis))

    low, high = _interval(statistic, over, under)
    return Estimate(float(over.sum() / under.sum()), low, high, under.size)


def geometric_mean(log_ratios: Sequence[float]) -> Estimate | None:
    """The geometric mean of ratios that are given by their logarithms.

    Of ratios, because 2 and 1/2 must cancel out: the arithmetic mean of both is 1.25, and an arm compared with itself
    would come out faster than itself.

    Args:
        log_ratios: One per prompt.                                                     # [n_prompts]

    Returns:
        The mean; None without prompts.
    """
    logs = np.asarray(log_ratios, float)
    if logs.size == 0:
        return None

    def statistic(a: FloatArray, axis: int = -1) -> FloatArray:
        return np.asarray(np.exp(a.mean(axis=axis)))

    low, high = _interval(statistic, logs)
    return Estimate(float(np.exp(logs.mean())), low, high, logs.size)


def _interval(statistic: Callable[..., FloatArray], *data: FloatArray) -> tuple[float, float] | tuple[None, None]:
    """The BCa interval over prompts, which are kept together across the arrays."""
    from scipy import stats

    if data[0].size < FEWEST_PROMPTS:
        return None, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # data without spread: the result is nan, and that is looked at
        with np.errstate(all="ignore"):
            found = stats.bootstrap(
                data,
                statistic,
                paired=True,
                vectorized=True,
                n_resamples=N_RESAMPLES,
                confidence_level=CONFIDENCE,
                method="BCa",
                rng=np.random.default_rng(0),
            ).confidence_interval
    low, high = float(found.low), float(found.high)
    return (low, high) if np.isfinite([low, high]).all() else (None, None)
