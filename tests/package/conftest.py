"""The wheel that `make wheel` built, its files, and an environment that has it installed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything below this directory needs the wheel."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.package)


@pytest.fixture(scope="session")
def wheel() -> Path:
    wheels = sorted((ROOT / "dist").glob("nextn-*.whl"))
    if len(wheels) != 1:
        pytest.fail(
            f"these tests need one wheel in dist/, found {len(wheels)}: run make wheel, or pytest -m 'not package'"
        )
    return wheels[0]


@pytest.fixture(scope="session")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files, as they are."""
    directory = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory)
    return directory


@dataclass(frozen=True)
class Installed:
    """A virtual environment with the wheel, away from the repository."""

    python: Path
    work: Path

    def run(self, *command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run with nothing of the caller's environment that could help to find the repository or its libraries."""
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(self.work), "LC_ALL": "C.UTF-8"}
        return subprocess.run(
            command,
            cwd=self.work,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def python_run(self, code: str, *args: str) -> str:
        """Run Python code; its standard output, after checking that it succeeded."""
        done = self.run(str(self.python), "-c", code, *args)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    base = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", str(base / "venv")], check=True)
    python = base / "venv" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], check=True, cwd=base, env=environment)
    (base / "work").mkdir()
    return Installed(python=python, work=base / "work")
