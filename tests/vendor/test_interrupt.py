"""A call that dies at any moment leaves nothing that a later call trusts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .project import Done, Project, git, the_message
from .test_prepare import PATCHED

# Stands before git: at the n-th call it kills vendor.py as SIGKILL does, and then goes on (an orphan) or ends as well.
WRAPPER = """#!/bin/sh
echo x >> {log}
if [ "$(wc -l < {log})" -eq "${{KILL_AT:-0}}" ]; then
    kill -9 $PPID
    [ "$KILL_ALL" = 1 ] && exit 1
    sleep ${{KILL_SLEEP:-0.1}}
fi
exec {git} "$@"
"""


class Killer:
    """Runs prepare so that it is killed when it starts git for the n-th time."""

    def __init__(self, folder: Path) -> None:
        real = shutil.which("git")
        self.log = folder / "calls"
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.bin / "git").write_text(WRAPPER.format(log=self.log, git=real))
        (self.bin / "git").chmod(0o755)

    def prepare(self, project: Project, at: int, *, everything: bool, sleep: float = 0.1) -> int:
        """Kill at the n-th call of git (0: never). Returns the exit code."""
        self.log.write_text("")
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        how = {"KILL_AT": str(at), "KILL_ALL": str(int(everything)), "KILL_SLEEP": str(sleep)}
        return project.run_process("prepare", PATH=path, **how).code

    @property
    def calls(self) -> int:
        return len(self.log.read_text().splitlines())


@pytest.fixture
def killer(tmp_path: Path) -> Killer:
    return Killer(tmp_path)


def assert_nothing_false_is_trusted(project: Project) -> None:
    """Where a stamp stands, the tree is whole."""
    if project.stamp_file.exists():
        told = json.loads(project.stamp_file.read_text())
        assert git(project.source, "rev-parse", "HEAD") == told["commit"]
        assert git(project.source, "status", "--porcelain") == ""
        assert f'"{told["stamp"]}"' in project.read("src/llama-nextn-stamp.h")


def assert_whole(project: Project, header: str, *, leftovers: bool = False) -> None:
    """The tree is what the project describes, and nothing else lies about (the quick path does not clear it away)."""
    assert project.read("include/llama-nextn.h") == header
    assert project.read("src/lib.cpp") == PATCHED
    assert git(project.source, "status", "--porcelain") == ""
    assert {name for name in project.kept() if not (leftovers and "-" in name)} == {"pristine", "src", "stamp", "owner"}


@pytest.mark.parametrize("everything", [True, False], ids=["git dies too", "git lives on"])
def test_killed_during_the_first_call(project: Project, killer: Killer, everything: bool) -> None:
    header = "// ours\nint nextn();\n"
    assert killer.prepare(project, 0, everything=False) == 0
    total = killer.calls
    assert total > 10
    for at in range(1 if everything else 4, total, 9):
        shutil.rmtree(project.cache)
        assert killer.prepare(project, at, everything=everything) == -9
        assert not project.stamp_file.exists()
        project.ok("prepare")
        assert_whole(project, header)


@pytest.mark.parametrize(
    ("everything", "back"),
    [(True, True), (False, True), (False, False)],
    ids=["dies, back", "lives, back", "lives, on"],
)
def test_killed_during_a_change(prepared: Project, killer: Killer, everything: bool, back: bool) -> None:
    """Killed while the tree changes from one state to another; then the old state, or the new, is asked for."""
    old = "// 0\n"
    prepared.overlay("include/llama-nextn.h", old)
    assert killer.prepare(prepared, 0, everything=False) == 0
    total = killer.calls
    for at in [2, *range(total - 5, total)]:  # the last calls are those that touch the tree
        prepared.overlay("include/llama-nextn.h", f"// {at}\n")
        assert killer.prepare(prepared, at, everything=everything) == -9
        assert_nothing_false_is_trusted(prepared)
        header = old if back else f"// {at}\n"
        prepared.overlay("include/llama-nextn.h", header)
        assert prepared.run("prepare").code == 0
        assert_whole(prepared, header, leftovers=back)


def test_the_lock_is_held_until_git_has_ended(prepared: Project, killer: Killer) -> None:
    """A git that outlives the call that started it must not meet the next call in the same tree."""
    prepared.overlay("include/llama-nextn.h", "// new\n")
    assert killer.prepare(prepared, 4, everything=False, sleep=1.5) == -9
    done = prepared.run("prepare")
    assert done.code == 0
    assert "waiting for another call" in done.err
    assert_whole(prepared, "// new\n")


def test_killed_while_git_writes_files(prepared: Project) -> None:
    """What git leaves when it is killed itself: a lock, files of the new state, the index of the old."""
    before = (prepared.source / "src" / "other.cpp").stat()
    prepared.overlay("src/llama-nextn-new.cpp", "int new;\n")
    prepared.stamp_file.unlink()
    (prepared.source / ".git" / "index.lock").touch()
    (prepared.source / ".git" / "refs" / "nextn").mkdir(exist_ok=True)
    (prepared.source / ".git" / "refs" / "nextn" / "prepared.lock").touch()
    (prepared.source / "src" / "llama-nextn-new.cpp").write_text("int n")
    (prepared.source / "src" / "llama-nextn-left.cpp").write_text("from a state that is gone\n")
    (prepared.source / "src" / "lib.cpp").write_text("half")
    (prepared.version_cache / "scratch-dead").mkdir()
    (prepared.version_cache / "import-1").mkdir()
    (prepared.version_cache / "download-dead").mkdir()
    prepared.ok("prepare")
    assert prepared.read("src/llama-nextn-new.cpp") == "int new;\n"
    assert not (prepared.source / "src" / "llama-nextn-left.cpp").exists()
    after = (prepared.source / "src" / "other.cpp").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)  # repaired, not made anew
    assert_whole(prepared, "// ours\nint nextn();\n")


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


DAMAGES: dict[str, Callable[[Project], object]] = {
    "no tree": lambda p: shutil.rmtree(p.source),
    "no repository in the tree": lambda p: shutil.rmtree(p.source / ".git"),
    "empty repository": lambda p: empty(p.source / ".git"),
    "no HEAD": lambda p: (p.source / ".git" / "HEAD").unlink(),
    "HEAD leads nowhere": lambda p: (p.source / ".git" / "HEAD").write_text("1" * 40 + "\n"),
    "no index": lambda p: (p.source / ".git" / "index").unlink(),
    "bad index": lambda p: (p.source / ".git" / "index").write_bytes(b"DIRC" + bytes(40)),
    "borrows from nobody": lambda p: (p.source / ".git" / "objects" / "info" / "alternates").unlink(),
    "bad stamp": lambda p: p.stamp_file.write_text("{"),
    "empty stamp": lambda p: p.stamp_file.write_text(""),
    "no generated header": lambda p: (p.source / "src" / "llama-nextn-stamp.h").unlink(),
    "stopped in git am": lambda p: (p.source / ".git" / "rebase-apply").mkdir(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_tree_is_repaired_without_an_archive(prepared: Project, damage: str) -> None:
    DAMAGES[damage](prepared)
    prepared.ok("prepare")
    if damage == "stopped in git am":  # harmless until the next change
        prepared.overlay("include/llama-nextn.h", "// new\n")
        prepared.ok("prepare")
        prepared.overlay("include/llama-nextn.h", "// ours\nint nextn();\n")
        prepared.ok("prepare")
    assert_whole(prepared, "// ours\nint nextn();\n")
    assert not (prepared.source / ".git" / "rebase-apply").exists()


def test_a_damaged_pristine_repository_is_imported_again(prepared: Project) -> None:
    shutil.rmtree(prepared.version_cache / "pristine" / "objects")
    prepared.overlay("include/llama-nextn.h", "// new\n")
    assert "Connect to a package index" in prepared.fails("prepare")
    prepared.ok("prepare", NEXTN_LLAMA_ARCHIVE=str(prepared.archive))
    assert_whole(prepared, "// new\n")


@pytest.mark.parametrize("command", ["fast-import", "fetch", "checkout"])
def test_a_full_disk_is_named(project: Project, tmp_path: Path, command: str) -> None:
    """Git complains about every file; we say it once."""
    (tmp_path / "bin").mkdir()
    noise = "for n in 1 2 3 4 5 6; do echo error: unable to write file $n >&2; done"
    fatal = "echo fatal: write error. Out of diskspace >&2; exit 128"
    script = f'#!/bin/sh\ncase " $* " in *" {command} "*) {noise}; {fatal};; esac\nexec {shutil.which("git")} "$@"\n'
    (tmp_path / "bin" / "git").write_text(script)
    (tmp_path / "bin" / "git").chmod(0o755)
    message = project.fails("prepare", PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    assert message == (
        f"cannot use the cache {project.version_cache}: No space left on device; "
        "the disk is full: free about 400 MB, or set NEXTN_CACHE_DIR to a folder with room"
    )
    assert not project.stamp_file.exists()
    project.ok("prepare")
    assert_whole(project, "// ours\nint nextn();\n")


def test_a_full_disk_leaves_nothing_trusted(project: Project) -> None:
    """A limit on the size of files stops git in the middle of a file, as a full disk does."""
    command = ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *project.command("prepare")]
    done = subprocess.run(command, env=project.environment(), capture_output=True, text=True, check=False)
    the_message(Done(done.returncode, done.stdout, done.stderr))
    assert not project.stamp_file.exists()
    project.ok("prepare")
    assert_whole(project, "// ours\nint nextn();\n")
