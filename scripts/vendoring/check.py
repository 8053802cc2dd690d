"""Prove that pin, overlay and series are in order. Each problem is one line."""

from __future__ import annotations

import re
from collections.abc import Iterator

from vendoring.build import (
    PatchError,
    build_chain,
    collisions,
    commit_overlay,
    scratch_repository,
    upstream_paths,
)
from vendoring.cache import Cache
from vendoring.export import render
from vendoring.layout import Fork, OverlayFile, State, read_state
from vendoring.patchfile import Patch, parse_patch
from vendoring.run import Git, VendorError

MAX_PATCH = 60
MAX_QUEUE = 400
MAX_SIMILAR = 50  # percent of a file, as git counts it
MIN_COMPARED = 500  # bytes; anything shorter is like something else

PLAIN_FILES = ("UPSTREAM.toml", "series", "LICENSE", ".gitattributes", ".clang-format")
LABELS = ("Why", "Drop when", "Test")


def check(fork: Fork) -> list[str]:
    """Look for everything that is wrong; an empty list means that all is well.

    Raises:
        VendorError: the pin cannot be read, or the pinned archive cannot be had or is not the pinned one.
    """
    problems = [*folder_problems(fork), *series_problems(fork)]
    patches = [parse_patch(name, fork.patch(name)) for name in listed_patches(fork)]
    for patch in patches:
        problems += patch_problems(fork, patch)
    total = sum(patch.changed for patch in patches)
    if total > MAX_QUEUE:
        problems.append(f"series: {total} changed lines, at most {MAX_QUEUE} are allowed; move code to the overlay")
    pin = fork.pin()
    cache = Cache.of(pin)
    with cache.locked():
        pristine = cache.require_pristine(pin)
    upstream = upstream_paths(Git(cache.pristine), pristine)
    own = fork.overlay_files()
    colliding = list(collisions(upstream, own))
    problems += colliding
    for patch in patches:
        problems += [
            f"patches/{patch.name} touches {path}, which is a file of ours; new files belong into overlay/"
            for path in patch.files
            if path not in upstream
        ]
    if not colliding:
        problems += copy_problems(cache, pristine, own)
    if not colliding and not any(problem.startswith("series:") for problem in problems):
        problems += export_problems(cache, pristine, read_state(fork), fork.series_file.read_bytes())
    return problems


def listed_patches(fork: Fork) -> list[str]:
    """The names of the series that exist, each once."""
    return [name for name in dict.fromkeys(fork.series()) if (fork.patches / name).is_file()]


def folder_problems(fork: Fork) -> Iterator[str]:
    """Files in vendor/llama.cpp that nothing refers to."""
    for path in sorted(fork.folder.iterdir()):
        if path.is_dir() and path.name not in ("patches", "overlay"):
            yield f"{path.name}/ is unknown: only patches/ and overlay/ belong here"
        elif path.is_file() and path.name not in PLAIN_FILES and path.suffix != ".md":
            yield f"{path.name} is unknown: nothing refers to it"


def series_problems(fork: Fork) -> Iterator[str]:
    """Series and patches/ must name the same files, each once."""
    names = fork.series()
    present = [path.relative_to(fork.patches).as_posix() for path in sorted(fork.patches.rglob("*")) if path.is_file()]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"series: {name} is listed twice"
    for name in dict.fromkeys(names):
        if name not in present:
            yield f"series: {name} is listed, but patches/ holds no such file"
    for name in present:
        if name not in names:
            yield f"patches/{name} is not in the series"


def patch_problems(fork: Fork, patch: Patch) -> Iterator[str]:
    """What a patch must say about itself, and how large it may be."""
    for label in LABELS:
        if not patch.labeled(label):
            yield f"patches/{patch.name}: its message has no line `{label}: ...`"
    for test in re.split(r"[,\s]+", patch.labeled("Test").rstrip(".")):
        path = test.partition("::")[0]
        if path and not (fork.root / path).is_file():
            yield f"patches/{patch.name}: its test {path} does not exist"
    if patch.changed > MAX_PATCH:
        yield (
            f"patches/{patch.name}: {patch.changed} changed lines, at most {MAX_PATCH} are allowed; "
            "move code to the overlay"
        )
    if not patch.hunks:
        yield f"patches/{patch.name} changes nothing"


def copy_problems(cache: Cache, pristine: str, own: list[OverlayFile]) -> Iterator[str]:
    """No file of ours may be a copy of one of upstream's: the repository holds none of its code."""
    with scratch_repository([cache.pristine / "objects"]) as scratch:
        commit = commit_overlay(scratch, pristine, [file for file in own if len(file.content) >= MIN_COMPARED])
        options = ("--raw", "-z", f"--find-copies={MAX_SIMILAR}%", "--find-copies-harder", "-l0", "--diff-filter=CR")
        fields = scratch.lines("diff-tree", "-r", *options, pristine, commit)
    for status, source, path in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
        yield f"overlay/{path} is {int(status[-3:])} % the same as upstream's {source}; change that one through a patch"


def export_problems(cache: Cache, pristine: str, state: State, series: bytes) -> Iterator[str]:
    """The series must apply exactly, and exporting the result must give the same files, byte for byte."""
    with scratch_repository([cache.pristine / "objects"]) as scratch:
        try:
            again = render(scratch, state.pin, pristine, build_chain(scratch, pristine, state))
        except PatchError as error:
            yield str(error)
            return
        except VendorError as error:
            yield f"series: {error}"
            return
    new = dict(again.patches)
    names = [name for name, _ in state.patches]
    for name, content in state.patches:
        if name not in new:
            yield f"patches/{name} is not what an export writes: it would be named {', '.join(set(new) - set(names))}"
        elif new[name] != content:
            yield f"patches/{name} is not what an export writes: {first_difference(content, new[name])}"
    if series != again.files()["series"] and list(new) == names:
        yield "series is not what an export writes: one name per line and nothing else"
    if again.overlay != state.overlay:
        yield "overlay/ is not what an export writes: do patches change its files?"


def first_difference(old: bytes, new: bytes) -> str:
    """Name the first line in which two texts differ."""
    before, after = old.decode("utf-8", "replace").splitlines(), new.decode("utf-8", "replace").splitlines()
    for number, (left, right) in enumerate(zip(before, after, strict=False), start=1):
        if left != right:
            return f"line {number} is {left!r}, should be {right!r}"
    return f"it has {len(before)} lines, should have {len(after)}"
