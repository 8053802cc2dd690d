"""Fixtures of the file tools' tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from nextn.bundled import bundled_model

from .sketch import Sketch

# The smallest models that the engine runs: headers of a few kilobytes.
SMALL = {"n_embd": 32, "n_ff": 32, "n_vocab": 270, "head_dim": 16, "n_rot": 8, "n_head": 2, "n_head_kv": 1}
SMALL |= {"state_size": 8, "key_heads": 1, "value_heads": 2, "n_layer": 2, "full_attention_interval": 2}
EXPERTS = {"n_ff_exp": 32, "n_ff_shexp": 32, "n_expert": 4}

# Loads each file it is given, drafts with it, and says how that went. Memory is limited; a hang ends after a minute.
_CHILD = """
import json, resource, signal, sys
import nextn
from nextn.gguf.trial import _main
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for path in json.load(sys.stdin):
    print("start", path, flush=True)
    signal.alarm(60)
    print("end", json.dumps(_main(path)), flush=True)
"""


@pytest.fixture(scope="session")
def demo_path():
    return bundled_model()


@pytest.fixture(scope="session")
def small(tiny_model):
    """Return a function that gives the path of a very small model: kind is dense, moe or next."""

    def make(kind="dense", **options):
        return tiny_model(kind, **SMALL, **({} if kind == "dense" else EXPERTS), **options)

    return make


@pytest.fixture
def sketch(small):
    """Return a function that takes a small model apart."""
    return lambda kind="dense", **options: Sketch(small(kind, **options))


@pytest.fixture
def write(tmp_path):
    """Return a function that writes bytes as a file."""

    def write(data, name="m.gguf"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


@pytest.fixture
def load_all():
    """Return a function that loads files in processes that may die.

    It gives what each load came to, and the files that ended their process with how.
    """

    def run(paths):
        todo, results, crashed = [str(path) for path in paths], {}, {}
        while todo:
            done = subprocess.run(
                [sys.executable, "-c", _CHILD],
                input=json.dumps(todo),
                env={**os.environ, "GGML_NO_BACKTRACE": "1", "OMP_WAIT_POLICY": "passive"},
                capture_output=True,
                text=True,
                timeout=900,
            )
            lines = done.stdout.splitlines()
            started = [line.split(" ", 1)[1] for line in lines if line.startswith("start ")]
            ended = [json.loads(line.split(" ", 1)[1]) for line in lines if line.startswith("end ")]
            assert started, done.stderr
            results |= dict(zip(started, ended, strict=False))
            if len(ended) < len(started):
                crashed[started[-1]] = f"{done.returncode}: {done.stderr[-300:]}"
            todo = todo[len(started) :]
        return results, crashed

    return run
