"""The controller of the draft length against simulated costs: it comes close to the best fixed length."""

from __future__ import annotations

import numpy as np
import pytest
from nextn._core import DraftLength
from simulated_texts import N_MAX, Length

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


def run_round(length, costs, p_head, accepts, noise=lambda: 1.0, behind=0, row=0.0):
    """One round of a drafter: how many tokens it drafted, sent and had accepted.

    p_head: what the head says of each token. accepts(i): whether the token at position i is right. behind: tokens that
    the first step catches up with, each of which takes the time row.
    """
    if length.n_rest > 0:
        length.n_rest -= 1
        return 0, 0, 0
    verify, first, further = costs
    bound, p = length.plan(), []
    while len(p) < bound and (not p or length.go_on(p)):
        p.append(p_head(len(p)))
    n_sent, n_accepted = length.keep(p) if p else 0, 0
    while n_accepted < n_sent and accepts(n_accepted):
        n_accepted += 1
    length.saw(p, n_sent, n_accepted)
    length.verify_took(n_sent + 1, verify[n_sent] * noise())
    if p:
        length.first_draft_took(first + row * behind, behind)
    for _ in p[1:]:
        length.next_draft_took(further)
    length.n_rest = length.rest()
    return len(p), n_sent, n_accepted


def steady(rng, slow):
    """What a verification seems to take over what it takes; a share of them seems ten times as slow."""
    return 10.0 if rng.random() < slow else rng.normal(1.0, 0.03)


def disturbed(rng, share):
    """On a machine that others use a share of the verifications waits, often longer than it computes."""
    return 1.0 + (rng.exponential(1.0) if rng.random() < share else 0.0)


def simulate(costs, acceptance, n_rounds, rng, slow=0.0, p_head=0.9, noise=steady):
    """Tokens per time of the controller; what disturbs its measurements costs no time here."""
    length, tokens, time = Length(N_MAX), 0, 0.0
    for _ in range(n_rounds):
        n_drafted, n_sent, n_accepted = run_round(
            length,
            costs,
            lambda i: p_head,
            lambda i: rng.random() < acceptance,
            lambda: noise(rng, slow),
        )
        tokens += 1 + n_accepted
        time += cost(*costs, n_drafted, n_sent)
    return tokens / time


@pytest.mark.parametrize("acceptance", [0.5, 0.8, 0.95])
def test_where_drafting_is_too_dear_a_good_head_is_seldom_tried(acceptance):
    """As with several slots: each further token costs nearly as much as a decode."""
    costs = ([1.0, 1.9, 2.8, 3.7, 4.6, 5.5, 6.4, 7.3, 8.2], 0.3, 0.25)
    rate = np.mean([simulate(costs, acceptance, 2000, np.random.default_rng(i)) for i in range(4)])
    assert rate >= 0.985 * best_fixed(*costs, acceptance)


@pytest.mark.parametrize("slow", [0.0, 0.03], ids=["steady", "with-slow-steps"])
@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.6, 0.85, 0.95])
@pytest.mark.parametrize("costs", COSTS)
def test_close_to_the_best_fixed_length(costs, acceptance, slow):
    rng = np.random.default_rng(5)
    rate = np.median([simulate(COSTS[costs], acceptance, 3000, rng, slow) for _ in range(3)])
    assert rate >= 0.97 * best_fixed(*COSTS[costs], acceptance)


@pytest.mark.parametrize("acceptance", [0.0, 0.3, 0.6, 0.85])
@pytest.mark.parametrize("costs", COSTS)
def test_a_busy_machine_hardly_misleads_it(costs, acceptance):
    rates = [simulate(COSTS[costs], acceptance, 1500, np.random.default_rng(i), 0.5, noise=disturbed) for i in range(6)]
    least = 0.98 if acceptance == 0.0 else 0.9
    assert np.mean(rates) >= least * best_fixed(*COSTS[costs], acceptance)


@pytest.mark.parametrize("costs", COSTS)
def test_bad_luck_at_the_start_is_soon_forgotten(costs):
    """A good head whose first five drafts fail."""
    rng, length, sent = np.random.default_rng(8), Length(N_MAX), []
    for _ in range(1000):
        good = sum(1 for n in sent if n) >= 5
        run = run_round(length, COSTS[costs], lambda i: 0.9, lambda i, good=good: good and rng.random() < 0.95)
        sent.append(run[1])
    assert np.mean([n > 0 for n in sent[600:]]) > 0.9


@pytest.mark.parametrize("p_head", [1e-5, 0.5, 0.999])
@pytest.mark.parametrize("acceptance", [0.3, 0.85])
def test_a_head_that_is_wrong_about_itself(acceptance, p_head):
    """What the head says of a token is no more than a first guess."""
    costs = COSTS["cheap-verify"]
    rate = simulate(costs, acceptance, 3000, np.random.default_rng(3), p_head=p_head)
    assert rate >= 0.96 * best_fixed(*costs, acceptance)


@pytest.mark.parametrize("costs", COSTS)
def test_short_answers_gain_from_the_start(costs):
    rates = [simulate(COSTS[costs], 0.95, 15, np.random.default_rng(i)) for i in range(200)]
    assert np.mean(rates) >= 0.85 * best_fixed(*COSTS[costs], 0.95)


@pytest.mark.parametrize("costs", COSTS)
def test_a_useless_head_costs_little_from_the_start(costs):
    rate = simulate(COSTS[costs], 0.0, 400, np.random.default_rng(1))
    assert rate >= 0.95 / COSTS[costs][0][0]


def test_a_head_that_becomes_good_is_noticed():
    length, sent = Length(N_MAX), []
    for i in range(3000):
        good = i >= 1000
        sent.append(run_round(length, COSTS["cheap-verify"], lambda j: 0.9, lambda j, good=good: good)[1])
    assert np.mean(sent[800:1000]) < 0.1
    assert np.mean(sent[-500:]) > 6


def of_texts(costs, acceptances, rng, *, told, n_tokens=96):
    """Tokens per time over 120 texts of n_tokens, whose acceptances take turns at random."""
    length, tokens, time = Length(N_MAX), 0, 0.0
    for _ in range(120):
        acceptance, n_text = rng.choice(acceptances), 0
        if told:
            length.new_text()
            length.n_rest = 0
        while n_text < n_tokens:
            drafted, sent, accepted = run_round(
                length, costs, lambda i: 0.9, lambda i, acceptance=acceptance: rng.random() < acceptance
            )
            n_text, time = n_text + 1 + accepted, time + cost(*costs, drafted, sent)
        tokens += n_text
    return tokens / time


@pytest.mark.parametrize("costs", COSTS)
def test_each_text_is_another_one(costs):
    """Good and bad texts in turn: a text is judged by itself, soon; and where all are alike nothing is lost."""
    rates = {
        told: np.mean([of_texts(COSTS[costs], [0.95, 0.3], np.random.default_rng(i), told=told) for i in range(4)])
        for told in (True, False)
    }
    assert rates[True] > 1.005 * rates[False]
    useless = of_texts(COSTS[costs], [0.0], np.random.default_rng(1), told=True)
    assert useless >= 0.98 / COSTS[costs][0][0]


def test_short_texts_that_are_alike_teach_each_other():
    costs = ([1.0, 1.17, 1.32, 1.52, 1.64, 1.83, 1.99, 2.2, 2.42], 0.09, 0.069)  # the 0.8B shape
    rates = [of_texts(costs, [0.85], np.random.default_rng(i), told=True, n_tokens=48) for i in range(12)]
    assert np.mean(rates) >= 0.99 * best_fixed(*costs, 0.85)  # 0.984 if little is kept whatever the texts were


def rate_after_a_busy_start(costs, acceptance, rng, drafts_too):
    """Tokens per time behind 60 rounds that took up to four times as long, those of all widths that were tried."""
    length, tokens, time = Length(N_MAX), 0, 0.0
    verify, first, further = costs
    for i in range(4000):
        busy = 1 + (3 * rng.random() if i < 60 else 0.0)
        slow = busy if drafts_too else 1.0
        drafted, sent, accepted = run_round(
            length,
            (verify, first * slow, further * slow),
            lambda j: 0.9,
            lambda j: rng.random() < acceptance,
            lambda busy=busy: busy,
        )
        if i >= 60:
            tokens, time = tokens + 1 + accepted, time + cost(*costs, drafted, sent)
    return tokens / time


@pytest.mark.parametrize(("drafts_too", "least"), [(True, 0.98), (False, 0.955)])
def test_a_width_that_was_slow_once_is_tried_again(drafts_too, least):
    """Soon where all got dearer, later where only verifying did: drafts say that the machine is as fast as before."""
    costs = COSTS["cheap-verify"]
    rates = [rate_after_a_busy_start(costs, 0.85, np.random.default_rng(i), drafts_too) for i in range(8)]
    assert np.mean(rates) >= least * best_fixed(*costs, 0.85)


def rate_with_caches(acceptance, rng, n_rounds=4000):
    """Tokens per time where rounds without drafts, one after the other, find the caches ever warmer."""
    costs = ([1.0, 1.6, 2.1, 2.55, 3.1, 3.5, 3.9, 4.3, 4.65], 0.33, 0.24)  # a model of 8 MB, as measured
    length, tokens, time, n_plain = Length(N_MAX), 0, 0.0, 0
    for _ in range(n_rounds):
        cold = 1 + 0.9 * 0.75**n_plain
        verify = [cold * costs[0][0], *costs[0][1:]]
        drafted, sent, accepted = run_round(
            length,
            (verify, *costs[1:]),
            lambda j: 0.9,
            lambda j: rng.random() < acceptance,
            lambda: rng.normal(1, 0.05),
        )
        n_plain = 0 if drafted else n_plain + 1
        tokens, time = tokens + 1 + accepted, time + cost(verify, *costs[1:], drafted, sent)
    return tokens / time, best_fixed(*costs, acceptance)


@pytest.mark.parametrize(("acceptance", "least"), [(0.0, 0.98), (0.3, 0.97), (0.6, 0.95), (0.85, 0.93)])
def test_plain_decoding_that_needs_a_few_rounds_to_get_fast(acceptance, least):
    """The first round without drafts takes nearly twice of what the twentieth takes: a try costs more than its round.

    At 0.85 the best drafts reach 0.96 of plain decoding.
    """
    rates = [rate_with_caches(acceptance, np.random.default_rng(i)) for i in range(4)]
    assert np.mean([rate / best for rate, best in rates]) >= least


def test_what_slows_down_slows_down_as_a_whole():
    """Widths that are not measured meanwhile follow the one that is."""
    verify, first, _ = COSTS["cheap-verify"]
    length, rng = DraftLength(N_MAX), np.random.default_rng(7)

    def measure(widths, speed, n):
        for _ in range(n):
            length.plan()
            for width in widths:
                length.verify_took(width, verify[width - 1] / speed * rng.normal(1, 0.02))
            length.first_draft_took(first / speed * rng.normal(1, 0.02))

    measure([1, 2, 3, 5, 7, 9], 1.0, 40)
    measure([5], 0.6, 60)
    length.plan()
    for width in (1, 2, 3, 7, 9):
        assert length.cost_verify(width) == pytest.approx(verify[width - 1] / 0.6, rel=0.1)


def rate_on_a_changing_machine(costs, acceptance, rng):
    """Tokens per time, had the machine its first speed all the time."""
    length, tokens, time, slow, left = Length(N_MAX), 0, 0.0, 1.0, 0
    verify, first, further = costs
    for _ in range(3000):
        if left == 0:
            slow, left = rng.choice([1.0, 1.3, 1.6, 2.0]), rng.integers(50, 400)
        left -= 1
        drafted, sent, accepted = run_round(
            length,
            ([v * slow for v in verify], first * slow, further * slow),
            lambda j: 0.9,
            lambda j: rng.random() < acceptance,
            lambda: rng.normal(1, 0.05),
        )
        tokens, time = tokens + 1 + accepted, time + cost(*costs, drafted, sent)
    return tokens / time


def test_a_machine_whose_speed_changes():
    """For some hundred rounds at a time everything takes up to twice as long."""
    shares = {
        (name, acceptance): np.mean(
            [rate_on_a_changing_machine(costs, acceptance, np.random.default_rng(i)) for i in range(6)]
        )
        / best_fixed(*costs, acceptance)
        for name, costs in COSTS.items()
        for acceptance in (0.3, 0.6, 0.85, 0.95)
    }
    assert min(shares.values()) >= 0.975, shares
    assert np.mean(list(shares.values())) >= 0.992  # 0.989 with costs that are estimated one by one


def rate_with_catching_up(costs, acceptance, rng, each):
    """Tokens per time where the head takes this time for each token that it has not read before a try."""
    length, tokens, time, behind = Length(N_MAX), 0, 0.0, 0
    for _ in range(5000):
        catch_up = each * behind if behind > N_MAX else 0.0
        if length.n_rest == 0:
            length.catching_up_took(catch_up)
        drafted, sent, accepted = run_round(
            length, costs, lambda j: 0.9, lambda j: rng.random() < acceptance, lambda: rng.normal(1, 0.03)
        )
        time += cost(*costs, drafted, sent) + (catch_up if drafted else 0.0)
        tokens += 1 + accepted
        behind = 1 + accepted if drafted else behind + 1
    return tokens / time


def test_where_catching_up_is_dear_a_head_that_is_nearly_good_enough_is_not_tried_too_often():
    """A model of 8 MB, as measured: at 0.85 a draft just pays for itself, and a try takes three rounds."""
    costs = ([1.0, 1.55, 2.0, 2.5, 3.1, 3.7, 4.25, 4.75, 5.1], 0.28, 0.22)
    rates = [rate_with_catching_up(costs, 0.85, np.random.default_rng(i), 0.025) for i in range(6)]
    assert np.mean(rates) >= 0.98 * best_fixed(*costs, 0.85)


def share_of_drafts_once_a_head_is_good(length, costs, row, rng):
    """Of the tokens of the last 400 of 2000 rounds; the head is good from the 400th on, N_MAX tokens wait at most."""
    tokens, behind = [], 0
    for i in range(2000):
        acceptance = 0.97 if i >= 400 else 0.0
        n_drafted, _, n_accepted = run_round(
            length,
            costs,
            lambda j: 0.9,
            lambda j, acceptance=acceptance: rng.random() < acceptance,
            lambda: rng.normal(1, 0.03),
            behind,
            row,
        )
        behind = n_accepted if n_drafted else min(behind + 1, N_MAX)
        tokens.append((1 + n_accepted, n_drafted > 0))
    counts, with_draft = np.array(tokens[-400:]).T
    return counts @ with_draft / counts.sum()


def test_a_first_step_is_told_from_what_it_catches_up_with():
    """The first step of each try takes four times as long as one that catches up with nothing."""
    costs, shares = ([1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0], 0.25, 0.2), []
    for seed in range(8):
        length = Length(N_MAX)
        shares.append(share_of_drafts_once_a_head_is_good(length, costs, 0.1, np.random.default_rng(seed)))
        assert length.cost_draft(1) == pytest.approx(0.25, rel=0.1)
    assert np.sum(np.array(shares) > 0.8) >= 7  # one may have no luck with its few tries


def test_rounds_are_left_out_only_in_a_long_run_without_drafts():
    length, drafted, left_out = Length(N_MAX), [], 0
    for i in range(2000):
        good = i >= 1000
        left_out += length.n_rest > 0
        drafted.append(run_round(length, COSTS["cheap-verify"], lambda j: 0.9, lambda j, good=good: good)[0])
        assert length.n_rest == 0 or not any(drafted[-16:])
        if i == 999:
            assert left_out > 600
            assert sum(n > 0 for n in drafted) < 40
    assert np.mean(drafted[-300:]) > 6


def test_another_text_ends_a_rest():
    """Rounds that were to be left out, and were not, do not count: the head is not tried sooner."""
    tries = {}
    for told in (False, True):
        length, since = Length(N_MAX), 0
        for _ in range(1000):
            run_round(length, COSTS["cheap-verify"], lambda j: 0.9, lambda j: False)
        while length.n_rest < 7:
            run_round(length, COSTS["cheap-verify"], lambda j: 0.9, lambda j: False)
        length.n_rest = 0
        if told:
            length.new_text()
        while length.plan() == 0:
            length.verify_took(1, 34)
            since += 1
        tries[told] = since
    assert tries[True] == tries[False] + 7


@pytest.mark.parametrize("t", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_time_teaches_nothing(t):
    length = Length(N_MAX)
    for _ in range(20):
        run_round(length, COSTS["cheap-verify"], lambda j: 0.9, lambda j: True)
    length.plan()
    known = [length.cost_verify(n) for n in range(1, 10)], length.cost_draft(8)
    for tell in (length.first_draft_took, length.next_draft_took):
        tell(t)
    for n in range(1, 10):
        length.verify_took(n, t)
    length.plan()
    assert known == ([length.cost_verify(n) for n in range(1, 10)], length.cost_draft(8))


def test_unlikely_tokens_are_not_sent():
    """The head's own probability decides when it has proved right."""
    verify, first, further = COSTS["cheap-verify"]
    length, rng = Length(N_MAX), np.random.default_rng(2)
    for _ in range(2000):
        p = [0.97, 0.97, 0.1]
        n_accepted = next((i for i, q in enumerate(p) if rng.random() > q), 3)
        length.plan()
        length.saw(p, 3, n_accepted)
        length.verify_took(4, verify[3])
        length.first_draft_took(first)
        length.next_draft_took(further)
    assert length.keep([0.97, 0.97, 0.1]) == 2
    assert length.keep([0.1, 0.97, 0.97]) == 0
