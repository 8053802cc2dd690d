"""The client that people use, against the server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

ASK: dict[str, Any] = {
    "model": "any",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 60,
}
PLAIN = {"extra_body": {"speculative": {"type": "none"}}}


@pytest.fixture(scope="module")
def api(server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.base_url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_chat(api) -> None:
    found = api.chat.completions.create(**ASK)
    plain = api.chat.completions.create(**ASK, **PLAIN)
    assert found.choices[0].message.content == plain.choices[0].message.content
    assert "Paris" in found.choices[0].message.content
    assert found.usage == plain.usage or found.usage.completion_tokens == plain.usage.completion_tokens
    assert found.model_extra["timings"]["draft_n_accepted"] > 0
    assert plain.model_extra["timings"]["draft_n"] == 0


def test_stream(api) -> None:
    wanted = api.chat.completions.create(**ASK, **PLAIN).choices[0].message.content
    with api.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == wanted
    assert sum(1 for chunk in chunks if chunk.choices and chunk.choices[0].delta.content) > 5
    assert chunks[-1].usage.completion_tokens > 5


def test_log_probabilities(api) -> None:
    options = {**ASK, "logprobs": True, "top_logprobs": 2}
    found = api.chat.completions.create(**options).choices[0].logprobs.content
    plain = api.chat.completions.create(**options, **PLAIN).choices[0].logprobs.content
    assert [item.token for item in found] == [item.token for item in plain]
    assert [item.logprob for item in found] == pytest.approx([item.logprob for item in plain], abs=1e-4)
    assert all(len(item.top_logprobs) == 2 for item in found)


def test_json_schema(api) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema}}
    found = api.chat.completions.create(**ASK, response_format=form)
    plain = api.chat.completions.create(**ASK, response_format=form, **PLAIN)
    assert found.choices[0].message.content == plain.choices[0].message.content
    assert isinstance(json.loads(found.choices[0].message.content)["n"], int)


def test_cancel(api, server) -> None:
    with api.chat.completions.create(
        **{**ASK, "max_tokens": 800}, stream=True, extra_body={"ignore_eos": True}
    ) as stream:
        next(iter(stream))
    end = time.monotonic() + 10
    while any(slot["is_processing"] for slot in server.slots()):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert "Paris" in api.chat.completions.create(**ASK).choices[0].message.content


def test_wrong_value(api) -> None:
    with pytest.raises(openai.BadRequestError, match="n_max must be a whole number"):
        api.chat.completions.create(**ASK, extra_body={"speculative": {"n_max": -1}})
