"""Put a prepared tree together: the pristine commit, one commit for the overlay, one commit per patch."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vendoring.archive import PRISTINE
from vendoring.layout import OverlayFile, State
from vendoring.run import Git, VendorError, git_words

OVERLAY_SUBJECT = "nextn: overlay"


@contextmanager
def scratch_repository(workdir: Path, objects: Iterable[Path]) -> Iterator[Git]:
    """A repository that sees the objects of others and is thrown away: nothing is changed in theirs.

    Args:
        workdir: a folder of ours.
        objects: git directories to borrow from.
    """
    folder = Path(tempfile.mkdtemp(prefix="scratch-", dir=workdir))
    try:
        git = Git(folder)
        git.run("init", "--quiet", "--template=")
        info = folder / ".git" / "objects" / "info"
        info.mkdir(exist_ok=True)
        (info / "alternates").write_text("".join(f"{path.resolve() / 'objects'}\n" for path in objects))
        yield git
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build_chain(git: Git, pristine: str, state: State) -> str:
    """Build the commits of a state on top of the pristine one and return the last.

    git's index is filled from the pristine commit but no file is checked out: `git am` fetches the few that a patch
    touches. That makes a build a matter of milliseconds, and nobody else's files are in the way.

    Raises:
        VendorError: an overlay file would overwrite an upstream file, or a patch does not apply.
    """
    commit = commit_overlay(git, pristine, state.overlay)
    git.run("update-ref", "--no-deref", "HEAD", commit)
    git.run("read-tree", "HEAD")
    for name, content in state.patches:
        apply_patch(git, name, content)
    return git.text("rev-parse", "HEAD")


def commit_overlay(git: Git, pristine: str, overlay: Iterable[OverlayFile]) -> str:
    """Commit the overlay on top of the pristine tree. Without own files there is no commit."""
    overlay = list(overlay)
    if not overlay:
        return pristine
    refuse_collisions(upstream_paths(git, pristine), overlay)
    git.run("read-tree", pristine)
    entries = []
    for file in overlay:
        blob = git.text("hash-object", "-w", "--stdin", "--no-filters", stdin=file.content)
        entries.append(f"{file.mode} {blob}\t{file.path}\0")
    git.run("update-index", "-z", "--add", "--index-info", stdin="".join(entries).encode("utf-8", "surrogateescape"))
    tree = git.text("write-tree")
    return git.text("commit-tree", tree, "-p", pristine, "-m", OVERLAY_SUBJECT)


def upstream_paths(git: Git, pristine: str) -> set[str]:
    """Paths of all files of the pristine tree."""
    return set(git.lines("ls-tree", "-r", "-z", "--name-only", pristine))


def refuse_collisions(upstream: set[str], overlay: Iterable[OverlayFile]) -> None:
    """An overlay file may only be new."""
    for problem in collisions(upstream, overlay):
        raise VendorError(problem)


def collisions(upstream: set[str], overlay: Iterable[OverlayFile]) -> Iterator[str]:
    """One line per overlay file that would overwrite, or stand in the way of, an upstream file."""
    folders = {parent.as_posix() for path in upstream for parent in Path(path).parents}
    for file in overlay:
        parents = {parent.as_posix() for parent in Path(file.path).parents}
        if file.path in upstream or file.path in folders or parents & upstream:
            yield (
                f"overlay/{file.path} would overwrite an upstream file; "
                "give our file another name, and change upstream's through a patch"
            )


def apply_patch(git: Git, name: str, content: bytes) -> None:
    """Apply one patch with git am: exact context, no fuzz."""
    options = ("--quiet", "--keep-cr", "--keep-non-patch", "--no-3way", "--no-gpg-sign", "--committer-date-is-author-date")
    done = git.try_run("am", *options, "--whitespace=nowarn", "--patch-format=mbox", stdin=content)
    if done.returncode != 0:
        git.try_run("am", "--abort")
        raise VendorError(
            f"patches/{name} does not apply: {failed_hunk(done.stderr.decode('utf-8', 'replace'), content) or git_words(done)}. "
            "Nothing was changed. To repair it: `scripts/vendor.py prepare --dest DIR` makes a working copy that stops "
            "at this patch; resolve it there, `git am --continue`, then `scripts/vendor.py export DIR`"
        )


@dataclass(frozen=True)
class Hunk:
    """Where a hunk of a patch begins: its number in the file's part of the patch, counted from 1."""

    path: str
    number: int
    total: int
    line: int


def hunks_of(content: bytes) -> list[Hunk]:
    """The hunks of a patch, in order."""
    starts: dict[str, list[int]] = {}
    path = ""
    for line in content.decode("utf-8", "replace").splitlines():
        if line.startswith("diff --git "):
            path = line.rpartition(" b/")[2]
        elif match := re.match(r"@@ -(\d+)", line):
            starts.setdefault(path, []).append(int(match[1]))
    return [
        Hunk(path, number, len(lines), line)
        for path, lines in starts.items()
        for number, line in enumerate(lines, start=1)
    ]


def failed_hunk(words: str, content: bytes) -> str:
    """Name the file and the hunk that git could not place; empty when git failed for another reason."""
    if match := re.search(r"^error: patch failed: (.+):(\d+)$", words, re.MULTILINE):
        for hunk in hunks_of(content):
            if hunk.path == match[1] and hunk.line == int(match[2]):
                return f"{hunk.path}, hunk {hunk.number} of {hunk.total} (line {hunk.line}), does not match the file"
        return f"{match[1]}, the hunk at line {match[2]}, does not match the file"
    if match := re.search(r"^error: (.+): does not exist in index$", words, re.MULTILINE):
        return f"{match[1]} does not exist in llama.cpp"
    return ""


__all__ = ["PRISTINE", "apply_patch", "build_chain", "collisions", "hunks_of", "scratch_repository", "upstream_paths"]
