"""Sampling from one row: exact probabilities, edges, seeds."""

from __future__ import annotations

import numpy as np
import pytest
from nextn.errors import DecodeError
from nextn.options import SamplingParams
from nextn.sampling import GreedySampler, TemperatureSampler, make_sampler, softmax


def test_greedy_takes_the_largest_and_of_equal_ones_the_lowest():
    assert GreedySampler().sample(np.array([0, 3, 1, 3], dtype=np.float32)) == 1


def test_softmax_is_the_formula_in_double_precision():
    logits = np.array([1.5, -2.0, 0.25, 88.0], dtype=np.float32)
    z = logits.astype(np.longdouble) / 0.7
    expected = np.exp(z) / np.exp(z).sum()
    np.testing.assert_allclose(softmax(logits, 0.7), expected.astype(np.float64), rtol=1e-13)


def test_softmax_does_not_change_the_logits():
    logits = np.array([1.0, 2.0])
    softmax(logits)
    assert logits.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("temperature", [1e-310, 1e-30, 1e-3])
def test_tiny_temperatures_are_greedy_and_quiet(temperature):
    sampler = TemperatureSampler(temperature, seed=0)
    logits = np.array([0.0, 30.0, 29.0, -np.inf], dtype=np.float32)
    assert {sampler.sample(logits) for _ in range(50)} == {1}


def test_excluded_tokens_are_never_drawn():
    logits = np.full(100, -np.inf, dtype=np.float32)
    logits[[0, 57]] = 0.0
    sampler = TemperatureSampler(5.0, seed=1)
    assert {sampler.sample(logits) for _ in range(200)} == {0, 57}


class FixedRandom:
    def __init__(self, *values):
        self.values = list(values)

    def random(self):
        return self.values.pop(0)


def test_the_ends_of_the_random_range_stay_within_the_possible_tokens():
    sampler = TemperatureSampler(1.0)
    sampler._random = FixedRandom(0.0, 1.0 - 2**-53, 0.0, 1.0 - 2**-53)  # type: ignore[assignment]
    logits = np.array([-np.inf, 1.0, 1.0, 1.0, -np.inf], dtype=np.float32)
    assert [sampler.sample(logits), sampler.sample(logits)] == [1, 3]
    many = np.full(248_320, 0.1, dtype=np.float32)  # a long sum that does not round to 1
    assert [sampler.sample(many), sampler.sample(many)] == [0, 248_319]


@pytest.mark.parametrize("bad", [[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]])
def test_rows_without_a_distribution_are_errors(bad):
    with pytest.raises(DecodeError, match="no numbers"):
        TemperatureSampler(1.0).sample(np.array(bad, dtype=np.float32))


def test_nan_is_an_error_when_greedy():
    with pytest.raises(DecodeError, match="NaN"):
        GreedySampler().sample(np.array([0.0, np.nan], dtype=np.float32))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature):
    logits = np.random.default_rng(2).normal(size=12).astype(np.float32)
    expected = softmax(logits, temperature) * 20_000
    sampler = TemperatureSampler(temperature, seed=3)
    counts = np.bincount([sampler.sample(logits) for _ in range(20_000)], minlength=12)
    # rare tokens together, so that each cell is large enough for the test; at most 11 degrees of freedom
    rare = expected < 20
    cells = [(counts[rare].sum(), expected[rare].sum()), *zip(counts[~rare], expected[~rare], strict=True)]
    chi_square = sum((n - e) ** 2 / e for n, e in cells if e > 0)
    assert chi_square < 37.4  # p = 1e-4 at 11 degrees of freedom


def test_a_seed_repeats_the_draws_and_none_does_not():
    def draws(seed):
        sampler = make_sampler(SamplingParams(temperature=1.0, seed=seed))
        return [sampler.sample(np.zeros(1000)) for _ in range(20)]

    assert draws(9) == draws(9) != draws(10)
    assert draws(None) != draws(None)
