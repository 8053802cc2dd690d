"""The accept rules against the definition, written a second time token by token."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from nextn.accept import (
    Accepted,
    GreedyRule,
    MatchRule,
    RatioRule,
    accept_greedy,
    accept_match,
    accept_ratio,
    make_rule,
)
from nextn.options import SamplingParams
from nextn.sampling import Distribution, Sampler


def rows(*tokens, n_vocab=10):
    """Logits whose arg-max are these tokens."""
    logits = np.zeros((len(tokens), n_vocab), dtype=np.float32)
    logits[np.arange(len(tokens)), tokens] = 1.0
    return logits


def ids(*tokens):
    return list(tokens)


@pytest.mark.parametrize(
    ("draft", "target", "expected"),
    [
        ((), (7,), (0, 7)),
        ((7,), (7, 3), (1, 3)),  # bonus
        ((6,), (7, 3), (0, 7)),  # recovered
        ((1, 2, 3), (1, 2, 3, 4), (3, 4)),
        ((1, 2, 3), (1, 2, 9, 4), (2, 9)),
        ((1, 2, 3), (1, 9, 3, 4), (1, 9)),  # a later match counts for nothing
        ((1, 2, 3), (9, 2, 3, 4), (0, 9)),
        ((5, 5, 5), (5, 5, 5, 5), (3, 5)),
    ],
)
def test_greedy(draft, target, expected):
    assert accept_greedy(ids(*draft), target) == Accepted(*expected)


def test_greedy_results_are_plain_ints():
    n_accepted, id_next = accept_greedy(ids(1), [1, 2])
    assert type(n_accepted) is int
    assert type(id_next) is int


def test_greedy_equals_its_definition_on_random_rounds():
    rng = np.random.default_rng(0)
    for _ in range(500):
        n_draft = int(rng.integers(0, 9))
        target, draft = rng.integers(0, 3, n_draft + 1), rng.integers(0, 3, n_draft)
        n_accepted = 0
        while n_accepted < n_draft and draft[n_accepted] == target[n_accepted]:
            n_accepted += 1
        assert accept_greedy(ids(*draft), target.tolist()) == (n_accepted, target[n_accepted])


def sampler_of(**options):
    return Sampler(SamplingParams(temperature=1.0, **options))


def test_sampled_uses_one_random_number_per_emitted_token():
    logits = np.random.default_rng(1).normal(size=(6, 20)).astype(np.float32)
    plain = sampler_of(seed=4)
    text = [plain.sample(row) for row in logits]
    for n_right in range(6):
        draft = ids(*text[:n_right], *[(t + 1) % 20 for t in text[n_right:5]])
        sampler = sampler_of(seed=4)
        assert accept_match(draft, logits, sampler) == (n_right, text[n_right])
        if n_right < 5:  # the generator stands where plain decoding has it
            assert sampler.sample(logits[n_right + 1]) == text[n_right + 1]


def test_sampled_does_not_read_behind_the_first_rejected_token():
    logits = rows(1, 2, 3) * 100
    logits[1:] = np.nan
    assert accept_match(ids(0, 2), logits, sampler_of(seed=0)) == (0, 1)


def test_rules_of_one_request_share_nothing_with_the_next():
    outputs = SimpleNamespace(logits_view=lambda: np.zeros((1, 50), dtype=np.float32))
    for accept in ("ratio", "match"):
        params = SamplingParams(temperature=1.0, seed=3, accept=accept)
        first, second = make_rule(params), make_rule(params)
        drawn = [first(ids(), outputs, ()).id_next for _ in range(10)]
        assert drawn == [second(ids(), outputs, ()).id_next for _ in range(10)]
        assert len(set(drawn)) > 1


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({}, GreedyRule),
        ({"accept": "ratio"}, GreedyRule),
        ({"repeat_penalty": 1.2, "repeat_last_n": 0}, GreedyRule),
        ({"repeat_penalty": 1.2}, MatchRule),
        ({"logit_bias": {1: 1.0}}, MatchRule),
        ({"temperature": 0.5}, RatioRule),
        ({"temperature": 0.5, "accept": "match"}, MatchRule),
    ],
)
def test_which_rule(options, kind):
    rule = make_rule(SamplingParams(**options))
    assert type(rule) is kind
    assert (rule.draws is not None) == (kind is RatioRule)


def test_drafts_are_drawn_as_the_target_draws_but_with_other_numbers():
    options = {"temperature": 0.5, "top_k": 9, "top_p": 0.8, "min_p": 0.1}
    seeds = {}
    for seed in (4, 5, None):
        draws = make_rule(SamplingParams(**options, seed=seed)).draws
        assert {name: getattr(draws, name) for name in options} == options
        assert draws.steady == (seed is not None)
        seeds[seed] = draws.seed
    assert len({*seeds.values(), 4, 5}) == 5
    assert make_rule(SamplingParams(**options, seed=4)).draws.seed == seeds[4]


class Numbers:
    """Random numbers from a list."""

    def __init__(self, *values):
        self.values = list(values)

    def random(self):
        return self.values.pop(0)


def with_numbers(*values):
    sampler = sampler_of()
    sampler.random = Numbers(*values)
    return sampler


P = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]], dtype=np.float32))
Q = Distribution(np.array([0, 1]), np.array([0.2, 0.8]))


@pytest.mark.parametrize(
    ("drafted", "numbers", "outcome"),
    [
        (0, (0.99, 0.05), (1, 0)),  # p > q: always accepted; then the bonus from the second row
        (1, (0.374, 0.5), (1, 1)),  # p / q = 0.375
        (1, (0.376, 0.59), (0, 0)),  # the rest of p - q: 0.3 and 0.2 on tokens 0 and 2
        (1, (0.376, 0.61), (0, 2)),
    ],
)
def test_ratio(drafted, numbers, outcome):
    sampler = with_numbers(*numbers)
    assert accept_ratio(ids(drafted), P, sampler, [Q]) == outcome
    assert not sampler.random.values


def test_ratio_without_q_is_as_if_the_token_were_certain():
    assert accept_ratio(ids(1), P, with_numbers(0.299, 0.0), []) == (1, 0)
    assert accept_ratio(ids(1), P, with_numbers(0.301, 0.72), []) == (0, 2)  # 0.5 and 0.2 are left


def test_ratio_tells_what_p_gives_to_the_ids_of_q():
    for numbers, n_judged in (((0.1, 0.1, 0.1), 2), ((0.1, 0.99, 0.1), 2), ((0.99, 0.1), 1)):
        seen = []
        q = Distribution(np.array([1, 7]), np.array([0.8, 0.2]))  # token 7 is none of p
        rows = np.vstack([P, P[:1]])
        accept_ratio(ids(1, 1), rows, with_numbers(*numbers), [q, q], saw=seen.append)
        np.testing.assert_allclose(seen, [[0.3, 0.0], [0.6, 0.0]][:n_judged], rtol=1e-6)
    accept_ratio(ids(1), P, with_numbers(0.1, 0.1), [], saw=seen.append)  # it was not drawn
    assert len(seen) == 1


def test_a_token_that_was_cut_counts_as_rejected():
    assert accept_ratio(ids(), P[:1], with_numbers(0.59), [Q], is_cut=True) == (0, 0)
    assert accept_ratio(ids(), P[:1], with_numbers(0.61), [Q], is_cut=True) == (0, 2)
    assert accept_ratio(ids(), P[:1], with_numbers(0.61), [Q]) == (0, 1)


def test_ratio_does_not_read_behind_the_first_rejected_token():
    rows = np.vstack([P[0], np.full((2, 3), np.nan)])
    assert accept_ratio(ids(1, 2), rows, with_numbers(0.9, 0.0), [Q, Q]).n_accepted == 0


def test_ratio_accepts_as_much_as_can_be():
    """The share of accepted tokens is the overlap of p and q; with match it is less."""
    rng = np.random.default_rng(0)
    rows = np.log(np.vstack([[0.5, 0.3, 0.2], [1, 1, 1]])).astype(np.float32)
    sampler = sampler_of(seed=0)
    counts = {}
    for name in ("ratio", "match"):
        n = 0
        for _ in range(4000):
            draft = ids(Q.draw(rng.random()))
            n += (accept_ratio(draft, rows, sampler, [Q]) if name == "ratio" else accept_match(draft, rows, sampler))[0]
        counts[name] = n / 4000
    assert counts["ratio"] == pytest.approx(0.2 + 0.3, abs=0.03)
    assert counts["match"] == pytest.approx(0.2 * 0.5 + 0.8 * 0.3, abs=0.03)
