"""Intervals that hold what they promise, checked by simulation and against formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from nextn.bench import statistics
from nextn.bench.statistics import geometric_mean, ratio_of_sums


def test_ratio_of_sums_is_not_the_mean_of_ratios():
    found = ratio_of_sums([1, 90, 8], [10, 100, 10])
    assert found.value == pytest.approx(99 / 120)
    assert found.low < found.value < found.high
    assert found.n_prompts == 3


def test_prompts_without_drafts_are_left_out():
    assert ratio_of_sums([0, 5], [0, 10]).n_prompts == 1
    assert ratio_of_sums([0, 0], [0, 0]) is None
    assert ratio_of_sums([], []) is None


def test_ratios_and_their_inverses_cancel_out():
    assert geometric_mean([math.log(2), math.log(0.5)]).value == pytest.approx(1.0)
    forth = geometric_mean(np.log([1.1, 1.3, 1.2, 1.6]))
    back = geometric_mean(-np.log([1.1, 1.3, 1.2, 1.6]))
    assert forth.value == pytest.approx(1 / back.value)


def test_nothing_is_claimed_without_spread_or_with_few_prompts():
    for found in (geometric_mean([0.3, 0.3, 0.3, 0.3]), geometric_mean([0.1, 0.2])):
        assert (found.low, found.high) == (None, None)
        assert found.covers(1.0)
    assert geometric_mean([]) is None


def test_the_same_figures_each_time():
    logs = np.random.default_rng(3).normal(0.1, 0.2, 30)
    assert geometric_mean(logs) == geometric_mean(logs)


@pytest.fixture
def fewer_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "N_RESAMPLES", 999)


@pytest.mark.usefixtures("fewer_resamples")
def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Of 300 experiments of 50 prompts with skewed noise, 95 % cover the truth; 91 to 98.7 % are allowed here."""
    rng = np.random.default_rng(1)
    truth = 1.2
    covered = 0
    for _ in range(300):
        skewed = rng.exponential(0.1, 50) - 0.1  # mean 0
        covered += geometric_mean(math.log(truth) + skewed).covers(truth)
    assert 0.91 <= covered / 300 <= 0.987


@pytest.mark.usefixtures("fewer_resamples")
def test_acceptance_interval_covers_the_truth():
    """Prompts differ in acceptance and in length; the pooled rate of the population is what must be covered."""
    rng = np.random.default_rng(2)
    lengths, rates = rng.integers(20, 200, 200_000), rng.beta(8, 2, 200_000)
    truth = float((lengths * rates).sum() / lengths.sum())
    covered = 0
    for _ in range(300):
        picked = rng.integers(0, lengths.size, 50)
        accepted = rng.binomial(lengths[picked], rates[picked])
        covered += ratio_of_sums(accepted, lengths[picked]).covers(truth)
    assert 0.91 <= covered / 300 <= 0.987


def test_the_interval_is_close_to_the_normal_one_for_normal_data():
    logs = np.random.default_rng(5).normal(0.2, 0.1, 400)
    found = geometric_mean(logs)
    error = 1.96 * logs.std(ddof=1) / math.sqrt(logs.size)
    assert math.log(found.low) == pytest.approx(logs.mean() - error, abs=0.15 * error)
    assert math.log(found.high) == pytest.approx(logs.mean() + error, abs=0.15 * error)
