"""A small project with a small llama.cpp in a small archive: everything that scripts/vendor.py works on."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from vendoring.cli import main

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "scripts" / "vendor.py"

PACKAGE = "llama-cpp-python"
VERSION = "9.9.9"

LIB = "".join(f"int value_{n} = {n};\n" for n in range(40))

# Path in llama.cpp -> content. A name with an exclamation mark in front is executable.
UPSTREAM = {
    ".gitignore": "*.log\n/build*\n",
    "CMakeLists.txt": "project(tiny)\n",
    "LICENSE": "MIT\n",
    "include/llama.h": "int llama();\n",
    "src/lib.cpp": LIB,
    "src/other.cpp": "int other;\n",
    "docs/dos.txt": "one\r\ntwo\r\n",
    "kept.log": "upstream's own .gitignore would leave this out\n",
    "!run.sh": "#!/bin/sh\n",
}

# An sdist must be installable enough for pip to read its metadata. It leaves a mark, so that tests see it run.
BACKEND = """
import os, pathlib
def _metadata(directory):
    if "BACKEND_MARK" in os.environ:
        pathlib.Path(os.environ["BACKEND_MARK"]).touch()
    info = pathlib.Path(directory, "{name}-{version}.dist-info")
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: {package}\\nVersion: {version}\\n")
    return info.name
def prepare_metadata_for_build_wheel(directory, config_settings=None):
    return _metadata(directory)
def build_wheel(directory, config_settings=None, metadata_directory=None):
    raise SystemExit("nobody should build this")
"""


def make_archive(
    folder: Path,
    *,
    version: str = VERSION,
    files: Mapping[str, str] = UPSTREAM,
    extra: tuple[tarfile.TarInfo, ...] = (),
) -> Path:
    """Write a source distribution with these llama.cpp files, the way the real one is laid out."""
    name = PACKAGE.replace("-", "_")
    top = f"{name}-{version}"
    backend = BACKEND.format(name=name, package=PACKAGE, version=version)
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    members = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version}\n",
        "pyproject.toml": project,
        "backend.py": backend,
        "CHANGELOG.md": f"## [{version}]\n\n- update ggml-org/llama.cpp@abc{version.replace('.', '')}0\n\n"
        "## [0.0.1]\n\n- update ggml-org/llama.cpp@0000000\n",
        "vendor/llama.cpp/.git": "gitdir: ../../.git/modules/vendor/llama.cpp\n",
        "vendor/other/file": "not ours to take\n",
        **{f"vendor/llama.cpp/{path}": content for path, content in files.items()},
    }
    path = folder / f"{top}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members.items():
            info = tarfile.TarInfo(f"{top}/{member.replace('!', '')}")
            info.mode = 0o755 if "!" in member else 0o644
            data = content.encode()
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            info.name = f"{top}/{info.name}"
            tar.addfile(info)
    return path


def git(tree: Path, *args: str, stdin: str | None = None) -> str:
    """Plain git, as a developer would call it, but with nobody's configuration."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_OPTIONAL_LOCKS": "0"}
    identity = ("-c", "user.name=dev", "-c", "user.email=dev@example.org")
    done = subprocess.run(["git", *identity, *args], cwd=tree, env=env, input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, f"git {args}: {done.stderr}"
    return done.stdout.strip()


def tree_id(folder: Path, files: Mapping[str, str] = UPSTREAM) -> str:
    """The tree id of these files, found with plain git and files on disk."""
    folder.mkdir()
    git(folder, "init", "-q")
    for path, content in files.items():
        target = folder / path.replace("!", "")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode())
        target.chmod(0o755 if "!" in path else 0o644)
    git(folder, "add", "--force", "--all")
    return git(folder, "write-tree")


def pin_text(archive: Path, tree: str, version: str = VERSION) -> str:
    """UPSTREAM.toml for an archive."""
    return (
        f'package = "{PACKAGE}"\nversion = "{version}"\narchive = "{archive.name}"\n'
        f'sha256 = "{hashlib.sha256(archive.read_bytes()).hexdigest()}"\n'
        f'subdirectory = "vendor/llama.cpp"\ncommit = "abc9990"\ntree = "{tree}"\n'
    )


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass
class Project:
    """A project in a temporary folder and the cache it uses."""

    root: Path
    cache: Path
    archive: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return self.root / "vendor" / "llama.cpp"

    @property
    def version_cache(self) -> Path:
        return self.cache / f"llama.cpp-{VERSION}"

    @property
    def tree(self) -> Path:
        """The cache's folder of this project."""
        digest = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()
        return self.version_cache / "trees" / f"{self.root.name}-{digest[:12]}"

    @property
    def source(self) -> Path:
        return self.tree / "src"

    @property
    def stamp_file(self) -> Path:
        return self.tree / "stamp"

    def environment(self, **env: str | None) -> dict[str, str]:
        """Without network; None takes a variable away."""
        full: dict[str, str | None] = {
            k: v for k, v in os.environ.items() if not k.startswith(("NEXTN_", "PIP_", "GIT_"))
        }
        full |= {"PIP_NO_INDEX": "1", "NEXTN_CACHE_DIR": str(self.cache), "NEXTN_LLAMA_ARCHIVE": str(self.archive)}
        full |= self.env
        full |= env
        return {key: value for key, value in full.items() if value is not None}

    def command(self, *args: str | Path, python: str | Path = sys.executable) -> list[str]:
        return [str(python), str(SCRIPT), "--root", str(self.root), *map(str, args)]

    def start(self, *args: str | Path, **env: str | None) -> subprocess.Popen[str]:
        """Start a command in a process of its own and do not wait for it."""
        pipe = subprocess.PIPE
        return subprocess.Popen(self.command(*args), env=self.environment(**env), stdout=pipe, stderr=pipe, text=True)

    def run_process(self, *args: str | Path, python: str | Path = sys.executable, **env: str | None) -> Done:
        """Run a command in a process of its own."""
        command = self.command(*args, python=python)
        done = subprocess.run(command, env=self.environment(**env), capture_output=True, text=True, timeout=120)
        return Done(done.returncode, done.stdout, done.stderr)

    def run(self, *args: str | Path, **env: str | None) -> Done:
        """Run a command in this process, which is quicker, through the same entry."""
        out, err = io.StringIO(), io.StringIO()
        with patch.dict(os.environ, self.environment(**env), clear=True), redirect_stdout(out), redirect_stderr(err):
            try:
                code = main(["--root", str(self.root), *map(str, args)])
            except SystemExit as stop:
                code = int(stop.code or 0)
        return Done(code, out.getvalue(), err.getvalue())

    def ok(self, *args: str | Path, **env: str | None) -> str:
        """Run a command that must succeed; its output."""
        done = self.run(*args, **env)
        assert done.code == 0, done.err
        return done.out.strip()

    def fails(self, *args: str | Path, **env: str | None) -> str:
        """Run a command that must fail with one message; that message."""
        return the_message(self.run(*args, **env))

    def overlay(self, path: str, content: str | None) -> None:
        """Write or remove an overlay file."""
        target = self.folder / "overlay" / path
        if content is None:
            target.unlink()
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content)

    def read(self, path: str) -> str:
        """A file of the prepared tree."""
        return (self.source / path).read_text()

    def snapshot(self) -> dict[str, bytes]:
        """All files of vendor/llama.cpp."""
        return {p.relative_to(self.folder).as_posix(): p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}

    def kept(self) -> set[str]:
        """What the cache holds for the version, apart from the lock."""
        return {path.name for path in self.version_cache.glob("*")} - {"lock", "trees"} | {
            path.name for path in self.version_cache.glob("trees/*/*")
        }


def the_message(done: Done) -> str:
    """The one message of a command that failed."""
    assert done.code == 1, done
    assert "Traceback" not in done.err, done.err
    assert sum(line.startswith("error: ") for line in done.err.splitlines()) == 1, done.err
    return done.err.partition("error: ")[2].strip()


def commit(tree: Path, message: str, files: Mapping[str, str]) -> None:
    """Write these files (path -> content) and commit them."""
    for path, content in files.items():
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        git(tree, "add", "--force", path)
    git(tree, "commit", "-q", "-m", message)


def message(subject: str, test: str = "tests/test_it.py") -> str:
    """A commit message as the project wants it."""
    return f"{subject}\n\nWhy: because the test wants it so.\n\nDrop when: never.\nTest: {test}\n"
