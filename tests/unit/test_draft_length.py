"""The controller of the draft length against simulated costs: it comes close to the best fixed length."""

from __future__ import annotations

import numpy as np
import pytest
from nextn._core import DraftLength

N_MAX = 8
# Cost of verifying 1 .. 9 tokens, of the first draft step, and of a further one; any unit. Real machines' shapes.
COSTS = {
    "dear-verify": ([34, 50, 76, 72, 99, 102, 120, 125, 150], 4, 2.6),  # four rows cheaper than three
    "cheap-verify": ([34, 40, 45, 50, 60, 66, 75, 80, 95], 4, 2.6),
    "small-model": ([0.58, 0.75, 0.9, 1.0, 1.15, 1.3, 1.45, 1.6, 1.75], 0.12, 0.1),
}


def cost(verify, first, further, n_drafted, n_sent):
    """Time of a round."""
    return verify[n_sent] + (first + (n_drafted - 1) * further if n_drafted else 0)


def best_fixed(verify, first, further, acceptance):
    """Tokens per time of the best fixed length, exactly."""
    rates = []
    for k in range(N_MAX + 1):
        tokens = sum(acceptance**i for i in range(k + 1))
        rates.append(tokens / cost(verify, first, further, k, k))
    return max(rates)


def simulate(costs, acceptance, n_rounds, rng, slow=0.0):
    """Tokens per time of the controller; a share of the verifications seems ten times as slow as it is."""
    verify, first, further = costs
    length, tokens, time = DraftLength(N_MAX), 0, 0.0
    for _ in range(n_rounds):
        bound, p = length.plan(), []
        while len(p) < bound and (not p or length.go_on(p)):
            p.append(0.9)  # the head is always this sure
        n_drafted = len(p)
        p = p[: length.keep(p)] if p else p
        n_accepted = 0
        while n_accepted < len(p) and rng.random() < acceptance:
            n_accepted += 1
        t_draft = first + (n_drafted - 1) * further if n_drafted else 0.0
        t_verify = verify[len(p)] * (10.0 if rng.random() < slow else rng.normal(1.0, 0.03))
        length.update(p, n_accepted, n_drafted, t_draft, t_verify)
        tokens += 1 + n_accepted
        time += cost(verify, first, further, n_drafted, len(p))
    return tokens / time


@pytest.mark.parametrize("slow", [0.0, 0.03], ids=["steady", "with-slow-steps"])
@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.6, 0.85, 0.95])
@pytest.mark.parametrize("costs", COSTS)
def test_close_to_the_best_fixed_length(costs, acceptance, slow):
    rng = np.random.default_rng(5)
    rate = np.median([simulate(COSTS[costs], acceptance, 3000, rng, slow) for _ in range(3)])
    assert rate >= 0.95 * best_fixed(*COSTS[costs], acceptance)


@pytest.mark.parametrize("costs", COSTS)
def test_a_useless_head_costs_little_from_the_start(costs):
    rate = simulate(COSTS[costs], 0.0, 400, np.random.default_rng(1))
    assert rate >= 0.95 / COSTS[costs][0][0]


def test_a_head_that_becomes_good_is_noticed():
    verify, first, further = COSTS["cheap-verify"]
    length, drafted = DraftLength(N_MAX), []
    for i in range(3000):
        bound, p = length.plan(), []
        while len(p) < bound and (not p or length.go_on(p)):
            p.append(0.9)
        n_accepted = len(p) if i >= 1000 else 0
        length.update(p, n_accepted, len(p), first + max(0, len(p) - 1) * further, verify[len(p)])
        drafted.append(len(p))
    assert np.mean(drafted[800:1000]) < 0.1
    assert np.mean(drafted[-500:]) > 6


def test_unlikely_tokens_are_not_sent():
    """The head's own probability decides when it has proved right."""
    verify, first, further = COSTS["cheap-verify"]
    length, rng = DraftLength(N_MAX), np.random.default_rng(2)
    for _ in range(2000):
        p = [0.97, 0.97, 0.1]
        n_accepted = next((i for i, q in enumerate(p) if rng.random() > q), 3)
        length.plan()
        length.update(p, n_accepted, 3, first + 2 * further, verify[3])
    assert length.keep([0.97, 0.97, 0.1]) == 2
    assert length.keep([0.1, 0.97, 0.97]) == 0
