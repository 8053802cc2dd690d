"""The wheel's kernels for AVX2 alone, which a machine that has more never chooses by itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ROOT

# Half of the rest is the same with other sizes; the longest tests are left out.
SOME = "(one_column and gaussian and 24 and 2-threads) or double_precision or threads_changes or largest"
FILES = ("test_narrow.py", "test_delta_net.py", "test_attention.py")


@pytest.fixture
def libraries(unpacked: Path, tmp_path: Path) -> Path:
    """The wheel's libraries in a folder where the engine finds no other kernels."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or " avx2 " not in cpuinfo.read_text():
        pytest.skip("no AVX2 on this machine")
    (haswell,) = unpacked.rglob("libggml-cpu-haswell.so")
    others = shutil.ignore_patterns("libggml-cpu-*.so")
    lib = tmp_path / "nextn" / "lib"
    shutil.copytree(unpacked / "nextn" / "lib", lib, ignore=others)
    shutil.copytree(unpacked / "nextn.libs", tmp_path / "nextn.libs")
    shutil.copy(haswell, lib)
    return lib


def test_kernel_tests_pass(libraries: Path) -> None:
    tests = [str(ROOT / "tests" / "kernels" / name) for name in FILES]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-k", SOME, *tests]
    env = dict(os.environ, NEXTN_GGML_DIR=str(libraries), OMP_WAIT_POLICY="passive")
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
