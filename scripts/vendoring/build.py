"""Put a prepared tree together: the pristine commit, one commit for the overlay, one commit per patch."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from vendoring.layout import OverlayFile, State
from vendoring.patchfile import parse_patch
from vendoring.run import Git, VendorError, git_words

OVERLAY_SUBJECT = "nextn: overlay"

AM_OPTIONS = (
    "--quiet",
    "--keep-cr",
    "--keep-non-patch",
    "--no-gpg-sign",
    "--committer-date-is-author-date",  # with a fixed committer this makes commit ids the same everywhere
    "--whitespace=nowarn",
    "--patch-format=mbox",
)


class PatchError(VendorError):
    """A patch of the series does not apply.

    Attributes:
        index: its place in the series, from 0. The repository is left at the commit before it.
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


@contextmanager
def scratch_repository(objects: Iterable[Path], workdir: Path | None = None) -> Iterator[Git]:
    """A repository that sees the objects of others and is thrown away: nothing is changed in theirs.

    Args:
        objects: object folders to borrow from.
        workdir: where to make it; the system's folder for temporary files without.
    """
    folder = Path(tempfile.mkdtemp(prefix="scratch-", dir=workdir))
    try:
        git = Git(folder)
        git.run("init", "--quiet", "--template=")
        info = folder / ".git" / "objects" / "info"
        info.mkdir(exist_ok=True)
        (info / "alternates").write_text("".join(f"{path.resolve()}\n" for path in objects))
        yield git
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def build_chain(git: Git, pristine: str, state: State) -> str:
    """Build the commits of a state on top of the pristine one and return the last, which becomes HEAD.

    git's index is filled from the pristine commit but no file is checked out: `git am` fetches the few that a patch
    touches. That makes a build a matter of milliseconds, and nobody else's files are in the way.

    Raises:
        VendorError: an overlay file would overwrite an upstream file.
        PatchError: a patch does not apply.
    """
    commit = commit_overlay(git, pristine, state.overlay)
    git.run("update-ref", "--no-deref", "HEAD", commit)
    git.run("read-tree", "HEAD")
    for index, (name, content) in enumerate(state.patches):
        apply_patch(git, index, name, content)
    return git.text("rev-parse", "HEAD")


def commit_overlay(git: Git, pristine: str, overlay: Iterable[OverlayFile]) -> str:
    """Commit the overlay on top of the pristine tree. Without own files there is no commit."""
    overlay = tuple(overlay)
    if not overlay:
        return pristine
    for problem in collisions(upstream_paths(git, pristine), overlay):
        raise VendorError(problem)
    git.run("read-tree", pristine)
    add_to_index(git, overlay)
    return git.text("commit-tree", git.text("write-tree"), "-p", pristine, "-m", OVERLAY_SUBJECT)


def add_to_index(git: Git, files: Iterable[OverlayFile]) -> None:
    """Put files into git's index without a copy on disk, so that no ignore rule or filter has a say."""
    entries = []
    for file in files:
        blob = git.text("hash-object", "-w", "--stdin", "--no-filters", stdin=file.content)
        entries.append(f"{file.mode} {blob}\t{file.path}\0")
    git.run("update-index", "-z", "--index-info", stdin="".join(entries).encode("utf-8", "surrogateescape"))


def upstream_paths(git: Git, pristine: str) -> set[str]:
    """Paths of all files of the pristine tree."""
    return set(git.lines("ls-tree", "-r", "-z", "--name-only", pristine))


def collisions(upstream: set[str], overlay: Iterable[OverlayFile]) -> Iterator[str]:
    """One line per overlay file that would overwrite, or stand in the way of, an upstream file."""
    folders = {parent.as_posix() for path in upstream for parent in PurePosixPath(path).parents}
    for file in overlay:
        parents = {parent.as_posix() for parent in PurePosixPath(file.path).parents}
        if file.path in upstream or file.path in folders or parents & upstream:
            yield (
                f"overlay/{file.path} would overwrite an upstream file; "
                "give our file another name, and change upstream's through a patch"
            )


def apply_patch(git: Git, index: int, name: str, content: bytes) -> None:
    """Apply one patch with git am: exact context, no fuzz, no merge."""
    done = git.try_run("am", *AM_OPTIONS, "--no-3way", stdin=content)
    if done.returncode == 0:
        return
    git.try_run("am", "--abort")
    reason = failed_hunk(done.stderr.decode("utf-8", "replace"), content) or git_words(done)
    raise PatchError(
        f"patches/{name} does not apply: {reason}. To repair it, `scripts/vendor.py prepare --dest DIR` makes a "
        "working copy that stops at this patch and says how to go on",
        index,
    )


def failed_hunk(words: str, content: bytes) -> str:
    """Name the file and the hunk that git could not place; empty when git failed for another reason."""
    if match := re.search(r"^error: patch failed: (.+):(\d+)$", words, re.MULTILINE):
        hunks = [hunk for hunk in parse_patch("", content).hunks if hunk.path == match[1]]
        for hunk in hunks:
            if hunk.line == int(match[2]):
                return f"{hunk.path}, hunk {hunk.number} of {len(hunks)} (line {hunk.line}), does not match the file"
        return f"{match[1]}, the hunk at line {match[2]}, does not match the file"
    if match := re.search(r"^error: (.+): does not exist in index$", words, re.MULTILINE):
        return f"{match[1]} does not exist in llama.cpp"
    return ""
