"""The benchmark of the demo model in docs/results: its receipts are valid, and its report is what they say."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import nextn
import pytest
from jsonschema import Draft202012Validator
from nextn.bench import load_receipt, load_suite, summarise
from nextn.bench.suite import DATA
from nextn.bench.summary import control
from nextn.cli import main

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"
RECEIPTS = [RESULTS / f"nextn-demo-{kind}.json.gz" for kind in ("q8_0", "q4_k_m")]


@pytest.mark.parametrize("path", RECEIPTS, ids=lambda path: path.name)
def test_receipts_follow_the_schema_and_are_complete(path):
    receipt = load_receipt(path)
    Draft202012Validator(json.loads((DATA / "receipt.schema.json").read_text())).validate(receipt)
    arms = ["plain", "plain again", *(f"k={k}" for k in range(1, 9)), "adaptive"]
    assert [arm["name"] for arm in receipt["arms"]] == arms
    assert receipt["finished"]
    assert receipt["options"]["seeds"] == [1, 2, 3]
    assert receipt["suite"]["sha256"] == load_suite().sha256
    chats = [row for row in receipt["rows"] if row["mode"] == "chat" and row["n_context"] is None]
    assert len(chats) == 50 * 3 * len(arms)


@pytest.mark.parametrize("path", RECEIPTS, ids=lambda path: path.name)
def test_the_control_holds_and_outputs_are_identical(path):
    """Otherwise the figures mean nothing, and must be measured again on an idle machine."""
    summary = summarise(load_receipt(path))
    again = control(summary)
    assert again is not None
    assert not again["distinguishable"], again["speedup"]
    assert again["speedup"]["n_prompts"] == 50
    assert again["speedup"]["low"] < 1 < again["speedup"]["high"]
    assert summary["exactness"]["comparable"] and summary["exactness"]["different"] == []


def test_the_model_is_the_bundled_one():
    digest = hashlib.sha256(Path(nextn.bundled_model()).read_bytes()).hexdigest()
    assert load_receipt(RECEIPTS[0])["model"]["sha256"] == digest


def test_the_report_is_what_the_receipts_say(tmp_path):
    """Every figure of the committed pages, computed again; plots are compared by name."""
    arguments = ["bench", "report", *map(str, RECEIPTS)]
    assert main([*arguments, "--markdown", str(tmp_path / "demo.md"), "--html", str(tmp_path / "demo.html")]) == 0
    assert (tmp_path / "demo.md").read_text() == (RESULTS / "demo.md").read_text()

    def without_plots(page):
        return re.sub(r"<svg.*?</svg>", "<svg>", page.read_text(), flags=re.DOTALL)

    assert without_plots(tmp_path / "demo.html") == without_plots(RESULTS / "demo.html")
    plots = {path.name for path in (tmp_path / "demo").iterdir()}
    assert plots == {path.name for path in (RESULTS / "demo").iterdir()}
    assert len(plots) == 9


def test_they_are_small():
    assert sum(path.stat().st_size for path in RESULTS.rglob("*") if path.is_file()) < 2_000_000
