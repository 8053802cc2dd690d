"""The user cache: where prepared trees live, and the lock that lets one call at a time change them.

<cache>/llama.cpp-<version>/
    lock        taken while anything here changes
    pristine/   bare repository with the one commit of the pinned folder; never changed once it is there
    trees/<name>-<hash>/    of one project folder, so that two clones do not disturb each other's builds
        src/        the prepared tree: a repository of its own that borrows pristine's objects
        stamp       what src holds, written last and removed first
        owner       the project folder; its time is that of the last use
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vendoring.archive import PRISTINE, archive_of_environment, fetched_archive, import_archive
from vendoring.layout import write_if_changed
from vendoring.pin import Pin
from vendoring.run import Git, VendorError, inherited_fds, say

SECONDS_KEPT = 24 * 3600


def cache_root() -> Path:
    """NEXTN_CACHE_DIR, or the folder `nextn` in the user's cache."""
    if own := os.environ.get("NEXTN_CACHE_DIR"):
        return Path(own).absolute()
    user = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(user) if os.path.isabs(user) else Path.home() / ".cache") / "nextn"


@dataclass(frozen=True)
class Tree:
    """The prepared tree of one project folder.

    Its path does not change with what it holds: builds stay incremental.
    """

    folder: Path
    root: Path

    @property
    def source(self) -> Path:
        """The tree."""
        return self.folder / "src"

    @property
    def stamp_file(self) -> Path:
        """Says what the tree holds."""
        return self.folder / "stamp"

    @property
    def owner_file(self) -> Path:
        """Says whose it is."""
        return self.folder / "owner"

    def remove_locks(self) -> None:
        """Remove git's locks, which a call that was killed left behind; the cache's lock must be held."""
        for path in (self.source / ".git").rglob("*.lock"):
            path.unlink(missing_ok=True)

    def note_use(self) -> None:
        """Say whose it is, and that it is in use."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_if_changed(self.owner_file, os.fsencode(self.root))
        os.utime(self.owner_file)

    @property
    def is_abandoned(self) -> bool:
        """Whether its project folder is gone, and not since a moment ago: a container may see other folders."""
        try:
            unused = time.time() - self.owner_file.stat().st_mtime
            return unused > SECONDS_KEPT and not Path(os.fsdecode(self.owner_file.read_bytes())).is_dir()
        except FileNotFoundError:
            return False


@dataclass(frozen=True)
class Cache:
    """The part of the cache that belongs to one version."""

    folder: Path

    @classmethod
    def of(cls, pin: Pin) -> Cache:
        """The cache of a pin's version."""
        return cls(cache_root() / f"llama.cpp-{pin.version}")

    @property
    def pristine(self) -> Path:
        """The bare repository."""
        return self.folder / "pristine"

    def tree(self, root: Path) -> Tree:
        """The tree of a project folder."""
        root = root.resolve()
        name = re.sub(r"[^\w.-]+", "-", root.name)[:40]
        return Tree(self.folder / "trees" / f"{name}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:12]}", root)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock; say so when another call has it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise cache_error(self.folder, error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say(f"waiting for another call that is at work in {self.folder}")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            inherited_fds.add(descriptor)
            self.remove_leftovers()
            yield
        except OSError as error:
            raise cache_error(self.folder, error) from error
        finally:
            inherited_fds.discard(descriptor)
            os.close(descriptor)

    def remove_leftovers(self) -> None:
        """Remove what a call that was killed left behind; nobody else is at work while we hold the lock."""
        for pattern in ("scratch-*", "download-*", "import-*"):
            for path in self.folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)

    def remove_abandoned_trees(self) -> None:
        """Remove the trees of project folders that are gone. The lock must be held."""
        for folder in self.folder.glob("trees/*"):
            if Tree(folder, folder).is_abandoned:
                aside = self.folder / f"scratch-{folder.name}"  # gone at once; a call that is killed leaves no half
                folder.rename(aside)
                shutil.rmtree(aside, ignore_errors=True)

    def require_pristine(self, pin: Pin) -> str:
        """The pristine commit; gets and imports the archive when it is not here. The lock must be held.

        Raises:
            VendorError: no archive, a wrong hash, or a folder that is not the pinned tree. Nothing is kept then.
        """
        if (commit := self.pristine_commit(pin)) is not None:
            return commit
        aside = self.folder / f"import-{os.getpid()}"
        try:
            with fetched_archive(pin, self.folder, archive_of_environment()) as archive:
                say(f"importing llama.cpp from {archive.name}")
                tree = import_archive(archive, pin, aside)
            if tree != pin.tree:
                raise VendorError(
                    f"{pin.subdirectory} in {pin.archive} is tree {tree}, "
                    f"UPSTREAM.toml says {pin.tree}; nothing was kept"
                )
            self.adopt(aside)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        return Git(self.pristine).text("rev-parse", PRISTINE)

    def adopt(self, repository: Path) -> None:
        """Make a finished import the pristine repository."""
        shutil.rmtree(self.pristine, ignore_errors=True)
        os.replace(repository, self.pristine)

    def pristine_commit(self, pin: Pin) -> str | None:
        """The pristine commit if it is here and is the pinned tree."""
        if not self.pristine.is_dir():
            return None
        done = Git(self.pristine).try_run("log", "-1", "--format=%T %H", PRISTINE)
        tree, _, commit = done.stdout.decode().strip().partition(" ")
        return commit if done.returncode == 0 and tree == pin.tree else None


def cache_error(folder: Path, error: OSError) -> VendorError:
    """Turn an error of the file system into advice."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        advice = "the disk is full: free about 400 MB, or set NEXTN_CACHE_DIR to a folder with room"
    else:
        advice = "set NEXTN_CACHE_DIR to a folder that you can write to"
    return VendorError(f"cannot use the cache {folder}: {error.strerror or error}; {advice}")
