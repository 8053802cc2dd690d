"""The one parser of GGUF headers: bounded in time and memory, whatever the file holds.

A header is untrusted input: a truncated download, a file of another kind, a file made to break its reader. Every
length and count is compared with the bytes that are left before anything is read or allocated; nothing outside the
file is touched; no tensor data is read. Damage raises ModelFileError with the byte offset and the field.

Layout of a file (GGUF specification, ggml/docs/gguf.md; everything little-endian):

    magic "GGUF" · u32 version · u64 number of tensors · u64 number of metadata entries
    metadata: string key · u32 kind · value     (string = u64 length + bytes; array = u32 kind + u64 count + values)
    tensors:  string name · u32 dimensions · u64 size of each · u32 type · u64 offset into the data
    padding up to the alignment · tensor data
"""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nextn.errors import ModelFileError
from nextn.gguf.cursor import MAX_HEADER_BYTES, Cursor, count_of, open_file, quote, show_path
from nextn.gguf.types import NUMBER_TYPES, REMOVED_TENSOR_TYPES, TENSOR_TYPES, TensorType, ValueType
from nextn.options import check_path

MAX_METADATA = 1 << 14
MAX_TENSORS = 1 << 16  # a large mixture of experts has some thousand
MAX_STRINGS = 1 << 21  # of one array; the largest vocabularies have 300,000 tokens and twice as many merges
MAX_KEY_BYTES = (1 << 16) - 1  # of the specification
MAX_NAME_BYTES = 63  # llama.cpp keeps names in 64 bytes with their final zero
MAX_DIMENSIONS = 4
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32

_MIN_METADATA_BYTES = 8 + 1 + 4 + 1  # one-byte key, one-byte value
_MIN_TENSOR_BYTES = 8 + 1 + 4 + 4 + 8  # one-byte name, no dimension
_INT64_MAX = (1 << 63) - 1

# What people pass by mistake, by its first bytes.
_OTHER_FILES: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "this is a Git LFS pointer, not the model; fetch the file itself (git lfs pull)"),
    (b"<", "this is a web page or an XML file, probably the answer to a failed download"),
    (b"PK\x03\x04", "this is a zip archive or a PyTorch checkpoint; convert it to GGUF first"),
    (b"FUGG", "this is a big-endian file; llama.cpp reads little-endian GGUF here"),
    (b"lmgg", "this is a GGML file from before GGUF; convert it"),
    (b"tjgg", "this is a GGML file from before GGUF; convert it"),
)


@dataclass(frozen=True, kw_only=True)
class MetadataArray:
    """Where an array value lies; `read_array` reads it. Kept unread because vocabularies are long.

    Args:
        type: Kind of its elements.
        count: Number of elements.
        offset: Byte in the file where the first element begins.
        size: Length in bytes.
    """

    type: ValueType
    count: int
    offset: int
    size: int


MetadataValue = bool | int | float | str | MetadataArray


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorInfo:
    """One tensor of the file.

    Args:
        name: For example ``blk.0.attn_norm.weight``.
        shape: Elements per dimension, the contiguous one first (ggml's order, the reverse of NumPy's).
        type: How its elements are stored.
        offset: Byte in the file where its data begins.
        size: Length of its data in bytes.
    """

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    size: int

    @property
    def n_params(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """Everything a GGUF file says before its tensor data.

    Args:
        path: The file.
        size: Length of the file in bytes.
        version: Version of the format, 2 or 3.
        alignment: Tensor data begins at multiples of this many bytes.
        metadata: Values by key, in the order of the file.
        tensors: In the order of the file.
        data_offset: Byte where the tensor data begins.
        kinds: Kind of each metadata value, by key.
        spans: First byte and end of each metadata value together with its kind, by key: what a copy of it takes over.
    """

    path: Path
    size: int
    version: int
    alignment: int
    metadata: dict[str, MetadataValue]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    kinds: dict[str, ValueType] = dataclasses.field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)


def read_header(path: str | os.PathLike[str]) -> GgufHeader:
    """Read the header of a GGUF file.

    Args:
        path: The file.

    Returns:
        The header; every tensor in it lies inside the file.

    Raises:
        ModelFileError: The file is missing, unreadable, no GGUF file, or damaged; the text has byte and field.
    """
    check_path("path", path)
    path = Path(path)
    with open_file(path) as file:
        cursor = Cursor(file, path)
        version, n_tensors, n_metadata = _read_prologue(cursor)
        kinds: dict[str, ValueType] = {}
        spans: dict[str, tuple[int, int]] = {}
        metadata = _read_metadata(cursor, n_metadata, kinds, spans)
        alignment = _alignment(cursor, metadata)
        entries = _read_tensor_entries(cursor, n_tensors)
    data_offset = _pad(cursor.position, alignment)
    return GgufHeader(
        path=path,
        size=cursor.size,
        version=version,
        alignment=alignment,
        metadata=metadata,
        tensors=_place_tensors(cursor, entries, data_offset, alignment),
        data_offset=data_offset,
        kinds=kinds,
        spans=spans,
    )


def read_array(header: GgufHeader, key: str) -> npt.NDArray[np.generic] | list[str]:
    """Read an array of the metadata.

    Args:
        header: What `read_header` returned; its file is opened again.
        key: Key of an array value.

    Returns:
        A list of texts for an array of strings, otherwise a NumPy array [count].

    Raises:
        KeyError: No such key.
        TypeError: The value is no array.
        ModelFileError: The file changed in the meantime.
    """
    array = header.metadata[key]
    if not isinstance(array, MetadataArray):
        raise TypeError(f"{key} holds one value, not an array")
    with open_file(header.path) as file:
        cursor = Cursor(file, header.path, position=array.offset, max_text=MAX_HEADER_BYTES)
        field = f"metadata {quote(key)}"
        if array.type is ValueType.STRING:
            return [cursor.string(field) for _ in range(array.count)]
        values = np.frombuffer(cursor.take(array.size, field), NUMBER_TYPES[array.type])
        return values.astype(bool) if array.type is ValueType.BOOL else values


def _read_prologue(cursor: Cursor) -> tuple[int, int, int]:
    """Read magic, version and counts. Returns version, number of tensors, number of metadata entries."""
    if cursor.size == 0:
        raise ModelFileError(f"{show_path(cursor.path)} is empty")
    start = cursor.take(min(cursor.size, 32), "magic")
    if not start.startswith(b"GGUF"):
        hint = next((text for magic, text in _OTHER_FILES if start.startswith(magic)), None)
        shown = start[:4].decode("latin-1")
        raise ModelFileError(
            f"{show_path(cursor.path)} is no GGUF file: it begins with {shown!a}, not 'GGUF'"
            + (f" ({hint})" if hint else "")
        )
    cursor.position = 4
    version = cursor.number("<I", "version")
    if version not in VERSIONS:
        if version and version & 0xFFFF == 0:
            cursor.fail("is that of a big-endian file; llama.cpp reads little-endian GGUF here", "version", 4)
        cursor.fail(f"{version} is not supported, only {VERSIONS[0]} and {VERSIONS[1]}", "version", 4)
    n_tensors = _readcount_of(cursor, "number of tensors", _MIN_TENSOR_BYTES, MAX_TENSORS)
    n_metadata = _readcount_of(cursor, "number of metadata entries", _MIN_METADATA_BYTES, MAX_METADATA)
    return version, n_tensors, n_metadata


def _readcount_of(cursor: Cursor, field: str, bytes_each: int, limit: int) -> int:
    """Read a count and compare it with what the rest of the file can hold."""
    start = cursor.position
    count = cursor.number("<Q", field)
    if count > (cursor.size - cursor.position) // bytes_each:
        left = count_of(cursor.size - cursor.position, "byte")
        cursor.fail(f"{count:,} do not fit into the {left} left", field, start)
    if count > limit:
        cursor.fail(f"{count:,} is over the limit of {limit:,}", field, start)
    return count


def _read_metadata(
    cursor: Cursor, n_metadata: int, kinds: dict[str, ValueType], spans: dict[str, tuple[int, int]]
) -> dict[str, MetadataValue]:
    """Read the metadata entries; their kinds and places go into the two dictionaries."""
    metadata: dict[str, MetadataValue] = {}
    for i in range(n_metadata):
        start = cursor.position
        key = cursor.string(f"key of metadata entry {i}", MAX_KEY_BYTES, strict=True)
        if not key:
            cursor.fail("is empty", f"key of metadata entry {i}", start)
        if key in metadata:
            cursor.fail("occurs twice", f"metadata {quote(key)}", start)
        begin, name = cursor.position, f"metadata {quote(key)}"
        kinds[key] = _read_kind(cursor, name)
        metadata[key] = _read_value(cursor, kinds[key], name)
        spans[key] = (begin, cursor.position)
    return metadata


def _read_value(cursor: Cursor, kind: ValueType, field: str) -> MetadataValue:
    """Read a metadata value of the given kind."""
    if kind is ValueType.STRING:
        return cursor.string(field)
    if kind is ValueType.ARRAY:
        return _read_array_place(cursor, field)
    dtype = NUMBER_TYPES[kind]
    start = cursor.position
    value = np.frombuffer(cursor.take(dtype.itemsize, field), dtype)[0].item()
    if kind is not ValueType.BOOL:
        return value  # type: ignore[no-any-return]  # an int or a float, by the table
    if value not in (0, 1):
        cursor.fail(f"holds {value}, which is neither true nor false", field, start)
    return bool(value)


def _read_kind(cursor: Cursor, field: str) -> ValueType:
    """Read the kind of a value or of an array's elements."""
    start = cursor.position
    number = cursor.number("<I", f"{field}, kind of value")
    try:
        return ValueType(number)
    except ValueError:
        cursor.fail(f"{number} is not a kind of value", f"{field}, kind of value", start)


def _read_array_place(cursor: Cursor, field: str) -> MetadataArray:
    """Go past an array, checking every length in it, and return where it lies."""
    start = cursor.position
    kind = _read_kind(cursor, f"{field}, array elements")
    if kind is ValueType.ARRAY:
        cursor.fail("arrays of arrays are not supported", field, start)
    is_text = kind is ValueType.STRING
    each, most = (8, MAX_STRINGS) if is_text else (NUMBER_TYPES[kind].itemsize, MAX_HEADER_BYTES)
    count = _readcount_of(cursor, f"{field}, array count", each, most)
    offset = cursor.position
    if is_text:
        cursor.skip_strings(count, field)
    else:
        cursor.skip(count * each, field)
    return MetadataArray(type=kind, count=count, offset=offset, size=cursor.position - offset)


def _alignment(cursor: Cursor, metadata: dict[str, MetadataValue]) -> int:
    """The alignment of the tensor data, from the metadata."""
    value = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0 or value & (value - 1):
        shown = "an array" if isinstance(value, MetadataArray) else ascii(value)[:40]
        cursor.fail(f"must be a power of two, not {shown}", "metadata 'general.alignment'")
    return value


@dataclass(frozen=True, kw_only=True, slots=True)
class _TensorEntry:
    """A tensor as the header lists it: ``start`` is the entry's own byte, ``offset`` counts from the data's start."""

    start: int
    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int


def _read_tensor_entries(cursor: Cursor, n_tensors: int) -> list[_TensorEntry]:
    """Read the list of tensors."""
    entries: list[_TensorEntry] = []
    names: set[str] = set()
    for i in range(n_tensors):
        start = cursor.position
        name = cursor.string(f"name of tensor {i}", MAX_NAME_BYTES, strict=True)
        if not name:
            cursor.fail("is empty", f"name of tensor {i}", start)
        field = f"tensor {quote(name)}"
        if name in names:
            cursor.fail("occurs twice", field, start)
        names.add(name)
        shape = _read_shape(cursor, field)
        kind = _read_tensor_type(cursor, field, shape)
        offset = cursor.number("<Q", f"{field}, offset")
        entries.append(_TensorEntry(start=start, name=name, shape=shape, type=kind, offset=offset))
    return entries


def _read_shape(cursor: Cursor, field: str) -> tuple[int, ...]:
    """Read number and sizes of a tensor's dimensions."""
    start = cursor.position
    n_dims = cursor.number("<I", f"{field}, dimensions")
    if n_dims > MAX_DIMENSIONS:
        cursor.fail(f"{n_dims} dimensions, at most {MAX_DIMENSIONS} are possible", field, start)
    start = cursor.position
    shape = tuple(cursor.number("<Q", f"{field}, size of dimension {i}") for i in range(n_dims))
    if 0 in shape:
        cursor.fail(f"shape {list(shape)} has no element", field, start)
    if math.prod(shape) > _INT64_MAX:
        cursor.fail(f"shape {list(shape)} has more elements than any file can hold", field, start)
    return shape


def _read_tensor_type(cursor: Cursor, field: str, shape: tuple[int, ...]) -> TensorType:
    """Read a tensor's type and check that a row is a whole number of its blocks."""
    start = cursor.position
    number = cursor.number("<I", f"{field}, type")
    kind = TENSOR_TYPES.get(number)
    if kind is None:
        removed = REMOVED_TENSOR_TYPES.get(number)
        problem = f"type {removed} was removed from GGUF" if removed else f"{number} is not a known tensor type"
        cursor.fail(problem, f"{field}, type", start)
    row = shape[0] if shape else 1
    if row % kind.block_size:
        cursor.fail(f"rows of {row} elements are not whole blocks of {kind.name} ({kind.block_size})", field, start)
    return kind


def _place_tensors(
    cursor: Cursor, entries: list[_TensorEntry], data_offset: int, alignment: int
) -> tuple[TensorInfo, ...]:
    """Turn entries into tensors, checking that their data lies one after the other and inside the file."""
    tensors = []
    expected = 0  # llama.cpp wants the data in the order of the list, without gaps other than padding
    for entry in entries:
        field = f"tensor {quote(entry.name)}"
        if entry.offset != expected:
            cursor.fail(f"data offset {entry.offset:,}, expected {expected:,}", field, entry.start)
        size = math.prod(entry.shape) // entry.type.block_size * entry.type.block_bytes
        offset = data_offset + entry.offset
        if offset + size > cursor.size:
            cursor.fail(
                f"its data ends at byte {offset + size:,}, but the file has {cursor.size:,}: "
                "the file is truncated (an unfinished download?)",
                field,
                entry.start,
            )
        tensors.append(TensorInfo(name=entry.name, shape=entry.shape, type=entry.type, offset=offset, size=size))
        expected += _pad(size, alignment)
    return tuple(tensors)


def _pad(n_bytes: int, alignment: int) -> int:
    """The next multiple of the alignment."""
    return -(-n_bytes // alignment) * alignment
