"""A byte-level BPE vocabulary of any size, made from nothing, for random test models."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import gguf

LETTERS = "etaoinshrdlcumwfgypbvkjxqz"  # by frequency in English, so that low ids are the common tokens
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SPECIAL_TOKENS = (*CONTROL_TOKENS, "<think>", "</think>", "<tool_call>", "</tool_call>")
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class Vocab:
    """Token texts (in the byte-to-character spelling of GPT-2), GGUF token types, and merges in order."""

    tokens: list[str]
    types: list[int]
    merges: list[str]


def byte_characters() -> list[str]:
    """GPT-2's character for each byte 0..255: itself when printable, else one from U+0100 on."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    spare = itertools.count(256)
    return [chr(b) if b in printable else chr(next(spare)) for b in range(256)]


def _ranked(left: list[str], right: list[str]) -> list[tuple[str, str]]:
    """All pairs, common ones first: the product of the two ranks estimates how rare a pair is."""
    pairs = itertools.product(enumerate(left, 1), enumerate(right, 1))
    return [(a, b) for (_, a), (_, b) in sorted(pairs, key=lambda p: p[0][0] * p[1][0])]


def _merges() -> Iterator[tuple[str, str]]:
    """Pairs to merge; each names two earlier tokens, and no text is made twice."""
    space = byte_characters()[ord(" ")]
    letters = list(LETTERS)
    starts = [space + c for c in letters]
    pairs = _ranked(letters, letters)
    twos = [a + b for a, b in pairs]
    yield from ((space, c) for c in letters)
    yield from pairs
    yield from _ranked(starts, letters)
    yield from _ranked(starts, twos)
    yield from _ranked(twos, letters)
    yield from _ranked(twos, twos)


def synthetic_vocab(size: int) -> Vocab:
    """A vocabulary of `size` tokens: 256 bytes, merged letters, then `SPECIAL_TOKENS` in the last places.

    Args:
        size: at least 263; at most about 493,000.

    Raises:
        ValueError: the size is out of range.
    """
    count = size - 256 - len(SPECIAL_TOKENS)
    if count < 0:
        raise ValueError(f"size must be at least {256 + len(SPECIAL_TOKENS)}, got {size}")
    pairs = list(itertools.islice(_merges(), count))
    if len(pairs) < count:
        raise ValueError(f"size must be at most {256 + len(SPECIAL_TOKENS) + len(pairs)}, got {size}")
    tokens = [*byte_characters(), *(a + b for a, b in pairs), *SPECIAL_TOKENS]
    special = [gguf.TokenType.CONTROL if t in CONTROL_TOKENS else gguf.TokenType.USER_DEFINED for t in SPECIAL_TOKENS]
    types = [int(gguf.TokenType.NORMAL)] * (256 + count) + [int(t) for t in special]
    return Vocab(tokens, types, [f"{a} {b}" for a, b in pairs])
