"""GGUF files put together byte by byte, so that any field can be wrong."""

import math
import struct

from nextn.gguf.types import TENSOR_TYPES, ValueType

F32, Q8_0 = 0, 8


def u32(value):
    return struct.pack("<I", value)


def u64(value):
    return struct.pack("<Q", value)


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return u64(len(data)) + data


def entry(key, kind, value):
    """A metadata entry; value is bytes already packed."""
    return string(key) + u32(kind) + value


def number(key, value):
    return entry(key, ValueType.UINT32, u32(value))


def text(key, value):
    return entry(key, ValueType.STRING, string(value))


def array(key, kind, count, payload):
    return entry(key, ValueType.ARRAY, u32(kind) + u64(count) + payload)


def strings(key, values):
    return array(key, ValueType.STRING, len(values), b"".join(map(string, values)))


def tensor(name, shape, kind=F32, offset=0):
    return string(name) + u32(len(shape)) + b"".join(map(u64, shape)) + u32(kind) + u64(offset)


def size_of(shape, kind=F32):
    layout = TENSOR_TYPES[kind]
    return math.prod(shape) // layout.block_size * layout.block_bytes


def padded(n, alignment=32):
    return -(-n // alignment) * alignment


def build(entries=(), tensors=(), *, n_data=0, magic=b"GGUF", version=3, n_tensors=None, n_entries=None, alignment=32):
    """The bytes of a file; the counts can be set to something wrong."""
    header = magic + u32(version)
    header += u64(len(tensors) if n_tensors is None else n_tensors)
    header += u64(len(entries) if n_entries is None else n_entries)
    header += b"".join(entries) + b"".join(tensors)
    if not tensors:
        return header
    return header.ljust(padded(len(header), alignment), b"\0") + bytes(n_data)


def model(entries, shapes):
    """A sound file with tensors of the given names, shapes and types, laid out one after the other."""
    tensors, offset = [], 0
    for name, shape, kind in shapes:
        tensors.append(tensor(name, shape, kind, offset))
        offset += padded(size_of(shape, kind))
    return build(entries, tensors, n_data=offset)
