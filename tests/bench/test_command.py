"""nextn bench and nextn bench report as people type them."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
from nextn._cli import bench
from nextn.bench import BenchOptions, load_receipt, make_arms, save_receipt, statistics
from nextn.cli import main

from .synthetic import make_receipt, make_suite


@pytest.fixture(scope="module", autouse=True)
def fewer_resamples():
    """Intervals are tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "N_RESAMPLES", 199)
        yield


QUICK = ["bench", "-t", "1", "-n", "8", "--prompts", "3"]


def test_bench_and_report(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*QUICK, "--k", "1-2", "--contexts", "100", "--sweep-prompts", "1", "-o", "r.json"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("# Benchmark of nextn-demo-q8_0")
    assert "19 runs are in r.json" in printed.err
    receipt = load_receipt("r.json")
    assert [arm["name"] for arm in receipt["arms"]] == ["plain", "plain again", "k=1", "k=2", "adaptive"]
    assert receipt["context"]["n_ctx"] == 256  # no more than is needed
    assert main(["bench", "report", "r.json"]) == 0
    assert capsys.readouterr().out == printed.out
    assert main(["bench", "report", "r.json", "--html", "r.html", "--markdown", "page.md"]) == 0
    assert "<svg" in (tmp_path / "r.html").read_text()
    assert "](page/nextn-demo-q8_0-speedup.svg)" in (tmp_path / "page.md").read_text()
    assert (tmp_path / "page" / "nextn-demo-q8_0-speedup.svg").exists()
    assert main([*QUICK, "-o", "r.json"]) == 2
    assert "r.json is there already: --resume continues it, -o names another file" in capsys.readouterr().err
    assert main([*QUICK, "--k", "3", "--resume", "-o", "r.json"]) == 1
    assert "r.json cannot be continued: its options.contexts is [100], now it is []" in capsys.readouterr().err


def test_json(tmp_path, capsys):
    receipt = make_receipt(make_suite(), make_arms([2], adaptive=4), BenchOptions(), factors={"k=2": 1.25})
    save_receipt(tmp_path / "r.json", receipt)
    assert main(["bench", "report", "--json", str(tmp_path / "r.json")]) == 0
    found = json.loads(capsys.readouterr().out)["receipts"][0]
    assert next(arm for arm in found["arms"] if arm["arm"] == "k=2")["speedup"]["value"] == pytest.approx(1.25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--k", "0-3"], "must be numbers from 1 to 16 such as 1,2,4 or 1-4, not '0-3'"),
        (["--k", "many"], "must be numbers from 1 to 16"),
        (["--topic", "maths"], "no prompt of the suite has the topic 'maths'; it has code, math, general"),
        (["--server", "http://a", "--server", "http://b"], "several servers need names"),
        (["--server", "plain=http://a", "--server", "http://b"], "all of them with names"),
        (["--server", "http://127.0.0.1:9", "-m", "x.gguf"], "-m and -md are for a model in this process"),
        (["--seeds", "1,1-2", "--repeats", "0"], "must be a whole number from 1 to 1000"),
        (["--conntrol"], "unknown option '--conntrol'; did you mean --no-control?"),
    ],
)
def test_wrong_usage(arguments, message, capsys, tmp_path):
    assert main([*QUICK, "-o", str(tmp_path / "r.json"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "r.json").exists()


def test_what_is_no_receipt(tmp_path, capsys):
    (tmp_path / "x.json").write_text("{}")
    assert main(["bench", "report", str(tmp_path / "x.json")]) == 1
    assert "x.json is no receipt of nextn bench" in capsys.readouterr().err
    assert main(["bench", "report", str(tmp_path / "none.json")]) == 1
    assert "none.json: No such file" in capsys.readouterr().err


def test_without_the_extra_it_says_what_to_install():
    """Without the packages of the extra, the command says how to get them, and the others work."""
    script = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("scipy", "rich") else find(name, *rest)
from nextn.cli import main
sys.exit(main(sys.argv[1:]))
"""
    done = subprocess.run([sys.executable, "-c", script, "bench"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == 'nextn: error: nextn bench needs scipy, rich: pip install "nextn[bench]"\n'


def test_other_commands_load_nothing_of_it():
    script = "import sys, nextn.cli; nextn.cli.build_parser(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    heavy = {"scipy", "matplotlib", "rich", "jsonschema", "jinja2", "httpx", "nextn.bench"}
    assert heavy & set(done.stdout.split()) == set()


def test_progress_on_a_pipe_is_a_line_now_and_then(capsys, monkeypatch):
    """Nothing for 20 seconds, then how much is done and how long the rest will take at this pace."""
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setenv("FORCE_COLOR", "")
    with bench._progress() as tell:
        for done in range(1, 31):
            clock[0] += 1.5
            tell(done, 30)
    assert capsys.readouterr().err.splitlines() == [
        "14 of 30 runs, about 24 s left",
        "28 of 30 runs, about 3 s left",
    ]


def test_progress_on_a_pipe_after_resuming(capsys, monkeypatch):
    """Runs of an earlier session are done, but say nothing of the pace."""
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setenv("FORCE_COLOR", "")
    with bench._progress() as tell:
        for done in (901, 902, 903):
            clock[0] += 10
            tell(done, 1000)
    assert capsys.readouterr().err.splitlines() == ["903 of 1000 runs, about 970 s left"]


def test_progress_on_a_terminal_is_a_bar(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("rich.console.monotonic", lambda: clock[0])
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with bench._progress() as tell:
        tell(2, 12)
        clock[0] = 10.0
        tell(4, 12)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert re.search(r"running ━+.* 4/12 0:00:10 left 0:00:40", shown), shown
