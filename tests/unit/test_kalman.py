"""The filter behind the cost estimates against Gaussian conditioning, written in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from nextn._core import Kalman

GUESSES = [(0.0, 10.0), (-2.0, 0.5), (1.0, 0.7), (0.0, 0.1), (0.3, 0.2)]
N = len(GUESSES)


def estimates(kalman):
    return [kalman.mean(i) for i in range(N)], [kalman.variance(i) for i in range(N)]


class Gaussian:
    """Mean [N] and covariance [N, N], conditioned on all observations at once."""

    def __init__(self) -> None:
        self.mean0 = np.array([m for m, _ in GUESSES])
        self.mean, self.cov0 = self.mean0, np.diag([sd**2 for _, sd in GUESSES])
        self.cov, self.seen = self.cov0, []

    def observe(self, h, y, noise):
        self.seen.append((h, y, noise))
        rows, values, noises = (np.array(x) for x in zip(*self.seen, strict=True))
        precision = np.linalg.inv(self.cov0) + rows.T @ np.diag(1 / noises) @ rows
        self.cov = np.linalg.inv(precision)
        self.mean = self.mean0 + self.cov @ (rows.T @ ((values - rows @ self.mean0) / noises))


def sum_of(rng):
    """Terms and the same as a row [N]."""
    chosen = rng.choice(N, size=rng.integers(1, 4), replace=False)
    terms = [(int(i), float(rng.normal())) for i in chosen]
    h = np.zeros(N)
    for i, factor in terms:
        h[i] = factor
    return terms, h


def test_estimates_are_those_of_conditioning_on_all_observations():
    rng, kalman, exact = np.random.default_rng(0), Kalman(GUESSES), Gaussian()
    for _ in range(40):
        terms, h = sum_of(rng)
        noise = kalman.noise
        surprise = rng.uniform(-1, 1) * np.sqrt(h @ exact.cov @ h + noise)  # no outlier
        exact.observe(h, h @ exact.mean + surprise, noise)
        kalman.observe(terms, surprise)
        mean, variance = estimates(kalman)
        np.testing.assert_allclose(mean, exact.mean, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(variance, np.diag(exact.cov), rtol=1e-6)


def test_time_passes():
    """Drift adds variance, up to that of the first guess; reverting goes back to it, covariances too."""
    rng, kalman, exact = np.random.default_rng(1), Kalman(GUESSES), Gaussian()
    for _ in range(10):
        terms, h = sum_of(rng)
        noise = kalman.noise
        exact.observe(h, h @ exact.mean + 0.01, noise)
        kalman.observe(terms, 0.01)
    keep = np.diag([1, 1, 0.8, 0.8, 0.8])
    mean = exact.mean0 + keep @ (exact.mean - exact.mean0)
    cov = keep @ exact.cov @ keep + (np.eye(N) - keep**2) @ exact.cov0
    kalman.revert(2, 0.8)
    cov[1, 1] += 0.01
    kalman.drift(1, 0.01)
    np.testing.assert_allclose(estimates(kalman)[0], mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(estimates(kalman)[1], np.diag(cov), rtol=1e-6)

    terms, h = [(0, 1.0), (1, 1.0), (3, 1.0)], np.array([1, 1, 0, 1, 0])  # shows the covariances
    kalman.observe(terms, 0.05)
    gain = cov @ h / (h @ cov @ h + kalman.noise)
    np.testing.assert_allclose(estimates(kalman)[0], mean + 0.05 * gain, rtol=1e-6, atol=1e-9)

    for _ in range(1000):
        kalman.drift(1, 0.01)
    assert kalman.variance(1) == pytest.approx(GUESSES[1][1] ** 2)


def test_outliers_move_it_little():
    rng, level = np.random.default_rng(2), Kalman([(0.0, 10.0)])
    for i in range(400):
        level.drift(0, 1e-5)
        value = 5.0 + rng.normal(0, 0.03) + (rng.exponential(1.0) if i % 10 == 9 else 0.0)
        level.observe([(0, 1.0)], value - level.mean(0))
    assert level.mean(0) == pytest.approx(5.0, abs=0.02)  # the values' mean is 5.1
    assert np.sqrt(level.noise) < 0.06


def test_no_more_than_a_limit():
    kalman = Kalman(GUESSES)
    kalman.limit(2, 0.5)
    kalman.limit(1, 0.5)
    assert estimates(kalman)[0] == [0.0, -2.0, 0.5, 0.0, 0.3]
