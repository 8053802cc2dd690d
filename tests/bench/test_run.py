"""Running: turns, warm-up, interruptions, going on; on a runner that only counts, and on the bundled model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import nextn
import pytest
from nextn.bench import (
    BenchOptions,
    LocalRunner,
    ReceiptError,
    load_receipt,
    load_suite,
    make_arms,
    run_bench,
    statistics,
    summarise,
)
from nextn.bench import run as run_module
from nextn.bench.receipt import block_key
from nextn.bench.runner import Measured

from .synthetic import FACTS, digest, make_suite

ARMS = make_arms([2], adaptive=4)
OPTIONS = BenchOptions(seeds=(1, 2))


class CountingRunner:
    """Remembers what it was asked, and raises at a given run."""

    def __init__(self, fail_at: int | None = None, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.asked: list[tuple[str, str]] = []
        self.fail_at, self.error = fail_at, error

    def count_tokens(self, messages):
        return sum(len(m["content"]) for m in messages)

    def run(self, arm, request):
        if len(self.asked) == self.fail_at:
            raise self.error
        self.asked.append((arm.name, request.messages[-1]["content"]))
        return Measured(
            prompt_tokens=3, completion_tokens=9, prompt_ms=1.0, predicted_ms=8.0, draft_ms=None, verify_ms=None,
            draft_n=0, draft_n_accepted=0, n_rounds=None, drafted_per_position=None, accepted_per_position=None,
            finish_reason="stop", tokens_sha256=None, text_sha256=digest("x"),
        )  # fmt: skip

    def describe(self):
        return FACTS

    def close(self):
        pass


def test_a_whole_run(tmp_path):
    runner, told = CountingRunner(), []
    receipt = run_bench(
        runner, make_suite(3), ARMS, OPTIONS, tmp_path / "r.json", progress=lambda *args: told.append(args)
    )
    assert receipt == load_receipt(tmp_path / "r.json")
    assert receipt["finished"]
    assert len(receipt["rows"]) == 3 * 2 * 4
    assert told == [(i + 1, 24) for i in range(24)]
    # the first block is asked twice, and kept once: the first time warms up
    assert runner.asked[:4] == runner.asked[4:8]
    assert len(runner.asked) == 28
    counts = Counter((row["arm"], row["prompt"], row["seed"]) for row in receipt["rows"])
    assert set(counts.values()) == {1}


@pytest.mark.parametrize("error", [KeyboardInterrupt, nextn.DecodeError, MemoryError])
@pytest.mark.parametrize("fail_at", [0, 4, 11, 27])
def test_an_interrupted_run_keeps_a_valid_receipt_and_goes_on(tmp_path, fail_at, error):
    path, suite = tmp_path / "r.json", make_suite(3)
    with pytest.raises(error):
        run_bench(CountingRunner(fail_at, error), suite, ARMS, OPTIONS, path)
    partial = load_receipt(path)
    assert not partial["finished"]
    assert len(partial["rows"]) == max(0, fail_at - 4)
    runner = CountingRunner()
    receipt = run_bench(runner, suite, ARMS, OPTIONS, path, resume=True)
    assert receipt["finished"]
    keys = Counter(block_key(row) for row in receipt["rows"])
    assert len(keys) == 6 and set(keys.values()) == {4}
    # whole blocks are kept, a block that was begun is run again, and the warm-up comes again
    n_kept = max(0, fail_at - 4) // 4 * 4
    assert receipt["rows"][:n_kept] == partial["rows"][:n_kept]
    assert len(runner.asked) == 4 + 24 - n_kept
    assert [s["n_rows"] for s in receipt["sessions"]] == [max(0, fail_at - 4), 24 - n_kept]


def test_a_finished_run_is_not_run_again(tmp_path):
    path = tmp_path / "r.json"
    first = run_bench(CountingRunner(), make_suite(3), ARMS, OPTIONS, path)
    runner = CountingRunner()
    assert run_bench(runner, make_suite(3), ARMS, OPTIONS, path, resume=True) == first
    assert runner.asked == []


def test_a_receipt_is_not_overwritten_and_not_mixed(tmp_path):
    path = tmp_path / "r.json"
    run_bench(CountingRunner(), make_suite(3), ARMS, OPTIONS, path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        run_bench(CountingRunner(), make_suite(3), ARMS, OPTIONS, path)
    with pytest.raises(ReceiptError, match=r"its suite\.sha256 is"):
        run_bench(CountingRunner(), make_suite(4), ARMS, OPTIONS, path, resume=True)
    assert path.read_bytes() == before


def test_a_place_that_cannot_be_written_is_known_at_once(tmp_path):
    runner = CountingRunner()
    with pytest.raises(OSError, match="nowhere is no directory"):
        run_bench(runner, make_suite(3), ARMS, OPTIONS, tmp_path / "nowhere" / "r.json")
    assert runner.asked == []


def test_rows_are_saved_on_the_way(tmp_path, monkeypatch):
    """A process that is killed loses seconds, not hours."""
    monkeypatch.setattr(run_module, "_SECONDS_BETWEEN_SAVES", -1.0)
    path, seen = tmp_path / "r.json", []
    run_bench(
        CountingRunner(), make_suite(3), ARMS, OPTIONS, path,
        progress=lambda done, _: seen.append((done, len(load_receipt(path)["rows"]))),
    )  # fmt: skip
    assert all(n_saved == (done - 1) // 4 * 4 for done, n_saved in seen)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A short run of the bundled model."""
    path = tmp_path_factory.mktemp("bench") / "r.json"
    options = BenchOptions(max_tokens=32, repeats=3, raw=True, contexts=(150,), n_sweep_prompts=1)
    arms = make_arms([1, 3], adaptive=4)
    with (
        nextn.Model(nextn.bundled_model()) as model,
        LocalRunner(model, arms, n_ctx=256, n_threads=1) as runner,
    ):
        return run_bench(runner, load_suite().part(5), arms, options, path)


def test_a_real_run_is_exact(measured):
    found = summarise(measured)["exactness"]
    assert found["different"] == []
    assert found["n_groups"] == 5 + 1 + 1
    assert found["n_runs"] == len(measured["rows"]) == (5 * 5 + 2 * 4) * 3


def test_a_real_runs_counts_fit_together(measured):
    for row in measured["rows"]:
        assert row["completion_tokens"] - 1 <= row["n_rounds"] + row["draft_n_accepted"]
        assert sum(row["drafted_per_position"]) == row["draft_n"]
        assert sum(row["accepted_per_position"]) == row["draft_n_accepted"]
        assert all(a <= d for a, d in zip(row["accepted_per_position"], row["drafted_per_position"], strict=True))
        assert row["draft_ms"] + row["verify_ms"] <= row["predicted_ms"] + 0.01
        if row["arm"].startswith("plain"):
            assert row["draft_n"] == 0
        if row["n_context"] is not None:
            assert row["prompt_tokens"] <= 150
        if row["mode"] == "raw":  # wherever the model would have ended
            assert (row["completion_tokens"], row["finish_reason"]) == (32, "length")
    fixed = [row for row in measured["rows"] if row["arm"] == "k=3"]
    assert all(max(map(len, [row["drafted_per_position"]])) == 3 for row in fixed if row["completion_tokens"] > 4)
    assert sum(row["draft_n_accepted"] for row in fixed) > 0.3 * sum(row["draft_n"] for row in fixed)


@pytest.mark.long  # it judges measured times, which a machine that does other work can bend
def test_a_real_runs_control_covers_1(measured, monkeypatch):
    """A/A on the engine, with a wide interval."""
    monkeypatch.setattr(statistics, "CONFIDENCE", 0.999)
    control = next(arm for arm in summarise(measured)["arms"] if arm["arm"] == "plain again")
    assert not control["distinguishable"], control["speedup"]
    assert 0.5 < control["speedup"]["value"] < 2


def test_the_receipt_says_what_was_run(measured):
    from nextn.bundled import BUNDLED_SHA256

    assert measured["model"]["sha256"] == BUNDLED_SHA256
    assert measured["engine"]["upstream_commit"] == "0c1e57098"
    assert measured["engine"]["stamp"] == nextn._core.build_stamp()
    assert any(name.startswith("libllama") for name in measured["engine"]["files"])
    assert "/" not in json.dumps([measured["model"], measured["context"], measured["machine"]])  # no paths


def test_ctrl_c_keeps_a_receipt_and_resume_ends_it(tmp_path):
    path = tmp_path / "r.json"
    command = [sys.executable, "-m", "nextn", "bench", "-t", "1", "-n", "48", "--prompts", "3", "--k", "2",
               "--repeats", "4", "-o", str(path)]  # fmt: skip
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 60
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert f"what was measured is in {path}; the same command with --resume goes on" in err
    partial = load_receipt(path)
    assert not partial["finished"]
    n_rows = 3 * 4 * 4
    assert len(partial["rows"]) < n_rows
    again = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert again.returncode == 2 and "--resume continues it" in again.stderr
    report = subprocess.run(
        [sys.executable, "-m", "nextn", "bench", "report", str(path)], capture_output=True, text=True, timeout=60
    )
    assert report.returncode == 0, report.stderr
    assert "This run is not complete" in report.stdout
    again = subprocess.run(
        [*command, "--resume", "--json"], capture_output=True, text=True, env=environment, timeout=90
    )
    assert again.returncode == 0, again.stderr
    finished = load_receipt(path)
    assert finished["finished"] and len(finished["rows"]) == n_rows and len(finished["sessions"]) == 2
    assert json.loads(again.stdout)["receipts"][0]["n_rows"] == n_rows
