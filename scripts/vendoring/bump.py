"""Move the pin to another version of the package: see what of the series applies, repair the rest, write it back."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

from vendoring.archive import fetched_archive, file_sha256, import_archive
from vendoring.build import build_chain, scratch_repository
from vendoring.cache import Cache
from vendoring.export import export
from vendoring.layout import Fork, read_state, write_if_changed
from vendoring.pin import Pin, format_pin, pin_for_version, read_pin
from vendoring.run import VendorError, say
from vendoring.workcopy import fill_working_copy, git_path, new_working_copy

PIN_FILE = "nextn-upstream.toml"


def bump(fork: Fork, version: str, *, archive: Path | None = None, dest: Path | None = None) -> list[str]:
    """Bring the series to another version.

    The pin changes only when every patch applies; otherwise a working copy is left for repairs, and `finish_bump`
    takes it from there.

    Args:
        fork: the project's folder.
        version: the package's version.
        archive: a copy of its source distribution, instead of a download.
        dest: where to make the working copy; a folder in the cache by default.

    Returns:
        What was done, line by line.

    Raises:
        VendorError: the version cannot be had, an overlay file collides with a new upstream file, a patch conflicts.
    """
    state = read_state(fork)
    old = Cache.of(state.pin)
    with old.locked():
        old_pristine = old.require_pristine(state.pin)
    pin, pristine = fetch_version(state.pin, version, archive)
    cache = Cache.of(pin)
    dest = dest or cache.folder / "bump"
    with scratch_repository([old.pristine / "objects"]) as before:
        build_chain(before, old_pristine, state)
        with new_working_copy(fork, dest, cache, pristine) as tree:
            tree.run("fetch", "--quiet", "--no-tags", before.directory, "HEAD:refs/nextn/before")  # for 3-way merges
            write_if_changed(git_path(tree, PIN_FILE), format_pin(pin).encode())
            finish = f"scripts/vendor.py bump {version} --finish {dest}"
            report = fill_working_copy(tree, pristine, replace(state, pin=pin), finish=finish)
    return [*report, *finish_bump(fork, version, dest)]


def fetch_version(old: Pin, version: str, archive: Path | None) -> tuple[Pin, str]:
    """Get a version, store its tree in the cache, and work its pin out. Returns the pin and the pristine commit."""
    pin = pin_for_version(old, version)
    cache = Cache.of(pin)
    with cache.locked():
        aside = cache.folder / f"import-{os.getpid()}"
        try:
            with fetched_archive(pin, cache.folder, archive) as path:
                say(f"importing llama.cpp from {path.name}")
                pin = replace(pin, sha256=file_sha256(path), commit=upstream_commit(path, pin))
                pin = replace(pin, tree=import_archive(path, pin, aside))
            if cache.pristine_commit(pin) is None:
                cache.adopt(aside)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return pin, cache.require_pristine(pin)


def upstream_commit(archive: Path, pin: Pin) -> str:
    """The llama.cpp commit that the package's change log names for its newest version."""
    name = f"{pin.archive.removesuffix('.tar.gz')}/CHANGELOG.md"
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                if member.name == name and (file := tar.extractfile(member)) is not None:
                    section = file.read().decode("utf-8", "replace").partition(f"[{pin.version}]")[2]
                    found = re.search(r"llama\.cpp@([0-9a-f]{7,40})", section.partition("\n## ")[0])
                    return found[1] if found else "unknown"
    except tarfile.TarError as error:
        raise VendorError(f"{archive.name} is damaged: {error}") from error
    return "unknown"


def finish_bump(fork: Fork, version: str, tree: Path) -> list[str]:
    """Write patches, overlay and pin from a working copy in which every patch applies."""
    pin_file = tree / ".git" / PIN_FILE
    if not pin_file.is_file():
        raise VendorError(f"{tree} is not the working copy of a bump; begin with `scripts/vendor.py bump {version}`")
    pin = read_pin(pin_file)
    if pin.version != version:
        raise VendorError(f"{tree} is the working copy of a bump to {pin.version}, not to {version}")
    changes = export(fork, tree, pin=pin)
    if write_if_changed(fork.pin_file, format_pin(pin).encode()):
        changes.append("changed UPSTREAM.toml")
    return [*changes, f"the pin is now {pin.requirement} (llama.cpp {pin.commit}); build and test before committing"]
