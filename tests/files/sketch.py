"""A small model taken apart: change anything, put it together again byte by byte."""

from __future__ import annotations

import random
import struct
from pathlib import Path

from nextn.gguf import ValueType, read_header
from nextn.gguf.types import NUMBER_TYPES, TENSOR_TYPES

TYPE_IDS = {kind.name: kind.id for kind in TENSOR_TYPES.values()}


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def scalar(kind, value):
    """Kind and value of a metadata entry."""
    if kind is ValueType.STRING:
        return struct.pack("<I", kind) + string(value)
    import numpy as np

    return struct.pack("<I", kind) + np.array(value, NUMBER_TYPES[kind]).tobytes()


def array(kind, values):
    import numpy as np

    head = struct.pack("<IIQ", ValueType.ARRAY, kind, len(values))
    if kind is ValueType.STRING:
        return head + b"".join(map(string, values))
    return head + np.array(values, NUMBER_TYPES[kind]).tobytes()


class Tensor:
    def __init__(self, name, shape, kind, data):
        self.name, self.shape, self.kind, self.data = name, list(shape), kind, data


class Sketch:
    """Metadata (kind and value as bytes) by key, and tensors, of a model file."""

    def __init__(self, path):
        header = read_header(path)
        data = Path(path).read_bytes()
        self.architecture = header.metadata["general.architecture"]
        self.n_layer = header.metadata[f"{self.architecture}.block_count"] - 1
        self.metadata = {key: data[start:end] for key, (start, end) in header.spans.items()}
        self.tensors = [Tensor(t.name, t.shape, t.type.id, data[t.offset : t.offset + t.size]) for t in header.tensors]
        self.n_tokens = header.metadata["tokenizer.ggml.tokens"].count

    def key(self, name, value, kind=ValueType.UINT32):
        """Set a key of the architecture (or a whole key, when it has its prefix)."""
        full = name if name.startswith(("general.", "tokenizer.", "split.")) else f"{self.architecture}.{name}"
        self.metadata[full] = value if isinstance(value, bytes) else scalar(kind, value)

    def drop(self, name):
        full = name if name.startswith(("general.", "tokenizer.", "split.")) else f"{self.architecture}.{name}"
        del self.metadata[full]

    def tensor(self, name):
        return next(t for t in self.tensors if t.name == name)

    def head(self, name):
        return self.tensor(f"blk.{self.n_layer}.{name}")

    def add_to_head(self, name, shape, kind="F32"):
        """A tensor that the head may have, filled with zeros, in place of one that it has."""
        self.remove(f"blk.{self.n_layer}.{name}")
        self.tensors.append(Tensor(f"blk.{self.n_layer}.{name}", shape, TYPE_IDS["F32"], b""))
        self.retype(self.tensors[-1], kind)

    def remove(self, *names):
        self.tensors = [t for t in self.tensors if t.name not in names]

    def retype(self, tensor, kind):
        """Give a tensor another type, with data of the right length."""
        layout = TENSOR_TYPES[TYPE_IDS[kind]]
        n = 1
        for size in tensor.shape:
            n *= size
        tensor.kind, tensor.data = layout.id, bytes(n // layout.block_size * layout.block_bytes)

    def reshape(self, tensor, shape):
        tensor.shape = list(shape)
        self.retype(tensor, TENSOR_TYPES[tensor.kind].name)

    def build(self):
        head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(self.tensors), len(self.metadata)))
        head += b"".join(string(key) + value for key, value in self.metadata.items())
        body = bytearray()
        for t in self.tensors:
            head += string(t.name) + struct.pack(f"<I{len(t.shape)}Q", len(t.shape), *t.shape)
            head += struct.pack("<IQ", t.kind, len(body))
            body += t.data + bytes(-len(t.data) % 32)
        return bytes(head) + bytes(-len(head) % 32) + bytes(body)


def mutate(rng: random.Random, data: bytes, spans: list[tuple[int, int]], n_header: int) -> bytes:
    """One or two changes in the header, most of them in metadata values, with the numbers that break readers."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2])):
        at = rng.randrange(n_header)
        if rng.random() < 0.4:
            start, end = rng.choice(spans)
            at = rng.randrange(start, min(end, start + 16))
        change = rng.random()
        if change < 0.25:
            out[at] ^= 1 << rng.randrange(8)
        elif change < 0.35:
            out[at : at + 8] = rng.choice([2**64 - 1, 2**63, 2**32, 2**31 - 1, 0, 1, 255]).to_bytes(8, "little")
        elif change < 0.65:
            out[at] = rng.randrange(256)
        elif change < 0.92:
            number = rng.choice([0, 1, 2, 3, 5, 7, 16, 24, 26, 65535, 2**31, 2**32 - 1])
            out[at : at + 4] = number.to_bytes(4, "little")
        elif change < 0.96:
            del out[at : at + rng.randint(1, 8)]
        else:
            out[at:at] = rng.randbytes(rng.randint(1, 8))
    return bytes(out)
