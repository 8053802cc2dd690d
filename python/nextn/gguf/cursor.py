"""A cursor that reads a file forward within bounds, and the one form of errors about damage."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from nextn.errors import ModelFileError

# Bounds on what a header may ask of us, several times what the largest model needs (a vocabulary of 260,000 tokens
# with its merges takes about 12 MB). They bound the time of the worst header, millions of empty strings, to seconds,
# and memory to 64 MiB.
MAX_HEADER_BYTES = 64 << 20
MAX_TEXT_BYTES = 4 << 20  # of one string, and of all keys, names and texts that are kept; in memory up to 4 times that

_WINDOW = 1 << 20


class Cursor:
    """Reads forward through a file and refuses whatever would lie behind its end."""

    def __init__(self, file: BinaryIO, path: Path, position: int = 0, max_text: int = MAX_TEXT_BYTES) -> None:
        self.path = path
        self.text_left = max_text
        self.size = os.fstat(file.fileno()).st_size
        self.position = position
        self._file = file
        self._window = b""
        self._window_start = 0

    def fail(self, problem: str, field: str, at: int | None = None) -> NoReturn:
        """Raise the error for damage in ``field`` at byte ``at`` (default: here)."""
        raise _damage(self.path, problem, field, self.position if at is None else at)

    def require(self, n_bytes: int, field: str) -> None:
        """Check that ``n_bytes`` more bytes exist and belong to a header of reasonable size."""
        left = self.size - self.position
        if n_bytes > left:
            self.fail(f"needs {count_of(n_bytes, 'byte')}, {count_of(left, 'byte')} left: the file is truncated", field)
        if self.position + n_bytes > MAX_HEADER_BYTES:
            self.fail(f"the header is longer than {MAX_HEADER_BYTES:,} bytes, which no model needs", field)

    def take(self, n_bytes: int, field: str) -> bytes:
        """Read ``n_bytes`` bytes."""
        self.require(n_bytes, field)
        start = self.position - self._window_start
        if start < 0 or start + n_bytes > len(self._window):
            self._fill(max(n_bytes, _WINDOW))
            start = 0
            if len(self._window) < n_bytes:
                self.fail("the file became shorter while it was read", field)
        self.position += n_bytes
        return self._window[start : start + n_bytes]

    def number(self, layout: str, field: str) -> int:
        """Read one integer of a `struct` layout."""
        (value,) = struct.unpack(layout, self.take(struct.calcsize(layout), field))
        return int(value)

    def string(self, field: str, limit: int = MAX_TEXT_BYTES, *, strict: bool = False) -> str:
        """Read a string: u64 length, then bytes. ``strict`` refuses what is not UTF-8; otherwise it is replaced."""
        length = self.number("<Q", f"{field}, length")
        self.check_length(length, limit, field)
        self.text_left -= length
        if self.text_left < 0:
            self.fail(f"the texts of the header are longer than {MAX_TEXT_BYTES:,} bytes, which no model needs", field)
        start = self.position
        data = self.take(length, field)
        try:
            return data.decode("utf-8", "strict" if strict else "replace")
        except UnicodeDecodeError:
            self.fail("is not UTF-8 text", field, start)

    def check_length(self, length: int, limit: int, field: str) -> None:
        """Check the length of a string that was just read."""
        left = self.size - self.position
        if length > left:
            self.fail(f"length {length:,}, but {count_of(left, 'byte')} left", field, self.position - 8)
        if length > limit:
            self.fail(f"length {length:,} is over the limit of {limit:,} bytes", field, self.position - 8)

    def skip(self, n_bytes: int, field: str) -> None:
        """Go past ``n_bytes`` bytes without reading them."""
        self.require(n_bytes, field)
        self.position += n_bytes

    def skip_strings(self, count: int, field: str) -> None:
        """Go past ``count`` strings, checking every length. A tight loop: vocabularies have 500,000 of them."""
        unpack = struct.Struct("<Q").unpack_from
        at, window = 0, b""
        for i in range(count):
            if at + 8 > len(window):
                self.position += at
                self.require(8, f"{field}, element {i}")
                self._fill(_WINDOW)
                at, window = 0, self._window
            start, (length,) = at, unpack(window, at)
            at += 8 + length
            if length > MAX_TEXT_BYTES or self.position + at > self.size:
                self.position += start + 8
                self.check_length(length, MAX_TEXT_BYTES, f"{field}, element {i}")
        self.position += at

    def strings(self, count: int, field: str) -> Iterator[bytes]:
        """The bytes of ``count`` strings one by one; never more than a window of them is in memory."""
        unpack = struct.Struct("<Q").unpack_from
        at, window = 0, b""
        for i in range(count):
            end = at + 8
            if end <= len(window):
                end += unpack(window, at)[0]
            if end > len(window):  # the string, or even its length, goes on behind the window
                self.position += at
                length = self.number("<Q", f"{field}, element {i}, length")
                self.check_length(length, MAX_TEXT_BYTES, f"{field}, element {i}")
                self.position -= 8
                self._fill(max(8 + length, _WINDOW))
                at, end, window = 0, 8 + length, self._window
                if end > len(window):
                    self.fail("the file became shorter while it was read", field)
            yield window[at + 8 : end]
            at = end
        self.position += at

    def _fill(self, n_bytes: int) -> None:
        """Load the window with up to ``n_bytes`` bytes from the position on."""
        try:
            self._file.seek(self.position)
            self._window = self._file.read(n_bytes)
        except OSError as error:
            raise _unreadable(self.path, error) from None
        self._window_start = self.position


def open_file(path: Path) -> BinaryIO:
    """Open a regular file; anything else (a pipe would block, a device never ends) is refused."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ModelFileError(f"{show_path(path)} is a directory, not a GGUF file")
        if not stat.S_ISREG(mode):
            raise ModelFileError(f"{show_path(path)} is not a regular file")
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        raise ModelFileError(f"{show_path(path)} does not exist") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError | ValueError) -> ModelFileError:
    """The system's reason why a file cannot be read, as one line."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ModelFileError(f"{show_path(path)} cannot be read: {reason}")


def _damage(path: Path, problem: str, field: str, at: int) -> ModelFileError:
    """The one form of an error about damage."""
    return ModelFileError(f"{show_path(path)} is damaged at byte {at:,}: {field}: {problem}")


def quote(text: str) -> str:
    """A name from the file, safe to print: escaped and short."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")


def show_path(path: Path) -> str:
    """A path, safe to print."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def count_of(n: int, noun: str) -> str:
    """A number with its noun."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
