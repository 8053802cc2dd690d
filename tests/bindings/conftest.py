"""Fixtures of the bindings' tests: the demo model, contexts that are closed afterwards, and a process that may die."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import nextn
import pytest
from nextn.bundled import bundled_model

TEXT = "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="session")
def demo_path():
    return bundled_model()


@pytest.fixture(scope="session")
def demo(demo_path):
    return nextn.Model(demo_path)


@pytest.fixture(scope="session")
def tokens(demo):
    """A short prompt of the demo model."""
    return demo.tokenize(TEXT, parse_special=True)


@pytest.fixture
def make_context():
    """Return a function that makes a small context, closed after the test."""
    made = []

    def make(model, **options):
        made.append(nextn.Context(model, **{"n_ctx": 512, "n_batch": 256, "n_ubatch": 64, "n_threads": 1, **options}))
        return made[-1]

    yield make
    for context in made:
        context.close()


@pytest.fixture
def run_python(demo_path):
    """Return a function that runs code in a new interpreter, which must end by itself with exit code 0.

    The code finds `nextn`, `np` and the demo model's path as DEMO. What it prints is returned.
    """
    head = f"import os, sys, threading, time\nimport numpy as np\nimport nextn\nDEMO = {str(demo_path)!r}\n"

    def run(code, *, code_wanted=0, timeout=120):
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", head + textwrap.dedent(code)],
            env={**os.environ, "GGML_NO_BACKTRACE": "1", "OMP_WAIT_POLICY": "passive", "PYTHONWARNINGS": "error"},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == code_wanted, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.stderr == "", done.stderr
        return done.stdout

    return run
