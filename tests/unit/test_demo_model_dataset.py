"""Packing conversations into rows of tokens."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace

import numpy as np
import pytest
from demo_model.corpus import phrases
from demo_model.dataset import ROW, Document, batches, encode, first_fit, pack


class Characters:
    """A tokenizer with one token for each character and for each special token."""

    special = ("<|im_start|>", "<|im_end|>")

    def encode(self, text: str) -> SimpleNamespace:
        for i, token in enumerate(self.special):
            text = text.replace(token, chr(i))
        return SimpleNamespace(ids=[ord(c) for c in text])

    def token_to_id(self, token: str) -> int:
        return self.special.index(token)


def test_only_the_assistants_words_are_learned() -> None:
    conversation = phrases.chat("Hi", "Hello!", "Bye", "Good bye.")
    ids, learn = encode(Characters(), [{"role": "system", "content": "assistant\n"}, *conversation])
    learned = "".join(chr(i) for i, flag in zip(ids, learn, strict=True) if flag)
    assert learned == "Hello!\x01Good bye.\x01"  # each with its end of turn


def documents(lengths: list[int]) -> list[Document]:
    """Document i consists of the token i + 1."""
    return [Document([i + 1] * n, [i % 2] * n) for i, n in enumerate(lengths)]


def test_packing_keeps_every_document_whole() -> None:
    rng = random.Random(0)
    lengths = [rng.randint(1, 300) for _ in range(300)]
    rows = pack(documents(lengths), random.Random(1))
    assert rows.tokens.shape == rows.learn.shape == rows.doc.shape == (len(rows.tokens), ROW)
    assert (rows.doc >= 0).sum() == sum(lengths)
    for i, n in enumerate(lengths):
        at = np.argwhere(rows.tokens == i + 1)
        assert len(at) == n
        row, column = at[0]
        assert (at == [(row, column + j) for j in range(n)]).all()
        assert len(set(rows.doc[row, column : column + n])) == 1
        assert (rows.learn[row, column : column + n] == i % 2).all()
    assert (rows.doc >= 0).mean() > 0.9


def test_documents_longer_than_a_row_are_left_out() -> None:
    rows = pack(documents([ROW, ROW + 1, 3]), random.Random(0))
    assert sorted(np.unique(rows.tokens)) == [0, 1, 3]


def test_first_fit_fills_the_first_row_with_room() -> None:
    plan = first_fit([ROW - 10, 20, 10, 5], [0, 1, 2, 3])
    assert [row.members for row in plan] == [[0, 2], [1, 3]]


def test_an_epoch_is_a_permutation() -> None:
    stream = batches(10, 4, seed=0)
    for _ in range(3):
        epoch = np.concatenate(list(itertools.islice(stream, 2)))
        assert len(set(epoch.tolist())) == 8


def test_fewer_rows_than_a_batch_still_give_batches() -> None:
    assert sorted(next(batches(3, 8, seed=0)).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("seed", [5, 6])
def test_batches_depend_on_the_seed_alone(seed: int) -> None:
    one, two = (list(map(list, itertools.islice(batches(50, 8, seed), 20))) for _ in range(2))
    assert one == two
    assert one != list(map(list, itertools.islice(batches(50, 8, seed + 1), 20)))
