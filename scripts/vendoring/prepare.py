"""Bring the cache's tree to the state that pin, overlay and series describe."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vendoring.build import build_chain, scratch_repository
from vendoring.cache import Cache, Tree
from vendoring.layout import STAMP_HEADER, Fork, State, read_state, stamp_header, write_if_changed
from vendoring.run import Git, VendorError, say
from vendoring.workcopy import object_folders, write_base


@dataclass(frozen=True)
class Prepared:
    """What a stamp file says: the state, and the commit that holds it."""

    stamp: str
    commit: str


def read_prepared(path: Path) -> Prepared | None:
    """Read a stamp file; None when there is none, or none that can be trusted."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Prepared(stamp=data["stamp"], commit=data["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def prepare(fork: Fork, *, discard: bool = False) -> Path:
    """Make the cache's tree hold the project's fork and return its path.

    Args:
        fork: the project's folder.
        discard: throw away changes made by hand in the cache's tree.
    """
    state = read_state(fork)
    cache = Cache.of(state.pin)
    tree = cache.tree(fork.root)
    if discard or not is_ready(tree, state):
        with cache.locked():
            cache.remove_abandoned_trees()
            tree.remove_locks()
            if discard or not is_ready(tree, state):
                rebuild(cache, tree, state, discard=discard)
    with suppress(OSError):  # a cache that can only be read is as good
        tree.note_use()
    write_base(Git(tree.source), state.files())
    return tree.source


def is_ready(tree: Tree, state: State) -> bool:
    """Whether the tree holds this state. Needs no lock: the stamp is absent whenever the tree is being changed."""
    prepared = read_prepared(tree.stamp_file)
    if prepared is None or prepared.stamp != state.stamp or not (tree.source / STAMP_HEADER).is_file():
        return False
    changed = changes(tree.source, prepared.commit)
    if changed is None or any(line.startswith((" D", "D ")) for line in changed):
        return False
    if changed:
        say(f"{tree.source} was changed by hand ({summary(changed)}); it is used as it is")
    return True


def changes(tree: Path, commit: str) -> list[str] | None:
    """How a tree differs from the commit it was prepared with; None when that cannot be told."""
    if not (tree / ".git" / "index").is_file():
        return None
    git = Git(tree)
    status = git.try_run("status", "--porcelain", "-z", "--no-renames")
    head = git.try_run("rev-parse", "--verify", "--quiet", "HEAD")
    if status.returncode != 0 or head.returncode != 0:
        return None
    lines = [line for line in status.stdout.decode("utf-8", "surrogateescape").split("\0") if line]
    if head.stdout.decode().strip() != commit:
        lines.append("C  commits of its own")
    return lines


def summary(changed: list[str]) -> str:
    """The first few changes, for a message."""
    names = [line[3:] for line in changed]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def rebuild(cache: Cache, tree: Tree, state: State, *, discard: bool) -> None:
    """Build the state aside, then move the tree to it. Only files that differ are written."""
    pristine = cache.require_pristine(state.pin)
    with scratch_repository([cache.pristine / "objects"], cache.folder) as scratch:
        commit = build_chain(scratch, pristine, state)
        prepared = read_prepared(tree.stamp_file)
        if prepared is not None and not discard:
            refuse_to_lose_work(tree, prepared, scratch, commit)
        tree.note_use()
        tree.stamp_file.unlink(missing_ok=True)
        switch(cache, tree, scratch, commit)
    write_if_changed(tree.source / STAMP_HEADER, stamp_header(state.stamp))
    write_if_changed(tree.stamp_file, json.dumps({"stamp": state.stamp, "commit": commit}).encode() + b"\n")
    say(f"prepared {tree.source} (stamp {state.stamp}, {len(state.overlay)} own files, {len(state.patches)} patches)")


def refuse_to_lose_work(tree: Tree, prepared: Prepared, scratch: Git, commit: str) -> None:
    """Stop when the tree holds changes made by hand that the new state does not hold."""
    changed = changes(tree.source, prepared.commit)
    if not changed or all(line.startswith((" D", "D ")) for line in changed):
        return
    if all(line.startswith("C ") for line in changed):
        new_tree = scratch.text("rev-parse", f"{commit}^{{tree}}")
        if Git(tree.source).text("rev-parse", "HEAD^{tree}") == new_tree:
            return
    raise VendorError(
        f"{tree.source} was changed by hand ({summary(changed)}) and vendor/llama.cpp has changed too; "
        "commit the changes there and run `scripts/vendor.py export`, "
        "or throw them away with `scripts/vendor.py prepare --discard`"
    )


def switch(cache: Cache, tree: Tree, scratch: Git, commit: str) -> None:
    """Check a commit of the scratch repository out in the cache's tree; a damaged tree is made anew."""
    if is_sound_repository(cache, tree):
        try:
            move(tree, scratch, commit)
            return
        except VendorError as error:
            say(f"making {tree.source} anew: {error}")
    shutil.rmtree(tree.source, ignore_errors=True)
    tree.source.mkdir()
    Git(tree.source).run("init", "--quiet", "--template=")
    objects = os.path.relpath(cache.pristine / "objects", tree.source / ".git" / "objects")
    link = f"{objects}\n"  # relative, so that the cache can be moved
    write_if_changed(tree.source / ".git" / "objects" / "info" / "alternates", link.encode())
    move(tree, scratch, commit)


def move(tree: Tree, scratch: Git, commit: str) -> None:
    """Check a commit out, writing only files that differ, and remove files that do not belong to it."""
    git = Git(tree.source)
    git.run("fetch", "--quiet", "--no-tags", scratch.directory, "+HEAD:refs/nextn/prepared")
    write_if_changed(tree.source / ".git" / "info" / "exclude", f"/{STAMP_HEADER}\n".encode())
    git.try_run("am", "--quit")
    git.try_run("update-index", "-q", "--refresh")  # files that only look touched are not written again
    git.run("checkout", "--quiet", "--force", "--detach", commit)
    git.run("clean", "--quiet", "--force", "-d")


def is_sound_repository(cache: Cache, tree: Tree) -> bool:
    """Whether the tree's repository can be used: it is one of its own and sees the pristine objects."""
    git = Git(tree.source)
    if not (tree.source / ".git").is_dir():
        return False
    top = git.try_run("rev-parse", "--show-toplevel")
    if top.returncode != 0 or Path(top.stdout.decode().rstrip("\n")).resolve() != tree.source.resolve():
        return False
    return (cache.pristine / "objects").resolve() in object_folders(git)
