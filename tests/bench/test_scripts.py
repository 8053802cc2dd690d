"""The shell scripts that people copy: what they call exists, and the matrix of benchmarks runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import Request, urlopen

import nextn
import pytest
from nextn.bench import load_receipt
from nextn.cli import build_parser

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
NAMES = sorted(path.name for path in SCRIPTS.glob("*.sh"))
BIN = str(Path(sys.executable).parent)


def run(name, *arguments, path=BIN, **variables):
    environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}", "OMP_WAIT_POLICY": "passive", **variables}
    command = ["sh", str(SCRIPTS / name), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def test_there_are_some():
    assert NAMES == ["bench_matrix.sh", "quantize_matrix.sh", "serve_27b.sh", "serve_35b_a3b.sh"]


@pytest.mark.parametrize("name", NAMES)
def test_without_arguments_they_say_what_is_missing(name):
    done = run(name)
    assert done.returncode != 0
    assert "name a GGUF file" in done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_they_call_exist(name, tmp_path):
    """A nextn that only writes down its arguments; each line must be one that the real parser takes."""
    written = tmp_path / "calls"
    fake = tmp_path / "bin" / "nextn"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\nfor a in "$@"; do printf "%s\\037" "$a"; done >> {written}; echo >> {written}\n')
    fake.chmod(0o755)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "model-Q4_K_M-base.gguf").touch()
    done = run(name, "model file.gguf", tmp_path / "results", tmp_path / "text.txt", path=str(fake.parent))
    if name.startswith("serve"):  # these take one file, and the rest would be options
        written.unlink()
        done = run(name, "model file.gguf", "-np", "2", path=str(fake.parent))
    assert done.returncode == 0, done.stderr
    calls = [line.split("\037")[:-1] for line in written.read_text().splitlines()]
    assert calls
    for call in calls:
        if "matrix" in name and call[0] == "bench":
            call = [argument for argument in call if argument != str(tmp_path / "text.txt")]
        assert build_parser().parse(call).command == call[0]


def test_the_matrix_of_benchmarks(tmp_path):
    arguments = (nextn.bundled_model(), tmp_path, "--prompts", "3", "-n", "8", "-t", "1", "--no-control")
    done = run("bench_matrix.sh", *arguments, CACHES="f16 q8_0", MODES="sampled")
    assert done.returncode == 0, done.stderr
    receipts = [load_receipt(tmp_path / f"{cache}-sampled.json") for cache in ("f16", "q8_0")]
    assert [r["context"]["type_k"] for r in receipts] == ["f16", "q8_0"]
    assert {r["options"]["temperature"] for r in receipts} == {0.7}
    page = (tmp_path / "comparison.md").read_text()
    assert "| f16-sampled | adaptive |" in page and "| q8_0-sampled | adaptive |" in page
    assert "<svg" in (tmp_path / "comparison.html").read_text()


def test_the_matrix_of_quantizations(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text((SCRIPTS.parent / "README.md").read_text()[:1500])
    arguments = (nextn.bundled_model(), tmp_path / "out", text, "--prompts", "3", "-n", "8", "-t", "1", "--no-control")
    options = {"TYPES": "Q4_0", "RECIPES": "combined", "QUANTIZE_OPTIONS": "--allow-requantize -t 1 -c 128"}
    done = run("quantize_matrix.sh", *arguments, **options)
    assert done.returncode == 0, done.stderr
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"matrix.md", "comparison.md", "comparison.html"} <= made
    (model,) = (name for name in made if name.endswith(".gguf"))
    assert f"{model.removesuffix('.gguf')}.json" in made
    assert "| Q4_0 combined |" in (tmp_path / "out" / "matrix.md").read_text()
    again = run("quantize_matrix.sh", *arguments, **options)  # nothing is left to do
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(("name", "variables"), [("serve_27b.sh", {}), ("serve_35b_a3b.sh", {"EXPERTS_ON_CPU": "99"})])
def test_serving(name, variables):
    """The script becomes the server; a request is answered with drafts, and SIGTERM ends it."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_WAIT_POLICY": "passive"}
    environment |= {"PORT": "0", "CTX": "512", "CACHE": "q8_0", **variables}
    command = ["sh", str(SCRIPTS / name), str(nextn.bundled_model()), "-t", "1"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = next(line for line in process.stderr if "serving at" in line)
            assert "drafting: nextn" in line
            body = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0}
            url = re.search(r"http://\S+", line)[0] + "/v1/chat/completions"
            request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
            with urlopen(request, timeout=60) as answer:
                found = json.load(answer)
            assert "Paris" in found["choices"][0]["message"]["content"]
            assert found["timings"]["draft_n_accepted"] > 0
        finally:
            process.terminate()
            process.stderr.read()
        assert process.wait(60) == 0
