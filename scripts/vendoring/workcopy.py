"""Working copies of the fork: one commit per patch on top of the pinned tree, for people to change.

The cache's own tree is one as well. A working copy remembers the state of vendor/llama.cpp it was last in step with
(`nextn-base.json` in its git directory), so that an export can tell what was changed behind its back.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from vendoring.archive import PRISTINE
from vendoring.build import AM_OPTIONS, PatchError, build_chain, scratch_repository
from vendoring.cache import Cache
from vendoring.layout import STAMP_HEADER, Fork, State, read_state, stamp_header, write_if_changed
from vendoring.pin import Pin
from vendoring.run import Git, VendorError, say

BASE_FILE = "nextn-base.json"
BRANCH = "nextn"

REPAIR = """the working copy {tree} stopped at it. Next:
  1. cd {tree}, resolve the conflict (git status names the files), git add them
  2. git am --continue, and so on until it says no more
  3. {finish}"""


class ConflictError(VendorError):
    """A working copy stopped at a patch and waits for a person."""


def git_path(git: Git, name: str) -> Path:
    """A file of the repository, wherever git keeps it."""
    return git.directory / git.text("rev-parse", "--git-path", name)


def object_folders(git: Git) -> list[Path]:
    """The object folder of a repository and those it borrows from (git follows relative names one step only)."""
    own = git_path(git, "objects").resolve()
    links = own / "info" / "alternates"
    borrowed = links.read_text(encoding="utf-8").splitlines() if links.is_file() else []
    return [own, *((own / line).resolve() for line in borrowed if line and not line.startswith("#"))]


def root_problem(git: Git, pin: Pin) -> str:
    """Why a directory is no working copy of the pinned tree; empty when it is one."""
    if not git.directory.is_dir():
        return "is not a directory"
    top = git.try_run("rev-parse", "--show-toplevel")
    if top.returncode != 0 or Path(top.stdout.decode().rstrip("\n")).resolve() != git.directory.resolve():
        return "is not the top of a git working copy"
    roots = git.try_run("log", "--max-parents=0", "--format=%T", "HEAD").stdout.decode().split()
    if roots != [pin.tree]:
        found = ", ".join(roots) or "no commit"
        return (
            f"is not the pinned llama.cpp {pin.commit} ({pin.requirement}): "
            f"its first commit should hold tree {pin.tree}, found {found}"
        )
    return ""


def fingerprint(files: Mapping[str, bytes]) -> dict[str, str]:
    """Hash of each file."""
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


def write_base(git: Git, files: Mapping[str, bytes]) -> None:
    """Remember what the project's folder holds now."""
    write_if_changed(git_path(git, BASE_FILE), json.dumps(fingerprint(files), indent=0).encode())


def read_base(git: Git) -> dict[str, str]:
    """What the project's folder held when this copy was last in step with it."""
    try:
        data = json.loads(git_path(git, BASE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(path): str(digest) for path, digest in data.items()} if isinstance(data, dict) else {}


def make_working_copy(fork: Fork, dest: Path) -> Path:
    """Make a standalone working copy of the current state for development.

    Args:
        fork: the project's folder.
        dest: where; must not exist, or be empty.

    Raises:
        ConflictError: a patch does not apply. The copy is there, stopped at that patch.
    """
    state = read_state(fork)
    cache = Cache.of(state.pin)
    with cache.locked():
        pristine = cache.require_pristine(state.pin)
    with new_working_copy(fork, dest, cache, pristine) as git:
        report = fill_working_copy(git, pristine, state, finish=f"scripts/vendor.py export {dest}")
        write_if_changed(dest / STAMP_HEADER, stamp_header(state.stamp))
    for line in report:
        say(line)
    say(f"made the working copy {dest} (branch {BRANCH}); build it with NEXTN_LLAMA_SOURCE={dest}")
    return dest


@contextmanager
def new_working_copy(fork: Fork, dest: Path, cache: Cache, pristine: str) -> Iterator[Git]:
    """A repository that holds the pristine commit. It stays when the block succeeds, or stops at a conflict."""
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise VendorError(f"{dest} exists and is not empty; remove it, or name a new directory")
    dest.mkdir(parents=True, exist_ok=True)
    git = Git(dest)
    try:
        git.run("init", "--quiet", "--template=")
        for setting in ("core.autocrlf=false", "am.keepcr=true", "am.threeWay=true"):
            git.run("config", *setting.split("="))
        # git would not fetch from another user's cache
        shutil.copytree(cache.pristine / "objects", dest / ".git" / "objects", dirs_exist_ok=True)
        git.run("update-ref", PRISTINE, pristine)
        write_if_changed(dest / ".git" / "info" / "exclude", f"/{STAMP_HEADER}\n".encode())
        write_base(git, fork.files())
        yield git
    except ConflictError:
        raise
    except BaseException:
        shutil.rmtree(dest, ignore_errors=True)
        raise


def fill_working_copy(git: Git, pristine: str, state: State, *, finish: str) -> list[str]:
    """Check the state's commits out on a branch; where a patch does not apply, try a 3-way merge, then stop.

    Args:
        git: a repository that has the pristine commit.
        pristine: that commit.
        state: what to build.
        finish: the last step of the advice in case of a conflict.

    Returns:
        One line per patch that needed a 3-way merge.

    Raises:
        ConflictError: `git am` is left in progress.
    """
    report: list[str] = []
    with scratch_repository(object_folders(git)) as scratch:
        try:
            build_chain(scratch, pristine, state)
            failed = len(state.patches)
        except PatchError as error:
            failed = error.index
        git.run("fetch", "--quiet", "--no-tags", scratch.directory, f"+HEAD:refs/heads/{BRANCH}", "--update-head-ok")
    git.run("checkout", "--quiet", "--force", BRANCH)
    for index in range(failed, len(state.patches)):
        name, content = state.patches[index]
        if apply_mail(git, content, "--no-3way"):
            continue
        if not apply_mail(git, content, "--3way"):
            apply_rest(git, state.patches[index:])
            raise ConflictError(f"patches/{name} does not apply; " + REPAIR.format(tree=git.directory, finish=finish))
        report.append(f"patches/{name} applies with a 3-way merge")
    return report


def apply_mail(git: Git, content: bytes, way: str) -> bool:
    """Apply one patch, or nothing of it."""
    applied = git.try_run("am", *AM_OPTIONS, way, stdin=content).returncode == 0
    if not applied:
        git.try_run("am", "--abort")
    return applied


def apply_rest(git: Git, patches: tuple[tuple[str, bytes], ...]) -> None:
    """Start one `git am` over several patches and leave it at its first conflict."""
    folder = Path(tempfile.mkdtemp(prefix="patches-"))
    try:
        for name, content in patches:
            (folder / name).write_bytes(content)
        git.try_run("am", *AM_OPTIONS, "--3way", *(folder / name for name, _ in patches))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
