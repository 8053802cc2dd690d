"""The accept rules against the definition, written a second time token by token."""

from __future__ import annotations

import numpy as np
import pytest
from nextn.accept import Accepted, accept_greedy, accept_sampled, make_rule
from nextn.errors import DecodeError
from nextn.options import SamplingParams
from nextn.sampling import TemperatureSampler


def rows(*tokens, n_vocab=10):
    """Logits whose arg-max are these tokens."""
    logits = np.zeros((len(tokens), n_vocab), dtype=np.float32)
    logits[np.arange(len(tokens)), tokens] = 1.0
    return logits


def ids(*tokens):
    return np.array(tokens, dtype=np.int32)


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
    assert accept_greedy(ids(*draft), rows(*target)) == Accepted(*expected)


def test_greedy_takes_the_lowest_of_equal_logits():
    logits = np.zeros((2, 6), dtype=np.float32)
    logits[:, [2, 4]] = 1.0
    assert accept_greedy(ids(2), logits) == (1, 2)
    assert accept_greedy(ids(4), logits) == (0, 2)


def test_greedy_results_are_plain_ints():
    n_accepted, id_next = accept_greedy(ids(1), rows(1, 2))
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
        assert accept_greedy(ids(*draft), rows(*target)) == (n_accepted, target[n_accepted])


def test_nan_is_an_error_at_any_row():
    for row in range(3):
        logits = rows(1, 2, 3)
        logits[row, 5] = np.nan
        with pytest.raises(DecodeError, match="NaN"):
            accept_greedy(ids(1, 2), logits)


def test_sampled_uses_one_random_number_per_emitted_token():
    logits = np.random.default_rng(1).normal(size=(6, 20)).astype(np.float32)
    plain = TemperatureSampler(1.0, seed=4)
    text = [plain.sample(row) for row in logits]
    for n_right in range(6):
        draft = ids(*text[:n_right], *[(t + 1) % 20 for t in text[n_right:5]])
        sampler = TemperatureSampler(1.0, seed=4)
        assert accept_sampled(draft, logits, sampler) == (n_right, text[n_right])
        if n_right < 5:  # the generator stands where plain decoding has it
            assert sampler.sample(logits[n_right + 1]) == text[n_right + 1]


def test_sampled_does_not_read_behind_the_first_rejected_token():
    logits = rows(1, 2, 3) * 100
    logits[1:] = np.nan
    assert accept_sampled(ids(0, 2), logits, TemperatureSampler(1.0, seed=0)) == (0, 1)


def test_rules_of_one_request_share_nothing_with_the_next():
    logits = np.zeros((1, 50), dtype=np.float32)
    params = SamplingParams(temperature=1.0, seed=3)
    first, second = make_rule(params), make_rule(params)
    drawn = [first(ids(), logits).id_next for _ in range(10)]
    assert drawn == [second(ids(), logits).id_next for _ in range(10)]
    assert len(set(drawn)) > 1
    assert make_rule(SamplingParams()) is accept_greedy


def test_sampled_text_has_the_targets_distribution_whatever_is_drafted():
    """Chi-square of the three tokens of a round, over a target whose rows depend on what came before."""
    n_vocab, n_draws = 4, 20_000
    rng = np.random.default_rng(5)
    table = rng.normal(size=(n_vocab, n_vocab)).astype(np.float32)  # logits after each token
    p = np.exp(table.astype(np.float64) / 0.8)
    p /= p.sum(axis=1, keepdims=True)
    expected = n_draws * np.einsum("a,ab,bc->abc", p[0], p, p)
    sampler = TemperatureSampler(0.8, seed=6)
    counts = np.zeros((n_vocab,) * 3)
    for i in range(n_draws):
        draft = ids(i % n_vocab, (i // n_vocab) % n_vocab)  # any rule of drafting will do
        text: list[int] = []
        while len(text) < 3:
            here = draft[len(text) :]
            last = text[-1] if text else 0
            n_accepted, id_next = accept_sampled(here, table[[last, *here]], sampler)
            text += [*here[:n_accepted].tolist(), id_next]
        counts[tuple(text[:3])] += 1
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # 63 degrees of freedom: mean 63, standard deviation 11.2; 120 has a probability of about 2e-5
    assert chi_square < 120
