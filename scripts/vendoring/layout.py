"""What the project itself keeps of the fork: the folder vendor/llama.cpp, and the stamp computed from it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from vendoring.pin import Pin, read_pin
from vendoring.run import VendorError

# Part of the stamp: raise it when the way a tree is put together changes, so that old trees are not taken for new.
RECIPE = "1"

# File modes as git writes them.
PLAIN, EXECUTABLE = "100644", "100755"

STAMP_HEADER = "src/llama-nextn-stamp.h"


@dataclass(frozen=True)
class OverlayFile:
    """One whole file of ours, at its path in llama.cpp's tree."""

    path: str
    content: bytes
    executable: bool = False

    @property
    def mode(self) -> str:
        """The file mode as git writes it."""
        return EXECUTABLE if self.executable else PLAIN


@dataclass(frozen=True)
class Fork:
    """The folder vendor/llama.cpp of a project.

    Attributes:
        root: the project's top folder.
    """

    root: Path

    @property
    def folder(self) -> Path:
        """Pin, series, patches and overlay are in here."""
        return self.root / "vendor" / "llama.cpp"

    @property
    def pin_file(self) -> Path:
        """The pin."""
        return self.folder / "UPSTREAM.toml"

    @property
    def series_file(self) -> Path:
        """The names of the patches, in the order in which they apply."""
        return self.folder / "series"

    @property
    def patches(self) -> Path:
        """The patches; there is no such folder while the series is empty."""
        return self.folder / "patches"

    @property
    def overlay(self) -> Path:
        """Whole files of ours, at their path in llama.cpp's tree."""
        return self.folder / "overlay"

    def pin(self) -> Pin:
        """Read the pin."""
        return read_pin(self.pin_file)

    def series(self) -> list[str]:
        """Patch names in order."""
        if not self.series_file.exists():
            raise VendorError(f"{self.series_file} is missing; it lists the patches in order (it may be empty)")
        return self.series_file.read_text(encoding="utf-8").split()

    def patch(self, name: str) -> bytes:
        """The text of one patch of the series."""
        try:
            return (self.patches / name).read_bytes()
        except FileNotFoundError as error:
            raise VendorError(f"{self.series_file} names {name}, but {self.patches} holds no such file") from error

    def files(self) -> dict[str, bytes]:
        """Series, patches and overlay as they are on disk, by their path in the folder."""
        paths = [path for folder in (self.patches, self.overlay) for path in folder.rglob("*") if path.is_file()]
        paths += [self.series_file] if self.series_file.is_file() else []
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}

    def overlay_files(self) -> list[OverlayFile]:
        """All files of the overlay, sorted by path."""
        files = []
        for path in self.overlay.rglob("*"):
            if path.is_symlink():
                raise VendorError(f"{path} is a symbolic link; the overlay holds plain files only")
            if path.is_file():
                executable = os.access(path, os.X_OK)
                files.append(OverlayFile(path.relative_to(self.overlay).as_posix(), path.read_bytes(), executable))
        return sorted(files, key=lambda file: file.path)


@dataclass(frozen=True)
class State:
    """One reading of the fork's folder: everything that decides what a prepared tree holds.

    Read once, so that a file edited while a tree is being built cannot end up under the wrong stamp.
    """

    pin: Pin
    overlay: tuple[OverlayFile, ...]
    patches: tuple[tuple[str, bytes], ...]

    def files(self) -> dict[str, bytes]:
        """What an export of this state writes, by path in vendor/llama.cpp."""
        files = {f"patches/{name}": content for name, content in self.patches}
        files |= {f"overlay/{file.path}": file.content for file in self.overlay}
        return files | {"series": "".join(f"{name}\n" for name, _ in self.patches).encode()}

    @property
    def stamp(self) -> str:
        """Hash of pin, overlay and patches, in order."""
        digest = hashlib.sha256()
        parts = [RECIPE.encode(), self.pin.version.encode(), self.pin.sha256.encode(), self.pin.tree.encode()]
        for file in self.overlay:
            parts += [file.mode.encode(), file.path.encode(), file.content]
        for name, content in self.patches:
            parts += [b"patch", name.encode(), content]
        for part in parts:
            digest.update(b"%d:" % len(part))
            digest.update(part)
        return digest.hexdigest()[:20]


def read_state(fork: Fork) -> State:
    """Read pin, overlay and patches."""
    patches = tuple((name, fork.patch(name)) for name in fork.series())
    return State(fork.pin(), tuple(fork.overlay_files()), patches)


def write_if_changed(path: Path, content: bytes) -> bool:
    """Write a file in one step, and leave it alone (and its time stamp) when it already has that content."""
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        aside.write_bytes(content)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
    return True


def stamp_header(stamp: str) -> bytes:
    """The generated header that llama-nextn.cpp includes to say what it was built from."""
    return f'#pragma once\n\n#define LLAMA_NEXTN_BUILD_STAMP "{stamp}"\n'.encode()
