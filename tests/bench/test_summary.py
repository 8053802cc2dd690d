"""From rows to figures: receipts whose figures are known, noise that must be taken for noise, faults that must show."""

from __future__ import annotations

import copy

import pytest
from nextn.bench import BenchOptions, make_arms, statistics, summarise
from nextn.bench.summary import acceptance, prompt_ratios

from .synthetic import digest, make_receipt, make_suite

ARMS = make_arms([2, 4], adaptive=6)
OPTIONS = BenchOptions(seeds=(1, 2, 3), repeats=2)


@pytest.fixture(autouse=True)
def fewer_resamples(monkeypatch):
    """Enough for these; intervals are tested elsewhere."""
    monkeypatch.setattr(statistics, "N_RESAMPLES", 999)


def arm_of(summary, name):
    return next(arm for arm in summary["arms"] if arm["arm"] == name)


def test_known_figures():
    receipt = make_receipt(make_suite(), ARMS, OPTIONS, factors={"k=2": 1.5, "k=4": 0.8, "adaptive": 1.0})
    summary = summarise(receipt)
    assert summary["n_rows"] == 12 * 5 * 6
    plain, k2, k4 = (arm_of(summary, name) for name in ("plain", "k=2", "k=4"))
    tokens = sum(19 + i for i in range(12))
    seconds = sum((19 + i) * (1 + i / 10) / 100 for i in range(12))
    assert plain["tokens_per_second"] == pytest.approx(tokens / seconds)
    assert plain["speedup"] is None and plain["acceptance"] is None
    assert plain["mean_accepted_len"] == 1
    assert k2["speedup"]["value"] == pytest.approx(1.5)
    assert k4["speedup"]["value"] == pytest.approx(0.8)
    assert k2["acceptance"]["value"] == pytest.approx(5 / 20)
    assert k4["acceptance"]["value"] == pytest.approx(5 / 40)
    assert k4["mean_accepted_len"] == pytest.approx(1 + 5 / 10)
    assert [p["acceptance"]["value"] for p in k4["positions"]] == [0.5, 0, 0, 0]
    assert [p["by_topic"]["math"] for p in k4["positions"]] == [0.5, 0, 0, 0]
    assert k2["shares"] == pytest.approx({"draft": 0.25, "verify": 0.5, "rest": 0.25})
    assert k2["by_topic"]["code"]["speedup"]["n_prompts"] == 4
    assert set(k2["by_seed"]) == {"1", "2", "3"}


def test_prompts_count_alike_in_a_speedup():
    """One long prompt that gains a lot does not decide; it does in the ratio of the table's speeds."""
    receipt = make_receipt(make_suite(4), make_arms([2], adaptive=None), BenchOptions())
    for row in receipt["rows"]:
        if row["prompt"] == "p0":
            row["completion_tokens"] = 10_001
            row["predicted_ms"] = 1e5 if row["arm"] != "k=2" else 0.5e5
    figures = arm_of(summarise(receipt), "k=2")
    assert figures["speedup"]["value"] == pytest.approx(2 ** (1 / 4))


def test_one_slow_run_is_no_result():
    """The median over blocks stands for a prompt."""
    receipt = make_receipt(make_suite(4), make_arms([2], adaptive=None), OPTIONS)
    row = next(row for row in receipt["rows"] if row["arm"] == "k=2")
    row["predicted_ms"] *= 100
    assert arm_of(summarise(receipt), "k=2")["speedup"]["value"] == pytest.approx(1.0)


def test_noise_is_not_distinguishable_from_1():
    """A/A: plain decoding against itself, and an arm that is no faster, 20 times with other noise."""
    n_claims = 0
    for seed in range(20):
        receipt = make_receipt(make_suite(30), make_arms([], adaptive=6), BenchOptions(), noise=0.05, seed=seed)
        summary = summarise(receipt)
        n_claims += arm_of(summary, "plain again")["distinguishable"] + arm_of(summary, "adaptive")["distinguishable"]
    assert n_claims <= 6  # 2 are expected of 40


def test_a_real_effect_within_noise_is_seen():
    receipt = make_receipt(make_suite(30), ARMS, OPTIONS, noise=0.05, factors={"adaptive": 1.05}, seed=1)
    found = arm_of(summarise(receipt), "adaptive")
    assert found["distinguishable"]
    assert found["speedup"]["low"] < 1.05 < found["speedup"]["high"]


def test_arms_are_compared_within_their_block():
    """A machine that is three times slower during the second seed changes no ratio."""
    receipt = make_receipt(make_suite(), ARMS, OPTIONS, factors={"adaptive": 1.25})
    for row in receipt["rows"]:
        row["predicted_ms"] *= 3 if row["seed"] == 2 else 1
    assert arm_of(summarise(receipt), "adaptive")["speedup"]["value"] == pytest.approx(1.25)


def test_runs_without_a_partner_are_not_compared():
    receipt = make_receipt(make_suite(3), make_arms([2], adaptive=None), BenchOptions())
    kept = [row for row in receipt["rows"] if not (row["arm"] == "plain" and row["prompt"] == "p1")]
    drafting = [row for row in kept if row["arm"] == "k=2"]
    assert set(prompt_ratios(drafting, [row for row in kept if row["arm"] == "plain"])) == {"p0", "p2"}


def test_runs_of_one_token_have_no_speed():
    receipt = make_receipt(make_suite(3), make_arms([2], adaptive=None), BenchOptions())
    for row in receipt["rows"]:
        if row["prompt"] == "p0":
            row.update(completion_tokens=1, predicted_ms=0.0)
    assert arm_of(summarise(receipt), "k=2")["speedup"]["n_prompts"] == 2


def test_positions_of_drafts_of_several_lengths():
    rows = [
        {"prompt": "a", "drafted_per_position": [4, 2], "accepted_per_position": [3, 1]},
        {"prompt": "b", "drafted_per_position": [4], "accepted_per_position": [1]},
        {"prompt": "c", "drafted_per_position": None, "accepted_per_position": None},
    ]
    assert acceptance(rows, 0).value == pytest.approx(4 / 8)
    assert acceptance(rows, 1).value == pytest.approx(1 / 2)


def test_exactness():
    receipt = make_receipt(make_suite(), ARMS, OPTIONS)
    found = summarise(receipt)["exactness"]
    assert found == {"comparable": True, "n_groups": 12, "n_runs": 360, "different": []}
    damaged = copy.deepcopy(receipt)
    row = next(row for row in damaged["rows"] if row["arm"] == "k=4" and row["seed"] == 3)
    row["tokens_sha256"] = digest("something else")
    assert [d["arms"] for d in summarise(damaged)["exactness"]["different"]] == [["k=4"]]
    without_tokens = copy.deepcopy(receipt)
    for row in without_tokens["rows"]:
        row["tokens_sha256"] = None
    without_tokens["rows"][7]["text_sha256"] = digest("other text")
    assert len(summarise(without_tokens)["exactness"]["different"]) == 1


def test_sampled_outputs_are_not_compared():
    receipt = make_receipt(make_suite(3), ARMS, BenchOptions(temperature=0.7))
    assert summarise(receipt)["exactness"]["comparable"] is False


def test_sweeps_stay_apart():
    options = BenchOptions(raw=True, contexts=(64, 128), n_sweep_prompts=6)
    receipt = make_receipt(make_suite(), ARMS, options, factors={"adaptive": 1.5})
    for row in receipt["rows"]:
        if row["arm"] == "adaptive" and row["n_context"] == 128:
            row["predicted_ms"] *= 3
        if row["mode"] == "raw":
            row["draft_n_accepted"] = 0
    summary = summarise(receipt)
    assert arm_of(summary, "adaptive")["speedup"]["value"] == pytest.approx(1.5)
    by_context = {c["n_context"]: {a["arm"]: a for a in c["arms"]} for c in summary["contexts"]}
    assert by_context[64]["adaptive"]["speedup"]["value"] == pytest.approx(1.5)
    assert by_context[128]["adaptive"]["speedup"]["value"] == pytest.approx(0.5)
    raw = next(both for both in summary["raw"] if both["arm"] == "k=2")
    assert (raw["raw"]["acceptance"]["value"], raw["chat"]["acceptance"]["value"]) == (0.0, 0.25)
    assert raw["chat"]["n_rows"] == raw["raw"]["n_rows"] == 6
