"""The work folder's tokenizer and packed rows, made once."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from . import corpus
from .config import Config
from .dataset import Rows, encode, pack
from .tokenizer import train_tokenizer

TOKENIZER = "tokenizer.json"
TOKENIZER_CONVERSATIONS = 30000  # that many of the first conversations train the tokenizer
VALIDATION_CONVERSATIONS = 120  # of each arm


def make_rows(tok: Tokenizer, data: list[tuple[str, corpus.Conversation]]) -> dict[str, Rows]:
    """Training rows under "train", and validation rows of held-out conversations under each arm's name."""
    rng, validation = random.Random(3), random.Random(4)
    rows = {"train": pack([encode(tok, c) for _, c in data], rng)}
    for arm in corpus.ARMS:
        held = corpus.heldout_conversations(arm, VALIDATION_CONVERSATIONS, validation)
        rows[arm] = pack([encode(tok, c) for c in held], rng)
    return rows


def prepare(work: Path, cfg: Config, n: int, seed: int) -> dict[str, Rows]:
    """Rows of n conversations; a tokenizer that the folder already holds is kept, as later stages need it."""
    path = work / f"rows-{n}-{seed}.npz"
    names = ("train", *corpus.ARMS)
    if not path.exists():
        data = corpus.training_set(n, seed)
        if not (work / TOKENIZER).exists():
            texts = (corpus.render(c) for _, c in data[:TOKENIZER_CONVERSATIONS])
            train_tokenizer(texts, cfg.vocab_size).save(str(work / TOKENIZER))
        rows = make_rows(Tokenizer.from_file(str(work / TOKENIZER)), data)
        arrays = {f"{name}.{part}": a for name in names for part, a in rows[name]._asdict().items()}
        partial = path.with_suffix(".partial.npz")
        np.savez_compressed(partial, **arrays)
        os.replace(partial, path)  # an interrupted run leaves no rows behind
    with np.load(path) as z:
        return {name: Rows(*(z[f"{name}.{part}"] for part in Rows._fields)) for name in names}
