"""The project's own fork: vendor/llama.cpp is in order. Needs the real archive, in the cache or from the index."""

from __future__ import annotations

import subprocess
import sys

from .project import SCRIPT


def test_the_fork_is_in_order() -> None:
    done = subprocess.run([sys.executable, str(SCRIPT), "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_fork_can_be_prepared_again_at_once() -> None:
    subprocess.run([sys.executable, str(SCRIPT), "prepare"], capture_output=True, check=True)
    done = subprocess.run([sys.executable, str(SCRIPT), "prepare"], capture_output=True, text=True, check=True)
    assert "prepared" not in done.stderr
    assert "importing" not in done.stderr
