"""Drafting goes on where a text is taken up again: acceptance is that of a text read in one go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nextn
import pytest

from .conftest import FIXED, SIZES, complete, drafted, wait_until

LONG = {**SIZES, "n_ctx": 2048}  # what is broken off must be far from its end
OTHER = "<|im_start|>user\nName three rivers.<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nextn.Server]:
    """One slot, so that every request meets what the one before left."""
    slots = tmp_path_factory.mktemp("slots")
    with nextn.Server(draft=FIXED, extra_args=["--slot-save-path", f"{slots}/"], **LONG) as server:
        yield server


@pytest.fixture(scope="module")
def client(single: nextn.Server) -> Iterator[Any]:
    with single.client() as client:
        yield client


def second_turn(client: Any, first: str) -> str:
    """A conversation that goes on behind the first answer."""
    answer = complete(client, first)["content"]
    return f"{first}{answer}<|im_end|>\n<|im_start|>user\nTell me more about it.<|im_end|>\n<|im_start|>assistant\n"


def cold(client: Any, prompt: str) -> dict[str, Any]:
    """The answer of a slot that knows nothing."""
    client.post("/slots/0?action=erase").raise_for_status()
    answer = complete(client, prompt, cache_prompt=False)
    assert answer["timings"]["cache_n"] == 0
    return answer


def assert_same(warm: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert warm["timings"]["cache_n"] > 10
    assert warm["tokens"] == wanted["tokens"]
    assert drafted(warm) == drafted(wanted)
    assert drafted(warm)[1] > 0


def test_next_turn(client, prompts) -> None:
    for prompt in prompts[:4]:
        turn = second_turn(client, prompt)
        warm = complete(client, turn)
        assert_same(warm, cold(client, turn))


def test_same_prompt_again(client, prompts) -> None:
    wanted = cold(client, prompts[5])
    assert_same(complete(client, prompts[5]), wanted)


def test_another_answer_to_the_same_question(client, prompts) -> None:
    turn = second_turn(client, prompts[6])
    wanted = cold(client, turn)
    complete(client, turn, temperature=1.5, seed=3)  # the slot holds another answer now
    assert_same(complete(client, turn), wanted)


def test_context_checkpoint_in_the_middle_of_a_prompt(client, prompts) -> None:
    """Two long questions that begin alike: the second one goes on from a checkpoint within the first."""
    words = ", ".join(["red", "green", "blue"] * 12)
    first, second = (
        prompt.replace("<|im_end|>", f" {words}. {question}<|im_end|>", 1)
        for prompt, question in ((prompts[10], "Why?"), (prompts[10], "What does it mean?"))
    )
    with nextn.Server(draft=FIXED, extra_args=["--ubatch-size", "32"], **SIZES) as server, server.client() as own:
        wanted = complete(own, second, cache_prompt=False)
        complete(own, first, cache_prompt=False)
        assert_same(complete(own, second), wanted)


def break_off(server: nextn.Server, client: Any, n_lines: int, **body: Any) -> dict[str, Any]:
    """Close a stream after so many lines, and give the slot's state once it works no longer."""
    client.post("/slots/0?action=erase").raise_for_status()
    with client.stream("POST", "/completion", json={"stream": True, **body}) as response:
        lines = (line for line in response.iter_lines() if line)
        assert len([next(lines) for _ in range(n_lines)]) == n_lines
    assert wait_until(lambda: not any(slot["is_processing"] for slot in server.slots()))
    return server.slots()[0]


def test_same_prompt_after_a_cancelled_answer(single, client, prompts) -> None:
    for n_lines, prompt in ((1, prompts[11]), (6, prompts[12])):
        wanted = cold(client, prompt)
        endless = {"n_predict": 1800, "temperature": 0.7, "seed": 1, "ignore_eos": True}
        slot = break_off(single, client, n_lines, prompt=prompt, **endless)
        assert slot["n_prompt_tokens"] < 1200  # it was not written to its end
        assert_same(complete(client, prompt), wanted)


def test_prompts_after_a_cancelled_prompt(tmp_path, prompts) -> None:
    """The one that was cancelled while it was read, and the next turn."""
    long = prompts[13].replace("<|im_end|>", " and so on" * 400 + "<|im_end|>", 1)
    args = ["--batch-size", "16", "--ubatch-size", "16", "--slot-save-path", f"{tmp_path}/"]
    with nextn.Server(draft=FIXED, extra_args=args, **LONG) as server, server.client() as client:
        wanted = cold(client, long)
        n_prompt = wanted["timings"]["prompt_n"]
        for _ in range(5):  # a client that gets no processor may come too late
            slot = break_off(server, client, 1, prompt=long, n_predict=300, return_progress=True)
            if 0 < slot["n_prompt_tokens"] < n_prompt:
                break
        assert 0 < slot["n_prompt_tokens"] < n_prompt
        again = complete(client, long)
        assert again["timings"]["cache_n"] > 0
        assert (again["tokens"], drafted(again)) == (wanted["tokens"], drafted(wanted))
        turn = second_turn(client, long)
        assert_same(complete(client, turn), cold(client, turn))


def test_text_that_was_kept_aside(client, prompts) -> None:
    turn = second_turn(client, prompts[7])
    wanted = cold(client, turn)
    second_turn(client, prompts[7])
    complete(client, OTHER)  # the prompt cache keeps the first text
    assert_same(complete(client, turn), wanted)


def test_drafting_after_a_plain_request(client, prompts) -> None:
    first = complete(client, prompts[8], speculative={"type": "none"})
    assert drafted(first)[0] == 0
    turn = f"{prompts[8]}{first['content']}<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert_same(complete(client, turn), cold(client, turn))


def test_saved_and_restored_slot(client, prompts, tmp_path) -> None:
    turn = second_turn(client, prompts[9])
    saved = client.post("/slots/0?action=save", json={"filename": "a.bin"}).json()
    assert saved["n_saved"] > 10
    wanted = cold(client, turn)
    client.post("/slots/0?action=erase").raise_for_status()
    client.post("/slots/0?action=restore", json={"filename": "a.bin"}).raise_for_status()
    assert_same(complete(client, turn), wanted)


def test_slot_restored_by_another_server(client, prompts, tmp_path) -> None:
    turn = second_turn(client, prompts[9])
    wanted = cold(client, turn)
    for name in ("save", "restore"):
        with (
            nextn.Server(draft=FIXED, extra_args=["--slot-save-path", f"{tmp_path}/"], **SIZES) as server,
            server.client() as own,
        ):
            if name == "save":
                second_turn(own, prompts[9])
            own.post(f"/slots/0?action={name}", json={"filename": "b.bin"}).raise_for_status()
            if name == "restore":
                assert_same(complete(own, turn), wanted)


def test_restored_without_its_draft_file_it_still_drafts(client, prompts, tmp_path) -> None:
    turn = second_turn(client, prompts[9])
    wanted = cold(client, turn)
    with (
        nextn.Server(draft=FIXED, extra_args=["--slot-save-path", f"{tmp_path}/"], **SIZES) as server,
        server.client() as own,
    ):
        second_turn(own, prompts[9])
        own.post("/slots/0?action=save", json={"filename": "c.bin"}).raise_for_status()
        complete(own, OTHER)
        (tmp_path / "c.bin.draft").unlink()
        own.post("/slots/0?action=restore", json={"filename": "c.bin"}).raise_for_status()
        answer = complete(own, turn)
    assert answer["tokens"] == wanted["tokens"]
    assert drafted(answer)[1] > 0
