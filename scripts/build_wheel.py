#!/usr/bin/env python3
"""Build the self-contained wheel: portable CPU kernels, repaired by auditwheel where that exists (Linux).

Does nothing when the wheel in the output directory was built from the same sources with the same settings.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RAW = ROOT / "build" / "wheel"
# What the wheel is made of. Everything else in the repository may change without a new wheel.
SOURCES = ["pyproject.toml", "README.md", "LICENSE", "CMakeLists.txt", "cmake", "csrc", "python", "vendor", "scripts"]


def source_files() -> Iterator[Path]:
    """Every file below SOURCES, in a fixed order, without caches."""
    for name in SOURCES:
        path = ROOT / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        yield from (file for file in files if file.is_file() and "__pycache__" not in file.parts)


def fingerprint() -> str:
    """Hash of sources, settings and interpreter: equal fingerprints give equal wheels."""
    digest = hashlib.sha256()
    for file in source_files():
        digest.update(f"{file.relative_to(ROOT)}\0".encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    for setting in ("CMAKE_ARGS", "CC", "CXX", "CFLAGS", "CXXFLAGS"):
        digest.update(f"{setting}={os.environ.get(setting)}\0".encode())
    digest.update(f"{sysconfig.get_platform()} {sys.implementation.cache_tag}".encode())
    return digest.hexdigest()


def run(*command: str) -> None:
    """Run a command of this interpreter's environment; its output is shown, its failure ends the script."""
    environment = dict(os.environ)
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment.get("PATH", "")])
    done = subprocess.run(command, cwd=ROOT, env=environment)
    if done.returncode != 0:
        sys.exit(f"error: exit code {done.returncode} from: {' '.join(command)}")


def build_raw() -> Path:
    """Let pip build the wheel as it is, in a build directory of its own that is kept."""
    for old in RAW.glob("*.whl"):
        old.unlink()
    # fmt: off
    run(
        sys.executable, "-m", "pip", "wheel", ".", "--quiet", "--no-deps", "--no-build-isolation",
        "--wheel-dir", str(RAW),
        "--config-settings", "build-dir=build/wheel-{wheel_tag}",
        "--config-settings", "cmake.define.NEXTN_PORTABLE=ON",
    )
    # fmt: on
    (wheel,) = RAW.glob("*.whl")
    return wheel


def repair(wheel: Path, out: Path) -> None:
    """Put the wheel into `out`; on Linux with the libraries it needs inside, under the oldest tag it can carry."""
    for old in out.glob("nextn-*.whl"):
        old.unlink()
    if sys.platform == "linux":
        run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", str(out), str(wheel))
    else:
        (out / wheel.name).write_bytes(wheel.read_bytes())


def main() -> int:
    """Build unless the stamp beside the wheel says that it is up to date; print the wheel's path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="where the wheel goes (default: dist)")
    args = parser.parse_args()
    out: Path = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    stamp = out / ".fingerprint"
    wanted = fingerprint()
    # A tree that the user brings is not among the sources, so nothing is known about changes in it.
    known = "NEXTN_LLAMA_SOURCE" not in os.environ.get("CMAKE_ARGS", "") and "NEXTN_LLAMA_SOURCE" not in os.environ
    fresh = known and stamp.exists() and stamp.read_text() == wanted and any(out.glob("nextn-*.whl"))
    if not fresh:
        stamp.unlink(missing_ok=True)
        RAW.mkdir(parents=True, exist_ok=True)
        repair(build_raw(), out)
        stamp.write_text(wanted)
    print(*sorted(out.glob("nextn-*.whl")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
