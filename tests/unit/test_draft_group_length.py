"""The lengths of drafts that share a round, against simulated costs: as good as the best fixed ones, each its own."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from nextn._core import DraftGroupLength

N_MAX = 4
# Plain round of all, a further row, a row of padding, first draft step, a further one; any unit. A small machine, on
# which rows cost most of a round, and one whose rounds are mostly the reading of the weights.
COSTS = {"rows": (53.0, 6.5, 3.0, 3.0, 2.5), "weights": (45.0, 1.5, 0.7, 3.0, 2.5)}


def round_cost(costs, n_drafted, lengths):
    """Time of a round in which the longest chain had so many steps."""
    plain, row, padding, first, further = costs
    longest = max(lengths)
    time = plain + row * sum(lengths) + padding * sum(longest - n for n in lengths)
    return time + (first + (n_drafted - 1) * further if n_drafted else 0)


def best_fixed(costs, acceptances, n_max, *, equal=False):
    """Tokens per time of the best fixed lengths, exactly; equal: of the best one for all, as far as each may go."""
    found = []
    choices = itertools.product(*(range(n + 1) for n in n_max))
    for lengths in [tuple(min(k, n) for n in n_max) for k in range(max(n_max) + 1)] if equal else choices:
        tokens = sum(sum(a**i for i in range(n + 1)) for a, n in zip(acceptances, lengths, strict=True))
        found.append(tokens / round_cost(costs, max(lengths), lengths))
    return max(found)


def draft(length, costs, probability):
    """The drafting of a round: how many steps it took, and how many tokens of each sequence are to be verified."""
    steps, going = 0, length.plan()
    while any(going):
        for i, goes in enumerate(going):
            if goes:
                length.drafted(i, probability)
        (length.next_draft_took if steps else length.first_draft_took)(costs[4] if steps else costs[3])
        steps += 1
        going = length.go_on()
    return steps, length.keep() if steps else [0] * len(going)


def simulate(costs, acceptances, n_rounds, seed=0, *, n_max=None, probability=0.9):
    """Tokens per time of the controller, and the mean lengths of each sequence in the second half."""
    n_max = n_max or [N_MAX] * len(acceptances)
    rng, length, tokens, time, sent = np.random.default_rng(seed), DraftGroupLength(n_max), 0, 0.0, []
    for _ in range(n_rounds):
        steps, lengths = draft(length, costs, probability)
        assert all(n <= most for n, most in zip(lengths, n_max, strict=True))
        length.verify_took(round_cost(costs, 0, lengths) * rng.normal(1.0, 0.02))
        time += round_cost(costs, steps, lengths)
        for i, n in enumerate(lengths):
            accepted = 0
            while accepted < n and rng.random() < acceptances[i]:
                accepted += 1
            length.saw(i, accepted)
            tokens += 1 + accepted
        sent.append(lengths)
    return tokens / time, np.mean(sent[n_rounds // 2 :], axis=0)


ALIKE = [(a,) * 4 for a in (0.0, 0.3, 0.6, 0.85, 0.95)]
MIXED = [(0.95, 0.95, 0.2, 0.2), (0.95, 0.0, 0.0, 0.0), (0.9, 0.7, 0.5, 0.3)]


@pytest.mark.parametrize("acceptances", ALIKE + MIXED, ids=str)
@pytest.mark.parametrize("costs", COSTS)
def test_close_to_the_best_fixed_lengths(costs, acceptances):
    rate = np.median([simulate(COSTS[costs], acceptances, 2500, seed)[0] for seed in range(3)])
    assert rate >= 0.96 * best_fixed(COSTS[costs], acceptances, [N_MAX] * 4)


@pytest.mark.parametrize("acceptance", [0.3, 0.85])
@pytest.mark.parametrize("costs", COSTS)
def test_eight_sequences(costs, acceptance):
    """Rounds of up to 33 tokens, of which the wide ones share what is known of their costs."""
    acceptances = (acceptance,) * 8
    rate, _ = simulate(COSTS[costs], acceptances, 1500)
    assert rate >= 0.96 * best_fixed(COSTS[costs], acceptances, [N_MAX] * 8, equal=True)


def test_lengths_of_their_own_are_worth_it():
    """Two good texts beside two bad ones: no length that is the same for all comes close."""
    costs, acceptances = COSTS["weights"], (0.95, 0.95, 0.1, 0.1)
    rate, lengths = simulate(costs, acceptances, 2500)
    assert rate >= 1.02 * best_fixed(costs, acceptances, [N_MAX] * 4, equal=True)
    assert min(lengths[:2]) > 3
    assert max(lengths[2:]) < 1


def test_limits_of_each_are_kept():
    limits = [4, 0, 2, 1]
    rate, lengths = simulate(COSTS["weights"], (0.95,) * 4, 1500, n_max=limits)
    assert rate >= 0.97 * best_fixed(COSTS["weights"], (0.95,) * 4, limits)
    assert lengths[1] == 0
    assert min(lengths[0], lengths[2]) > 1.5
    assert lengths[3] > 0.85


@pytest.mark.parametrize("acceptance", [0.5, 0.9])
def test_where_rows_are_too_dear_nobody_drafts(acceptance):
    costs = (10.0, 2.4, 1.2, 3.0, 2.5)
    rate, lengths = simulate(costs, (acceptance,) * 4, 2500)
    assert rate >= 0.985 * 4 / costs[0]
    assert max(lengths) < 0.05


def test_a_sequence_that_becomes_good_is_noticed():
    length, sent = DraftGroupLength([N_MAX] * 2), []
    costs = COSTS["weights"]
    for i in range(2500):
        _, lengths = draft(length, costs, 0.9)
        length.verify_took(round_cost(costs, 0, lengths))
        length.saw(0, lengths[0])
        length.saw(1, lengths[1] if i > 1000 else 0)
        sent.append(lengths)
    assert np.mean(sent[800:1000], axis=0)[0] > 3
    assert np.mean(sent[800:1000], axis=0)[1] < 0.5
    assert np.mean(sent[-500:], axis=0)[1] > 3
