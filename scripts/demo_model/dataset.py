"""From conversations to rows of tokens: what to learn, and several documents packed into each row."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .corpus import render
from .corpus.phrases import Conversation

ROW = 512  # tokens in a row
OPEN_ROWS = 256  # rows that packing keeps open for more documents


class Tokenizer(Protocol):
    """What `encode` needs of tokenizers.Tokenizer."""

    def encode(self, text: str) -> Any:
        """An object whose `ids` are the tokens of the text."""

    def token_to_id(self, token: str) -> int | None:
        """Id of a token's text."""


class Document(NamedTuple):
    """One conversation as tokens."""

    ids: list[int]
    learn: list[int]  # per token: 1 if the model should learn to produce it


class Rows(NamedTuple):
    """Packed rows."""

    tokens: NDArray[np.int16]  # [n, ROW]
    learn: NDArray[np.int8]  # [n, ROW]
    doc: NDArray[np.int16]  # [n, ROW] number of the document in its row, -1 where the row is empty

    def take(self, index: NDArray[np.integer[Any]]) -> Rows:
        """Some of the rows, in this order."""
        return Rows(self.tokens[index], self.learn[index], self.doc[index])


def encode(tok: Tokenizer, conversation: Conversation) -> Document:
    """Tokens of a conversation; the assistant's words and the end of its turn are to be learned."""
    ids = list(tok.encode(render(conversation)).ids)
    header = [tok.token_to_id("<|im_start|>"), *tok.encode("assistant\n").ids]
    end = tok.token_to_id("<|im_end|>")
    learn = [0] * len(ids)
    i = 0
    while i < len(ids):
        if ids[i : i + len(header)] != header:
            i += 1
            continue
        i += len(header)
        stop = ids.index(end, i) + 1
        learn[i:stop] = [1] * (stop - i)
        i = stop
    return Document(ids, learn)


@dataclass
class OpenRow:
    """A row while it is being filled."""

    length: int
    members: list[int]  # numbers of its documents


def first_fit(lengths: Sequence[int], order: Sequence[int]) -> list[OpenRow]:
    """Put documents into rows of ROW tokens, each into the first open row with room; longer ones are left out."""
    done: list[OpenRow] = []
    rows: list[OpenRow] = []
    for i in order:
        if lengths[i] > ROW:
            continue
        row = next((row for row in rows if row.length + lengths[i] <= ROW), None)
        if row is not None:
            row.length += lengths[i]
            row.members.append(i)
            continue
        rows.append(OpenRow(lengths[i], [i]))
        if len(rows) > OPEN_ROWS:
            rows.sort(key=lambda row: row.length)
            done.append(rows.pop())
    return done + rows


def pack(documents: Sequence[Document], rng: random.Random) -> Rows:
    """Pack documents into rows, in random order."""
    order = list(range(len(documents)))
    rng.shuffle(order)
    plan = first_fit([len(d.ids) for d in documents], order)
    shape = (len(plan), ROW)
    rows = Rows(np.zeros(shape, np.int16), np.zeros(shape, np.int8), np.full(shape, -1, np.int16))
    for r, row in enumerate(plan):
        at = 0
        for number, i in enumerate(row.members):
            ids, learn = documents[i]
            span = slice(at, at + len(ids))
            rows.tokens[r, span], rows.learn[r, span], rows.doc[r, span] = ids, learn, number
            at += len(ids)
    return rows.take(np.array(rng.sample(range(len(plan)), len(plan)), np.int64))


def batches(n_rows: int, size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Endless batches of row numbers: a new permutation each epoch, an incomplete last batch is left out."""
    rng = np.random.default_rng(seed)
    size = min(size, n_rows)
    while True:
        order = rng.permutation(n_rows)
        for i in range(0, n_rows - size + 1, size):
            yield order[i : i + size]
