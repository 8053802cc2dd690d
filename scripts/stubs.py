#!/usr/bin/env python3
"""Write python/nextn/_core.pyi from the built extension module, or check that it is what the module gives."""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).resolve().parent.parent / "python" / "nextn" / "_core.pyi"
HEADER = "# Written by scripts/stubs.py from the built module: make stubs. Do not edit.\n"


def generate() -> str:
    """Text of the stub for the nextn._core that this interpreter imports."""
    with tempfile.TemporaryDirectory() as directory:
        # fmt: off
        command = [
            sys.executable, "-m", "pybind11_stubgen", "nextn._core",
            "--output-dir", directory, "--exit-code", "--numpy-array-remove-parameters",
        ]
        # fmt: on
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"error: pybind11-stubgen failed:\n{done.stdout}{done.stderr}")
        text = (Path(directory) / "nextn" / "_core.pyi").read_text(encoding="utf-8")
    formatter = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--isolated",
        "--line-length=120",
        "--stdin-filename=_core.pyi",
        "-",
    ]
    return subprocess.run(formatter, input=HEADER + text, capture_output=True, text=True, check=True).stdout


def main() -> int:
    """Write with --write, otherwise compare: 0 when the committed stub is right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the stub instead of comparing")
    args = parser.parse_args()
    text = generate()
    if args.write:
        STUB.write_text(text, encoding="utf-8")
        return 0
    committed = STUB.read_text(encoding="utf-8") if STUB.exists() else ""
    if committed == text:
        return 0
    diff = difflib.unified_diff(committed.splitlines(True), text.splitlines(True), "committed", "generated")
    sys.stderr.writelines(diff)
    print("error: python/nextn/_core.pyi is not what the module gives: run make stubs", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
