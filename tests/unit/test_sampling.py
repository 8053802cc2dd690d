"""The sampling chain against the definition of each step, written a second time over plain Python lists."""

from __future__ import annotations

import numpy as np
import pytest
from nextn.errors import DecodeError
from nextn.options import SamplingParams
from nextn.sampling import Chain, Distribution, Sampler, argmax_rows, softmax, top_positions
from sampling_definition import chi_square_p, expected


def dense(distribution, n_vocab):
    p = np.zeros(n_vocab)
    p[distribution.ids] = distribution.p
    return p


CHAINS = [
    {},
    {"temperature": 0.3},
    {"top_k": 1},
    {"top_k": 7, "temperature": 1.7},
    {"top_k": 10_000},
    {"top_p": 0.0},
    {"top_p": 0.5},
    {"top_p": 0.9, "temperature": 0.5},
    {"min_p": 0.1, "temperature": 2.0},
    {"min_p": 1.0},
    {"typical_p": 0.0},
    {"typical_p": 0.3},
    {"typical_p": 0.8, "top_p": 0.7, "min_p": 0.02},
    {"top_k": 20, "typical_p": 0.9, "top_p": 0.95, "min_p": 0.05, "temperature": 0.8},
    {"logit_bias": {3: 5.0, 4: -5.0, 5: False}},
    {"repeat_penalty": 1.3},
    {"frequency_penalty": 0.7, "presence_penalty": -0.4},
    {"repeat_penalty": 1.5, "frequency_penalty": 0.2, "repeat_last_n": 5, "top_k": 15},
    {"presence_penalty": 2.0, "repeat_last_n": -1},
    {"presence_penalty": 2.0, "repeat_last_n": 0},
]


@pytest.mark.parametrize("options", CHAINS, ids=str)
@pytest.mark.parametrize("n_vocab", [40, 20_000])
def test_the_chain_is_its_definition(options, n_vocab):
    params = SamplingParams(**{"temperature": 1.0, **options})
    for seed in range(4):
        rng = np.random.default_rng(seed)
        row = (3 * rng.normal(size=n_vocab)).astype(np.float32)
        row[rng.integers(0, n_vocab, 5)] = row[7]  # equal ones
        before = rng.integers(0, 20, 90).tolist()
        chain = Chain(params, before[:60])
        for token in before[60:]:
            chain.note(token)
        untouched = row.copy()
        got = chain.distribution(chain.adjusted(row))
        want = expected(row, params, before)
        assert np.all(np.diff(got.ids) > 0)
        assert set(got.ids[got.p > 0].tolist()) == {i for i, p in want.items() if p > 0}
        # a row of 20,000 is computed in float32, and bias and penalties are added in it
        tolerance = 2e-5 if got.ids.size > 1000 else 2e-6 if params.logit_bias or params.changes_logits else 1e-12
        np.testing.assert_allclose([got[i] for i in want], list(want.values()), rtol=tolerance)
        np.testing.assert_array_equal(row, untouched)


@pytest.mark.parametrize("n", [1, 5, 1000, 50_000, 248_320])
def test_top_positions_are_those_of_a_full_sort(n):
    rng = np.random.default_rng(n)
    for values in (rng.normal(size=n).astype(np.float32), rng.integers(0, 9, n).astype(np.float32)):
        values[:: max(n // 7, 1)] = -np.inf
        order = np.lexsort((np.arange(n), -values))
        for k in (1, 2, 40, 3000, n):
            np.testing.assert_array_equal(top_positions(values, k), order[:k])


def test_greedy_takes_the_largest_and_of_equal_ones_the_lowest():
    row = np.array([0, 3, 1, 3], dtype=np.float32)
    assert argmax_rows(row[np.newaxis]) == [1]
    assert Sampler(SamplingParams()).sample(row) == 1
    assert Sampler(SamplingParams(logit_bias={1: -0.5})).sample(row) == 3


def test_penalties_follow_the_sampled_tokens():
    sampler = Sampler(SamplingParams(presence_penalty=10.0, repeat_last_n=2))
    row = np.array([3, 2, 1, 0], dtype=np.float32)
    assert [sampler.sample(row) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]


def test_softmax_is_the_formula_in_double_precision():
    logits = np.array([1.5, -2.0, 0.25, 88.0], dtype=np.float32)
    z = logits.astype(np.longdouble) / 0.7
    want = np.exp(z) / np.exp(z).sum()
    np.testing.assert_allclose(softmax(logits, 0.7), want.astype(np.float64), rtol=1e-13)


@pytest.mark.parametrize("temperature", [1e-310, 1e-30, 1e-3])
@pytest.mark.parametrize("n", [4, 30_000])
def test_tiny_temperatures_are_greedy_and_quiet(temperature, n):
    sampler = Sampler(SamplingParams(temperature=temperature, seed=0))
    logits = np.full(n, -np.inf, dtype=np.float32)
    logits[:3] = 0.0, 30.0, 29.0
    assert {sampler.sample(logits) for _ in range(50)} == {1}


def test_excluded_tokens_are_never_drawn():
    logits = np.full(100, -np.inf, dtype=np.float32)
    logits[[0, 57]] = 0.0
    sampler = Sampler(SamplingParams(temperature=5.0, seed=1))
    assert {sampler.sample(logits) for _ in range(200)} == {0, 57}


@pytest.mark.parametrize("n", [5, 511, 512, 513, 1024, 248_320])
def test_the_ends_of_the_random_range_stay_within_the_possible_tokens(n):
    p = np.full(n, 1 / (n - 2))
    p[[0, -1]] = 0.0
    distribution = Distribution(np.arange(n) * 2, p)
    assert distribution.draw(0.0) == 2
    assert distribution.draw(1.0 - 2**-53) == 2 * (n - 2)


@pytest.mark.parametrize("n", [7, 3000])
def test_a_draw_is_the_inverse_of_the_cumulative_distribution(n):
    rng = np.random.default_rng(0)
    p = rng.random(n)
    p /= p.sum()
    cumulative = np.cumsum(p)
    for u in rng.random(500):
        assert Distribution(np.arange(n), p).draw(u) == np.flatnonzero(cumulative > u)[0]


def test_what_is_left_of_p_without_q():
    p = Distribution(np.array([1, 4, 6]), np.array([0.5, 0.3, 0.2]))
    q = Distribution(np.array([0, 4, 6, 9]), np.array([0.1, 0.4, 0.1, 0.4]))
    np.testing.assert_allclose(dense(p.minus(q), 10), [0, 5 / 6, 0, 0, 0, 0, 1 / 6, 0, 0, 0])
    assert p.minus(p) is p  # only rounding can lead here
    assert dense(p.minus(Distribution.certain(4)), 7).tolist() == pytest.approx([0, 5 / 7, 0, 0, 0, 0, 2 / 7])
    assert p[4] == 0.3 and p[5] == p[99] == 0.0


@pytest.mark.parametrize("bad", [[np.nan, 0.0], [np.inf, 0.0], [-np.inf, -np.inf]])
@pytest.mark.parametrize("options", [{}, {"top_k": 1}, {"top_p": 0.5}, {"typical_p": 0.5}, {"min_p": 0.5}])
def test_rows_without_a_distribution_are_errors(bad, options):
    with pytest.raises(DecodeError, match="no numbers"):
        Sampler(SamplingParams(temperature=1.0, **options)).sample(np.array(bad, dtype=np.float32))


def test_nan_is_an_error_when_greedy():
    with pytest.raises(DecodeError, match="NaN"):
        Sampler(SamplingParams(logit_bias={0: 1.0})).sample(np.array([0.0, np.nan], dtype=np.float32))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_draws_follow_the_distribution(temperature):
    logits = np.random.default_rng(2).normal(size=12).astype(np.float32)
    want = softmax(logits, temperature) * 20_000
    sampler = Sampler(SamplingParams(temperature=temperature, seed=3))
    counts = np.bincount([sampler.sample(logits) for _ in range(20_000)], minlength=12)
    # rare tokens together, so that each cell is large enough for the test
    cells = np.where(want < 20, 12, np.arange(12))
    n = np.bincount(cells, counts, 13)
    e = np.bincount(cells, want, 13)
    assert chi_square_p(n[e > 0], e[e > 0]) > 1e-4


@pytest.mark.parametrize(
    ("chi_square", "df", "p"),
    [(37.36, 11, 1e-4), (18.307, 10, 0.05), (10.828, 1, 1e-3), (9.2103, 2, 0.01), (0.1, 9, 1)],
)
def test_the_chi_square_test_itself(chi_square, df, p):
    """Against the tables: one cell off by what gives this chi-square."""
    e = np.full(df + 1, 100.0)
    n = e.copy()
    n[0] += np.sqrt(100 * chi_square)
    assert chi_square_p(n, e) == pytest.approx(p, rel=0.01)


def test_a_seed_repeats_the_draws_and_none_does_not():
    def draws(seed):
        sampler = Sampler(SamplingParams(temperature=1.0, seed=seed))
        return [sampler.sample(np.zeros(1000, dtype=np.float32)) for _ in range(20)]

    assert draws(9) == draws(9) != draws(10)
    assert draws(None) != draws(None)


def test_the_arg_max_is_the_lowest_of_equal_logits():
    logits = np.zeros((2, 6), dtype=np.float32)
    logits[:, [2, 4]] = 1.0
    assert argmax_rows(logits) == [2, 2]


def test_nan_is_an_error_at_any_row():
    for row in range(3):
        logits = np.eye(3, 10, dtype=np.float32)
        logits[row, 5] = np.nan
        with pytest.raises(DecodeError, match="NaN"):
            argmax_rows(logits)
