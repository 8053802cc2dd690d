"""Requests side by side: each answer and each draft is what it is alone, in a Speculator of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nextn
import numpy as np
import pytest

from .conftest import complete, drafted, wait_until

FIXED = nextn.DraftParams(n_max=3, adaptive=False)
SIZES: dict[str, Any] = {"n_ctx": 256, "n_threads": 1}
LONG = {**SIZES, "n_ctx": 4096}


@pytest.fixture(scope="module")
def model(tiny_model):
    """Of its head's drafts about a third is right."""
    return tiny_model("dense", tied=False, agreement=0.92)


@pytest.fixture(scope="module")
def requests(model) -> list[tuple[list[int], int, tuple[int, ...], tuple[int, int]]]:
    """Prompt, length, and what comes of it: the tokens of plain decoding, and drafted and accepted ones."""
    random = np.random.default_rng(7)
    found = []
    with (
        nextn.Speculator(model, draft=None, **SIZES) as plain,
        nextn.Speculator(model, draft=FIXED, **SIZES) as drafting,
    ):
        for i in range(12):
            prompt = random.integers(5, 200, 4 + 3 * i).tolist()
            tokens = plain.generate(prompt, max_tokens=30 + 9 * (i % 4)).tokens
            stats = drafting.generate(prompt, max_tokens=len(tokens)).stats
            found.append((prompt, len(tokens), tuple(tokens), (stats.draft_n, stats.draft_n_accepted)))
    assert 0.1 < sum(f[3][1] for f in found) / sum(f[3][0] for f in found) < 0.7
    return found


@pytest.mark.parametrize("n_parallel", [1, 2, 4])
def test_drafts_and_tokens_are_those_of_a_request_alone(model, requests, n_parallel: int) -> None:
    with nextn.Server(model, draft=FIXED, n_parallel=n_parallel, **SIZES) as server, server.client() as client:

        def ask(request: tuple[list[int], int, tuple[int, ...], tuple[int, int]]) -> None:
            prompt, n, tokens, counts = request
            answer = complete(client, prompt, n, cache_prompt=False)  # type: ignore[arg-type]
            assert answer["tokens"] == list(tokens)[: len(answer["tokens"])]
            assert len(answer["tokens"]) >= len(tokens) - 1  # the end-of-turn token is none of the answer's
            assert drafted(answer)[:2] == counts

        with ThreadPoolExecutor(n_parallel) as pool:
            list(pool.map(ask, requests))


@pytest.mark.parametrize("lengths", [(2, 1, 0, 2), (3, 0, 1), (1, 3), (3, 3, 0, 0)], ids=str)
def test_slots_draft_lengths_of_their_own(model, lengths: tuple[int, ...]) -> None:
    """Shorter drafts are padded to the longest, and the padding goes before what was rejected does."""
    prompts = np.random.default_rng(11).integers(5, 200, (len(lengths), 14)).tolist()
    wanted, counts = plain_tokens(model, prompts, 400), []
    for prompt, n_max in zip(prompts, lengths, strict=True):
        draft = nextn.DraftParams(n_max=n_max, adaptive=False) if n_max else None
        with nextn.Speculator(model, draft=draft, **LONG) as alone:
            stats = alone.generate(prompt, max_tokens=400, ignore_eos=True).stats
            counts.append((stats.draft_n, stats.draft_n_accepted))
    with nextn.Server(model, draft=FIXED, n_parallel=len(lengths), **LONG) as server, server.client() as client:

        def ask(slot: int) -> dict[str, Any]:
            options = {"id_slot": slot, "ignore_eos": True, "cache_prompt": False}
            return complete(client, prompts[slot], 400, speculative={"n_max": lengths[slot]}, **options)  # type: ignore[arg-type]

        with ThreadPoolExecutor(len(lengths)) as pool:
            for _ in range(2):
                for slot, answer in enumerate(pool.map(ask, range(len(lengths)))):
                    assert answer["tokens"] == list(wanted[slot])
                    assert drafted(answer)[:2] == counts[slot]


def plain_tokens(model, prompts: list[list[int]], n: int) -> list[tuple[int, ...]]:
    """What plain decoding writes behind each prompt, its end ignored."""
    with nextn.Speculator(model, draft=None, **LONG) as plain:
        return [plain.generate(prompt, max_tokens=n, ignore_eos=True).tokens for prompt in prompts]


def test_a_slot_that_joins_takes_no_state_of_another(model) -> None:
    """The states of slots lie in the order in which the slots were first used, unless they are put in order."""
    prompts = np.random.default_rng(9).integers(5, 200, (4, 12)).tolist()
    wanted = plain_tokens(model, prompts, 2000)
    with nextn.Server(model, draft=FIXED, n_parallel=4, **LONG) as server, server.client() as client:

        def ask(slot: int, n: int) -> list[int]:
            answer = complete(client, prompts[slot], n, id_slot=slot, ignore_eos=True, cache_prompt=False)  # type: ignore[arg-type]
            return answer["tokens"]

        def has_begun(slot: int) -> bool:
            return any(slot == found["id"] and found["is_processing"] for found in server.slots())

        # slots 2 and 0 go on while 3 and 1 join and leave, again and again
        with ThreadPoolExecutor(2) as pool:
            running = {}
            for slot in (2, 0):
                running[slot] = pool.submit(ask, slot, 2000)
                assert wait_until(lambda slot=slot: has_begun(slot) or running[slot].done())  # type: ignore[misc]
            others = [(slot, ask(slot, 4 + i)) for i, slot in enumerate((3, 1, 3, 1, 1, 3))]
            for slot, tokens in [*others, *((slot, job.result()) for slot, job in running.items())]:
                assert tokens == list(wanted[slot][: len(tokens)])


def test_answers_of_one_prompt_take_no_state_of_another(model) -> None:
    """They begin from one state; where it lies must not put the states of other slots out of order."""
    prompts = np.random.default_rng(10).integers(5, 200, (2, 12)).tolist()
    wanted = plain_tokens(model, prompts, 800)
    with nextn.Server(model, draft=FIXED, n_parallel=4, **LONG) as server, server.client() as client:
        options = {"ignore_eos": True, "cache_prompt": False}

        def two_answers(n: int) -> list[list[int]]:
            body = {"prompt": prompts[0], "n_predict": n, "temperature": 0, "return_tokens": True, "n": 2, "id_slot": 1}
            response = client.post("/completion", json={**body, **options})
            assert response.status_code == 200, response.text
            return [answer["tokens"] for answer in response.json()]

        with ThreadPoolExecutor(2) as pool:
            for _ in range(4):
                pair = pool.submit(two_answers, 800)
                for slot in (2, 0, 2, 3, 0, 3):
                    answer = complete(client, prompts[1], 60, **options)
                    assert answer["tokens"] == list(wanted[1][:60]), slot
                for tokens in pair.result():
                    assert tokens == list(wanted[0][: len(tokens)])
                    assert len(tokens) == 800


def test_a_shortlist_that_slots_share_changes_no_token(tiny_model) -> None:
    """The words of one slot's text are candidates in the drafts of the other."""
    path = tiny_model("dense", tied=False, agreement=0.92, n_vocab=81920)
    random = np.random.default_rng(8)
    prompts = [random.integers(32768, 81000, 20 + 5 * i).tolist() for i in range(6)]
    with nextn.Speculator(path, draft=None, **SIZES) as plain:
        wanted = [plain.generate(prompt, max_tokens=50).tokens for prompt in prompts]
    server = nextn.Server(path, draft=FIXED, n_parallel=2, **SIZES)
    with server, server.client() as client, ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda p: complete(client, p, 50, cache_prompt=False), prompts))  # type: ignore[arg-type]
    assert sum(drafted(answer)[1] for answer in answers) > 0
    for tokens, answer in zip(wanted, answers, strict=True):
        assert answer["tokens"] == list(tokens)[: len(answer["tokens"])]
        assert len(answer["tokens"]) >= len(tokens) - 1


def test_lengths_that_adapt_do_not_change_a_token(model, requests) -> None:
    with nextn.Server(model, n_parallel=4, **SIZES) as server, server.client() as client, ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda r: complete(client, r[0], r[1], cache_prompt=False), requests * 2))  # type: ignore[arg-type]
    for (_, _, tokens, _), answer in zip(requests * 2, answers, strict=True):
        assert answer["tokens"] == list(tokens)[: len(answer["tokens"])]
        assert len(answer["tokens"]) >= len(tokens) - 1
    assert sum(drafted(answer)[1] for answer in answers) > 0
