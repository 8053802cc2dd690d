"""Files that appear complete or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nextn.gguf.cursor import show_path


@contextmanager
def new_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give the path of a file to write beside the wanted one; it takes that one's place when the block ends well.

    After an exception, Ctrl-C among them, the wanted path is as it was before and nothing else is left.

    Args:
        path: Where the file shall be; an existing one is replaced.

    Raises:
        OSError: The folder does not exist or cannot be written; said before anything is computed.
    """
    wanted = Path(path)
    if wanted.is_dir():
        raise IsADirectoryError(f"{show_path(wanted)} is a directory, not a file to write")
    if not wanted.parent.is_dir():
        raise FileNotFoundError(f"{show_path(wanted.parent)} is no directory; make it first")
    # a name of this call's own: threads, and processes in several containers, may write the same file at the same time
    draft = wanted.with_name(f".{wanted.name[:50]}.{secrets.token_hex(6)}.part")
    try:
        draft.touch(exist_ok=False)
        yield draft
        _settle(draft)
        os.replace(draft, wanted)
    finally:
        draft.unlink(missing_ok=True)


def same_file(left: str | os.PathLike[str], right: str | os.PathLike[str]) -> bool:
    """Whether two paths name one file, links followed; a path that does not exist is equal to none but itself."""
    try:
        return os.path.samefile(left, right)
    except OSError:
        return os.path.abspath(left) == os.path.abspath(right)


def _settle(path: Path) -> None:
    """Wait until the file is on the disk: a name must not come before its content."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
