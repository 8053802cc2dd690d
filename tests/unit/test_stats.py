"""Statistics: the names of the JSON, the arithmetic, nothing divided by zero."""

from __future__ import annotations

import dataclasses
import json

import nextn.stats
import pytest
from nextn.stats import Counters, GenerationResult, Stats

NAMES = [
    "prompt_tokens", "cache_n", "completion_tokens", "draft_n", "draft_n_accepted", "acceptance_rate", "n_rounds",
    "mean_accepted_len", "accepted_per_position", "ttft_ms", "prompt_ms", "prompt_draft_ms", "predicted_ms",
    "tokens_per_second", "draft_ms", "verify_ms",
]  # fmt: skip


def test_names_and_order_of_the_json():
    result = GenerationResult(text="é", tokens=(1, 2), finish_reason="stop", stats=Counters().snapshot())
    parsed = json.loads(json.dumps(result.to_dict()))
    assert list(parsed) == ["text", "tokens", "finish_reason", "stats"]
    assert list(parsed["stats"]) == NAMES
    assert (parsed["text"], parsed["tokens"], parsed["finish_reason"]) == ("é", [1, 2], "stop")


def test_arithmetic():
    counters = Counters(
        prompt_tokens=5, completion_tokens=9, ttft=0.25, prompt=0.2, predicted=0.5, draft=0.5, verify=1.0
    )
    for n_draft, n_accepted in ((3, 3), (3, 1), (2, 0), (0, 0)):
        counters.count_round(n_draft, n_accepted)
    stats = counters.snapshot()
    assert (stats.draft_n, stats.draft_n_accepted, stats.n_rounds) == (8, 4, 4)
    assert (stats.acceptance_rate, stats.mean_accepted_len) == (0.5, 2.0)
    assert stats.accepted_per_position == (2, 1, 1)
    assert (stats.ttft_ms, stats.prompt_ms, stats.predicted_ms) == (250.0, 200.0, 2000.0)
    assert (stats.draft_ms, stats.verify_ms) == (500.0, 1000.0)
    assert stats.tokens_per_second == 4.0  # eight tokens after the first in two seconds


def test_an_empty_run_divides_nothing_by_zero():
    stats = Counters().snapshot()
    assert (stats.acceptance_rate, stats.tokens_per_second, stats.mean_accepted_len) == (0.0, 0.0, 1.0)
    assert Counters(completion_tokens=1, predicted=1.0).snapshot().tokens_per_second == 0.0


def test_snapshots_do_not_change_afterwards():
    counters = Counters()
    counters.count_round(2, 1)
    before = counters.snapshot()
    counters.count_round(2, 2)
    assert before.accepted_per_position == (1,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.draft_n = 3  # type: ignore[misc]


def test_laps_share_out_the_time_between_start_and_last_lap(monkeypatch):
    now = iter([10.0, 11.0, 13.0, 13.5, 20.0, 20.25, 21.25, 30.0, 32.0, 32.5])
    monkeypatch.setattr(nextn.stats, "perf_counter", lambda: next(now))
    counters = Counters(completion_tokens=11)
    counters.start()
    for name in ("draft", "verify", "predicted"):
        counters.lap(name)
    counters.start()  # the time before it is the caller's
    for name in ("draft", "verify"):
        counters.lap(name)
    assert (counters.draft, counters.verify, counters.predicted) == (1.25, 3.0, 0.5)
    assert counters.snapshot().predicted_ms == 4750.0
    counters.start()
    for name in ("prompt", "prompt_draft"):
        counters.lap(name)
    assert (counters.prompt, counters.prompt_draft, counters.predicted) == (2.0, 0.5, 0.5)
    assert counters.snapshot().prompt_ms == 2500.0


def test_stats_are_what_the_design_lists():
    assert [field.name for field in dataclasses.fields(Stats)] == NAMES
