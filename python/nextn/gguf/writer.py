"""Write a GGUF file whose tensors come from other files, without holding one of them in memory.

The `gguf` package could write such a file too, but it decodes every metadata value and encodes it anew, needs the whole
vocabulary as Python objects for that, and its reader hangs on some damaged files. Here a value is copied as it stands.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nextn.errors import ModelFileError
from nextn.gguf.atomic import new_file
from nextn.gguf.cursor import open_file, show_path
from nextn.gguf.reader import DEFAULT_ALIGNMENT, GgufHeader
from nextn.gguf.types import NUMBER_TYPES, TensorType, ValueType

_CHUNK = 8 << 20
_VERSION = 3

Progress = Callable[[float], None]
"""Called with the share, 0 to 1, that is done."""


@dataclass(frozen=True, kw_only=True)
class TensorToWrite:
    """A tensor of a new file.

    Args:
        name: Its name there.
        shape: Elements per dimension, the contiguous one first.
        type: How its elements are stored.
        data: The bytes, or the file that holds them.
        offset: Byte of that file where they begin.
        size: Number of bytes.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    data: bytes | Path
    offset: int = 0
    size: int


def write_gguf(
    path: str | os.PathLike[str],
    metadata: Mapping[str, bytes],
    tensors: Sequence[TensorToWrite],
    *,
    progress: Progress | None = None,
) -> None:
    """Write a file; it appears complete or not at all, and the same arguments give the same bytes.

    Args:
        path: Where to; an existing file is replaced.
        metadata: Kind and value by key, as `encode` and `copied_metadata` give them.
        tensors: In the order of the file.
        progress: Called now and then.

    Raises:
        ModelFileError: A file to copy from became shorter meanwhile.
        OSError: The file cannot be written.
    """
    total = sum(tensor.size for tensor in tensors) or 1
    done = 0
    with new_file(path) as part, part.open("wb") as out:
        out.write(_head(metadata, tensors))
        _pad(out)
        for tensor in tensors:
            for piece in _pieces(tensor):
                out.write(piece)
                done += len(piece)
                if progress:
                    progress(done / total)
            _pad(out)


def encode(kind: ValueType, value: bool | int | float | str | Sequence[str]) -> bytes:
    """A metadata value with its kind in front, as the file stores them; ARRAY is one of texts."""
    head = struct.pack("<I", kind)
    if kind is ValueType.STRING:
        return head + _string(str(value))
    if kind is ValueType.ARRAY:
        assert isinstance(value, Sequence)
        texts = [str(text) for text in value]
        return head + struct.pack("<IQ", ValueType.STRING, len(texts)) + b"".join(map(_string, texts))
    return head + np.array(value, NUMBER_TYPES[kind]).tobytes()


def copied_metadata(header: GgufHeader, keys: Iterable[str]) -> dict[str, bytes]:
    """Kind and value of these keys of a file, as they stand in it."""
    copied = {}
    with open_file(header.path) as file:
        for key in keys:
            start, end = header.spans[key]
            file.seek(start)
            copied[key] = file.read(end - start)
            if len(copied[key]) != end - start:
                raise ModelFileError(f"{show_path(header.path)} became shorter while it was read")
    return copied


def copied_tensors(header: GgufHeader, wanted: Callable[[str], bool]) -> list[TensorToWrite]:
    """The tensors of a file whose names are wanted, to be copied from it."""
    return [
        TensorToWrite(name=t.name, shape=t.shape, type=t.type, data=header.path, offset=t.offset, size=t.size)
        for t in header.tensors
        if wanted(t.name)
    ]


def _head(metadata: Mapping[str, bytes], tensors: Sequence[TensorToWrite]) -> bytes:
    """Everything before the tensor data."""
    parts = [b"GGUF", struct.pack("<IQQ", _VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_string(key), value]
    offset = 0
    for tensor in tensors:
        shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        parts += [_string(tensor.name), shape, struct.pack("<IQ", tensor.type.id, offset)]
        offset += -(-tensor.size // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
    return b"".join(parts)


def _string(text: str) -> bytes:
    """Length and bytes."""
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def _pad(out: BinaryIO) -> None:
    """Fill up to the alignment."""
    out.write(bytes(-out.tell() % DEFAULT_ALIGNMENT))


def _pieces(tensor: TensorToWrite) -> Iterable[bytes]:
    """The bytes of a tensor, a few megabytes at a time."""
    if isinstance(tensor.data, bytes):
        yield tensor.data
        return
    with open_file(tensor.data) as file:
        file.seek(tensor.offset)
        left = tensor.size
        while left > 0:
            piece = file.read(min(left, _CHUNK))
            if not piece:
                raise ModelFileError(f"{show_path(tensor.data)} became shorter while it was copied")
            left -= len(piece)
            yield piece
