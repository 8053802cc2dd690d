"""With a projector beside the model text is drafted as without one; behind an image the answer is the model's own."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import nextn
import numpy as np
import pytest

from .conftest import FIXED, OFF, SIZES, complete, drafted

# Batches so narrow that a row has the same bits in each of them: what is read again is what was read before.
NARROW = ["--batch-size", "32", "--ubatch-size", "32"]
Message = dict[str, Any]


@pytest.fixture(scope="module")
def projector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny_gguf import make_projector

    return make_projector(tmp_path_factory.mktemp("projector") / "mmproj.gguf", 256)  # the bundled model's width


@pytest.fixture(scope="module")
def single(projector, tmp_path_factory) -> Iterator[httpx.Client]:
    """One slot, so that every request meets what the one before left."""
    args = ["--mmproj", str(projector), *NARROW, "--slot-save-path", f"{tmp_path_factory.mktemp('slots')}/"]
    with nextn.Server(draft=FIXED, extra_args=args, **SIZES) as server, server.client() as client:
        yield client


@pytest.fixture(scope="module")
def two_slots(projector) -> Iterator[httpx.Client]:
    with (
        nextn.Server(draft=FIXED, n_parallel=2, extra_args=["--mmproj", str(projector)], **SIZES) as server,
        server.client() as client,
    ):
        yield client


@pytest.fixture(scope="module")
def without(projector) -> Iterator[httpx.Client]:
    """A server that drafts nothing."""
    args = ["--mmproj", str(projector), *NARROW]
    with nextn.Server(draft=None, extra_args=args, **SIZES) as server, server.client() as client:
        assert server.spec_type == "none"
        yield client


def png(width: int, height: int, seed: int) -> str:
    """Noise, as a data URI."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + data).decode()


def user(text: str, *images: str) -> Message:
    """A turn in OpenAI's form, the images before the words."""
    if not images:
        return {"role": "user", "content": text}
    parts: list[Message] = [{"type": "image_url", "image_url": {"url": image}} for image in images]
    return {"role": "user", "content": [*parts, {"type": "text", "text": text}]}


def ask(client: httpx.Client, messages: list[Message], **options: Any) -> dict[str, Any]:
    """An answer of the chat, greedy unless options say otherwise: its text as "content", and its timings."""
    body = {"messages": messages, "temperature": 0, "max_tokens": 60, **options}
    response = client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    return {"content": answer["choices"][0]["message"]["content"], "timings": answer["timings"]}


def next_turn(messages: list[Message], answer: dict[str, Any], turn: Message) -> list[Message]:
    return [*messages, {"role": "assistant", "content": answer["content"]}, turn]


def same_as_cold(client: httpx.Client, messages: list[Message]) -> dict[str, Any]:
    """What the slot answers with what it knows: the text and the drafts of a slot that knows nothing."""
    warm = ask(client, messages)
    client.post("/slots/0?action=erase").raise_for_status()
    cold = ask(client, messages, cache_prompt=False)
    assert warm["timings"]["cache_n"] > 10 and cold["timings"]["cache_n"] == 0
    assert warm["content"] == cold["content"]
    assert drafted(warm) == drafted(cold)
    assert drafted(warm)[0] > 0
    return warm


def test_text_is_drafted_as_without_a_projector(single, client, prompts, plain) -> None:
    for prompt in prompts[:3]:
        answer = complete(single, prompt, cache_prompt=False)
        assert answer["tokens"] == list(plain(prompt, 48))[: len(answer["tokens"])]
        assert drafted(answer) == drafted(complete(client, prompt, cache_prompt=False))
        assert drafted(answer)[1] > 0


# 12 tokens on 4 positions, 60 on 10, and of more than a batch
@pytest.mark.parametrize("size", [(64, 48), (160, 96), (240, 160)], ids=str)
def test_behind_an_image_the_text_is_that_of_plain_decoding(single, without, size: tuple[int, int]) -> None:
    messages = [user("What is the capital of France?", png(*size, 1))]
    found = ask(single, messages)
    assert drafted(found)[0] > 0
    plain = ask(single, messages, cache_prompt=False, **OFF)
    assert drafted(plain)[0] == 0
    assert found["content"] == plain["content"] == ask(without, messages)["content"]
    other = ask(without, [user("What is the capital of France?")])
    assert found["content"] != other["content"]  # or the image was not looked at

    for turn in ("How do I loop over a list with an index in Python?", "What is the capital of Spain?"):
        messages = next_turn(messages, found, user(turn))
        found = ask(single, messages)
        assert found["content"] == ask(without, messages)["content"]
        assert drafted(found)[1] > 0

    fresh = [user("Name three rivers.")]  # another conversation
    found = ask(single, fresh)
    assert found["content"] == ask(without, fresh)["content"]
    assert drafted(found)[1] > 0


def test_drawn_tokens_behind_an_image(single) -> None:
    messages = [user("Name three rivers.", png(64, 48, 2))]
    options = {"temperature": 0.8, "seed": 5}
    found = ask(single, messages, **options)
    assert found["content"] == ask(single, messages, **options, **OFF)["content"]
    assert drafted(found)[0] > 0


def test_next_turn_after_an_image(single) -> None:
    messages = [user("What is the capital of France?", png(160, 96, 3))]
    messages = next_turn(messages, ask(single, messages), user("How do I loop over a list in Python?"))
    same_as_cold(single, messages)


def test_an_image_in_a_later_turn(single) -> None:
    messages = [user("What is the capital of France?")]
    messages = next_turn(messages, ask(single, messages), user("And here?", png(64, 48, 4), png(48, 64, 5)))
    messages = next_turn(messages, same_as_cold(single, messages), user("Name three rivers."))
    same_as_cold(single, messages)


def test_another_question_about_the_same_image(single) -> None:
    """It is taken up at a checkpoint in the middle of the question."""
    image = png(160, 160, 6)
    words = "Here are some words: " + ", ".join(["red", "green", "blue"] * 12)
    ask(single, [user(f"{words}. What is the capital of France?", image)])
    same_as_cold(single, [user(f"{words}. Name three rivers.", image)])


def test_images_of_one_size_are_told_apart(single) -> None:
    """Two conversations that differ in their image alone, taken up in turns from the prompt cache."""
    talks = [[user("What is the capital of France?", png(64, 48, seed))] for seed in (11, 12)]
    for talk in talks:
        ask(single, talk, max_tokens=1)
    for talk in talks:
        ask(single, [user("Name three rivers.")])
        same_as_cold(single, talk)


def test_slot_with_an_image_saved_and_restored(single) -> None:
    messages = [user("What is the capital of France?", png(160, 96, 9))]
    messages = next_turn(messages, ask(single, messages), user("Name three rivers."))
    single.post("/slots/0?action=save", json={"filename": "image.bin"}).raise_for_status()
    ask(single, [user("What is the capital of Spain?", png(160, 96, 10))], cache_prompt=False)
    single.post("/slots/0?action=erase").raise_for_status()
    single.post("/slots/0?action=restore", json={"filename": "image.bin"}).raise_for_status()
    same_as_cold(single, messages)


def test_image_and_text_side_by_side(two_slots) -> None:
    talks = []
    for i, text in enumerate(("What is the capital of France?", "How do I loop over a list in Python?") * 3):
        talks.append([user(text, png(64, 48, 20 + i))] if i % 2 == 0 else [user(text)])
    wanted = [ask(two_slots, talk, cache_prompt=False, **OFF)["content"] for talk in talks]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda talk: ask(two_slots, talk, cache_prompt=False), talks))
    assert [answer["content"] for answer in found] == wanted
    assert all(drafted(answer)[0] > 0 for answer in found)
    assert all(drafted(answer)[1] > 0 for answer in found[1::2])


def test_several_answers_about_an_image(two_slots) -> None:
    body = {"messages": [user("Name three rivers.", png(64, 48, 11))], "temperature": 0, "max_tokens": 40}
    response = two_slots.post("/v1/chat/completions", json={**body, "n": 2})
    assert response.status_code == 200, response.text
    texts = [choice["message"]["content"] for choice in response.json()["choices"]]
    assert texts == 2 * [ask(two_slots, body["messages"], max_tokens=40, **OFF)["content"]]


def test_a_damaged_image_is_an_error_and_drafting_goes_on(single) -> None:
    body = {"messages": [user("Name three rivers.", "data:image/png;base64,AAAA")], "max_tokens": 5}
    response = single.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert drafted(ask(single, [user("Name three rivers.")]))[1] > 0
