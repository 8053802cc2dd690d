"""Sampled answers have the model's distribution whichever way drafts are judged: chi-square of three tokens."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nextn
import numpy as np
import pytest
from nextn import Context, Model, SamplingParams
from sampling_definition import chi_square_p, expected

from .conftest import complete, drafted

PROMPT = (5, 6, 7, 6)
N_DRAWS = 1200
SAMPLING = {"temperature": 0.7, "top_k": 6}


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model("dense", n_vocab=320, tied=False, agreement=0.97)


@pytest.fixture(scope="module")
def texts(model) -> dict[tuple[int, ...], float]:
    """The probability of every text of three tokens, from the model's rows."""
    level: dict[tuple[int, ...], float] = {(): 1.0}
    with Model(model) as loaded, Context(loaded, n_ctx=64, n_threads=1) as context:
        for _ in range(3):
            longer = {}
            for text, mass in level.items():
                context.seq_rm(0, -1, -1)
                context.decode([*PROMPT, *text])
                row = context.logits()[-1].copy()
                row[list(loaded.eog_tokens)] = -1e9  # ignore_eos
                p = expected(row, SamplingParams(**SAMPLING))
                longer |= {(*text, i): mass * x for i, x in p.items()}
            level = longer
    return level


@pytest.mark.parametrize("accept", ["ratio", "match", "auto"])
def test_three_tokens(model, texts, accept: str) -> None:
    draft = nextn.DraftParams(n_max=2, adaptive=False)
    with nextn.Server(model, n_parallel=4, n_ctx=64, n_threads=1, draft=draft) as server, server.client() as client:

        def ask(seed: int) -> dict[str, Any]:
            options = SAMPLING if accept == "auto" else {**SAMPLING, "seed": seed}
            speculative = {"speculative": {"accept": accept}}
            return complete(client, [*PROMPT], 4, **options, **speculative, min_p=0, top_p=1, ignore_eos=True)

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(ask, range(N_DRAWS)))
    n_drafted, n_accepted, _ = np.sum([drafted(answer) for answer in answers], axis=0)
    assert 0.1 < n_accepted / n_drafted < 0.9  # or one of the two ways was not tested

    counts = Counter(tuple(answer["tokens"][:3]) for answer in answers)
    assert set(counts) <= set(texts)
    cells = [text for text, p in texts.items() if p * N_DRAWS >= 8]
    assert len(cells) > 10
    seen = np.array([counts[text] for text in cells])
    wanted = np.array([texts[text] for text in cells]) * N_DRAWS
    rest = [N_DRAWS - seen.sum()], [N_DRAWS - wanted.sum()]
    assert chi_square_p(np.concatenate([seen, rest[0]]), np.concatenate([wanted, rest[1]])) > 1e-4
