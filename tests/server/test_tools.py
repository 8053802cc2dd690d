"""Tools through the client that people use: calls that follow their schema, the same with and without drafts.

The bundled model has never seen a tool: the grammar that the server makes of them lets it write nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import nextn
import openai
import pytest

from .conftest import FIXED, SIZES
from .test_openai import PLAIN

# A form in which tools, calls and results can be written; the bundled model's own has none.
TEMPLATE = """\
{%- if tools %}<|im_start|>system
Tools:{% for tool in tools %} {{ tool | tojson }}{% endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content %}{{ message.content }}{% endif %}
{%- for call in message.tool_calls or [] %}
{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

PARAMETERS: dict[str, dict[str, Any]] = {
    "get_weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["Paris", "Rome", "Madrid"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    },
    "add": {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}, "exact": {"type": "boolean"}},
        "required": ["a", "exact"],
        "additionalProperties": False,
    },
}
TOOLS = [{"type": "function", "function": {"name": n, "parameters": p}} for n, p in PARAMETERS.items()]
ASK: dict[str, Any] = {
    "model": "any",
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
    "tools": TOOLS,
    "tool_choice": "required",
    "temperature": 0,
    "max_tokens": 120,
}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nextn.Server]:
    template = tmp_path_factory.mktemp("template") / "tools.jinja"
    template.write_text(TEMPLATE, encoding="utf-8")
    args = ["--jinja", "--chat-template-file", str(template)]
    with nextn.Server(draft=FIXED, extra_args=args, **SIZES) as server:
        yield server


@pytest.fixture(scope="module")
def api(served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.base_url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def ask(served) -> dict[str, Any]:
    """What is asked. Words may stand before a call, and blanks in it: the model would write them for ever."""
    with served.client() as client:
        body = {"content": "{}<|im_end|>", "parse_special": True}
        begin, end, end_of_turn = client.post("/tokenize", json=body).json()["tokens"]
    return {**ASK, "logit_bias": {str(begin): 100, str(end): 50, str(end_of_turn): 100}}


def checked(name: str, arguments: str) -> tuple[str, dict[str, Any]]:
    """A call whose arguments follow the tool's schema."""
    found = json.loads(arguments)
    jsonschema.validate(found, PARAMETERS[name])
    return name, found


def called(answer: Any) -> tuple[str, dict[str, Any]]:
    """The one call of an answer."""
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert call.type == "function" and call.id
    return checked(call.function.name, call.function.arguments)


def test_a_call_follows_its_schema(api, ask) -> None:
    found = api.chat.completions.create(**ask)
    plain = api.chat.completions.create(**ask, **PLAIN)
    assert called(found) == called(plain)
    assert found.usage.completion_tokens == plain.usage.completion_tokens
    assert found.model_extra["timings"]["draft_n_accepted"] > 0
    assert plain.model_extra["timings"]["draft_n"] == 0


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_tool_that_is_named(api, ask, name: str) -> None:
    """With drafts, without, and streamed: one call."""
    options = {**ask, "tools": [tool for tool in TOOLS if tool["function"]["name"] == name]}
    found = called(api.chat.completions.create(**options))
    assert found[0] == name
    assert found == called(api.chat.completions.create(**options, **PLAIN))
    assert found == streamed(api, options)[0]


def streamed(api: openai.OpenAI, options: dict[str, Any]) -> tuple[tuple[str, dict[str, Any]], dict[str, Any]]:
    """The one call of a streamed answer, put together from its pieces, and the answer's timings."""
    names, pieces, reasons, timings = [], [], [], {}
    with api.chat.completions.create(**options, stream=True) as stream:
        for chunk in stream:
            timings = (chunk.model_extra or {}).get("timings") or timings
            for choice in chunk.choices:
                reasons.append(choice.finish_reason)
                for call in choice.delta.tool_calls or []:
                    assert call.index == 0
                    names += [call.function.name] if call.function.name else []
                    pieces.append(call.function.arguments or "")
    assert [reason for reason in reasons if reason] == ["tool_calls"]
    (name,) = names
    assert len(pieces) > 2  # it came in pieces
    return checked(name, "".join(pieces)), timings


def test_a_streamed_call(api, ask) -> None:
    found, timings = streamed(api, ask)
    assert timings["draft_n_accepted"] > 0
    plain, timings = streamed(api, {**ask, **PLAIN})
    assert timings["draft_n"] == 0
    assert found == plain == called(api.chat.completions.create(**ask))


def test_sampled_calls_follow_their_schema(api, ask) -> None:
    """Whichever way drafts are judged; with a seed the call is that of plain decoding.

    Without one, about a call in thirty has no end, plain ones too: the model writes blanks in it until it is stopped.
    """
    for seed in range(3):
        options = {**ask, "temperature": 1.0, "seed": seed}
        assert called(api.chat.completions.create(**options)) == called(api.chat.completions.create(**options, **PLAIN))
    for accept in ("match", "ratio"):
        options = {**ask, "temperature": 1.0, "extra_body": {"speculative": {"accept": accept}}}
        answers = [api.chat.completions.create(**options) for _ in range(4)]
        ended = [answer for answer in answers if answer.choices[0].finish_reason != "length"]
        assert len(ended) >= 2
        for answer in ended:
            called(answer)


def test_a_turn_after_the_call(api, ask) -> None:
    """A call and its result go back into the conversation."""
    (call,) = api.chat.completions.create(**ask).choices[0].message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "18 degrees"}
    messages = [*ask["messages"], {"role": "assistant", "tool_calls": [call.model_dump()]}, result]
    options = {**ASK, "messages": messages, "tool_choice": "none", "max_tokens": 40}
    found, plain = (api.chat.completions.create(**options, **more) for more in ({}, PLAIN))
    assert found.choices[0].message.content == plain.choices[0].message.content
    assert not found.choices[0].message.tool_calls
    assert found.model_extra["timings"]["draft_n"] > 0
