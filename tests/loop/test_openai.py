"""Results in OpenAI's shape: what they hold is what generate() and chat() say, whole and streamed, drafted or not."""

from __future__ import annotations

import json

import numpy as np
import pytest
from engine import DEMO, SIZES, chat_prompt, heldout_prompts
from nextn.context import Context
from nextn.drafting import ScriptedDrafter
from nextn.model import Model
from nextn.options import DraftParams
from nextn.speculator import Speculator
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from test_generation import force_script

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
THINKING = (
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% else %}<think>\n{% endif %}"
    "{% endif %}"
)


@pytest.fixture(scope="module")
def demo():
    with Model(DEMO) as model:
        yield model


@pytest.fixture(scope="module")
def spec(demo):
    with Speculator(demo, draft=DraftParams(n_max=4, adaptive=False), **SIZES) as spec:
        yield spec


@pytest.fixture(scope="module")
def plain_spec(demo):
    with Speculator(demo, draft=None, **SIZES) as spec:
        yield spec


def test_completion(demo, spec):
    result = spec.generate("def add(a, b):", max_tokens=12)
    found = spec.create_completion("def add(a, b):", max_tokens=12)
    assert json.loads(json.dumps(found)) == found
    assert found["object"] == "text_completion"
    assert found["id"].startswith("cmpl-")
    assert found["model"] == demo.path
    ending = result.finish_reason
    assert found["choices"] == [{"text": result.text, "index": 0, "logprobs": None, "finish_reason": ending}]
    n_prompt, n = len(demo.tokenize("def add(a, b):")), len(result.tokens)
    assert {name: found["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")} == {
        "prompt_tokens": n_prompt, "completion_tokens": n, "total_tokens": n_prompt + n,
    }  # fmt: skip
    echoed = spec.create_completion("def add(a, b):", max_tokens=12, echo=True, model="m", stop=None)
    assert (echoed["choices"][0]["text"], echoed["model"]) == ("def add(a, b):" + result.text, "m")


def test_chat_completion(spec):
    result = spec.chat(MESSAGES)
    found = spec.create_chat_completion(MESSAGES, max_tokens=-1)
    assert found["object"] == "chat.completion"
    assert found["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": result.text},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert found["timings"]["draft_n_accepted"] == result.stats.draft_n_accepted > 0


def test_streams_add_up(spec):
    whole = spec.create_completion("The first planets are", max_tokens=30, logprobs=1)
    pieces = list(spec.create_completion("The first planets are", max_tokens=30, logprobs=1, stream=True))
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == whole["choices"][0]["text"]
    for name in ("tokens", "text_offset", "token_logprobs", "top_logprobs"):
        joined = [entry for piece in pieces for entry in piece["choices"][0]["logprobs"][name]]
        assert joined == whole["choices"][0]["logprobs"][name]
    assert [piece["choices"][0]["finish_reason"] for piece in pieces][-2:] == [
        None,
        whole["choices"][0]["finish_reason"],
    ]
    assert len({piece["id"] for piece in pieces}) == 1

    whole = spec.create_chat_completion(MESSAGES, max_tokens=30)
    pieces = list(
        spec.create_chat_completion(MESSAGES, max_tokens=30, stream=True, stream_options={"include_usage": True})
    )
    assert {piece["object"] for piece in pieces} == {"chat.completion.chunk"}
    *pieces, usage = pieces
    assert (usage["choices"], usage["usage"]) == ([], {**whole["usage"], "prompt_tokens_details": {"cached_tokens": 0}})
    deltas = [piece["choices"][0]["delta"] for piece in pieces]
    assert deltas[0] == {"role": "assistant"}
    assert deltas[-1] == {}
    assert "".join(delta.get("content", "") for delta in deltas) == whole["choices"][0]["message"]["content"]
    assert pieces[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("options", [{}, {"logprobs": 2}], ids=["text", "logprobs"])
def test_openais_own_types_take_the_results(spec, options):
    """Its package's models, strictly: a missing key, an unknown word or a wrong type is an error."""
    asked = {"max_tokens": 20, **options}
    whole = spec.create_completion("The first planets are", **asked)
    assert Completion.model_validate(whole, strict=True).choices[0].text == whole["choices"][0]["text"]
    pieces = spec.create_completion(
        "The first planets are", stream=True, stream_options={"include_usage": True}, **asked
    )
    # a completion's type has no word for "not finished yet", which OpenAI sends as null all the same
    texts = [Completion.model_validate(finished(piece), strict=True) for piece in pieces]
    assert "".join(choice.text for text in texts for choice in text.choices) == whole["choices"][0]["text"]
    assert texts[-1].usage.completion_tokens == whole["usage"]["completion_tokens"]

    asked = {"max_tokens": 20, **({"logprobs": True, "top_logprobs": 2} if options else {})}
    whole = spec.create_chat_completion(MESSAGES, **asked)
    read = ChatCompletion.model_validate(whole, strict=True)
    assert read.choices[0].message.content == whole["choices"][0]["message"]["content"]
    assert (read.choices[0].logprobs is not None) == bool(options)
    chunks = [
        ChatCompletionChunk.model_validate(piece, strict=True)
        for piece in spec.create_chat_completion(MESSAGES, stream=True, stream_options={"include_usage": True}, **asked)
    ]
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == read.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole["usage"]["completion_tokens"]


def finished(piece):
    """With a word for what is not finished."""
    choices = [{**choice, "finish_reason": choice["finish_reason"] or "stop"} for choice in piece["choices"]]
    return {**piece, "choices": choices}


def test_token_ids_of_a_bias_may_be_strings(demo, spec):
    likeliest, *_ = spec.generate("Once upon a time", max_tokens=1).tokens
    texts = [
        spec.create_completion("Once upon a time", max_tokens=1, logit_bias=bias)["choices"][0]["text"]
        for bias in ({}, {likeliest: -100}, {str(likeliest): -100})
    ]
    assert texts[0] != texts[1] == texts[2]
    with pytest.raises(TypeError, match="a token id in logit_bias must be an integer"):
        spec.create_completion("a", logit_bias={"first": 1})


def test_a_stream_that_is_closed_frees_the_speculator(spec):
    stream = spec.create_chat_completion(MESSAGES, stream=True)
    next(stream), next(stream)
    stream.close()
    assert spec.create_chat_completion(MESSAGES, max_tokens=3)["usage"]["completion_tokens"] == 3


def test_no_limit_is_what_fits(demo):
    with Speculator(demo, n_ctx=60, n_batch=32, n_ubatch=32, n_threads=1) as small:
        for asked in (None, -1, 0, 10**6):
            usage = small.create_completion("hi " * 10, max_tokens=asked, ignore_eos=True)["usage"]
            assert usage["total_tokens"] == 60


def log_softmax(row):
    row = row.astype(np.float64)
    return row - row.max() - np.log(np.exp(row - row.max()).sum())


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_logprobs_are_those_of_one_token_at_a_time(demo, spec, temperature):
    """Against single decodes of the same text without a Speculator: the drafted tokens' rows are the right ones."""
    n_drafted = 0
    for text in heldout_prompts()[:9:4]:
        prompt = chat_prompt(demo, text)
        result = spec.generate(prompt, max_tokens=50, logprobs=3, temperature=temperature, seed=3)
        n_drafted += result.stats.draft_n_accepted
        assert [entry.token for entry in result.logprobs] == list(result.tokens)
        with Context(demo, **SIZES) as context:
            for start in range(0, len(prompt), SIZES["n_ubatch"]):
                context.decode(prompt[start : start + SIZES["n_ubatch"]], outputs="last")
            for entry in result.logprobs:
                expected = log_softmax(context.logits()[-1])
                assert entry.logprob == pytest.approx(expected[entry.token], abs=1e-6)
                order = np.argsort(-expected, kind="stable")[:3]
                assert [token for token, _ in entry.top] == order.tolist()
                assert [value for _, value in entry.top] == pytest.approx(expected[order], abs=1e-6)
                context.decode([entry.token])
    assert n_drafted > 40


def test_logprobs_in_the_older_form(demo, spec):
    found = spec.create_completion("The first planets are", max_tokens=20, logprobs=2, echo=True)["choices"][0]
    logprobs, text = found["logprobs"], found["text"]
    for token, offset in zip(logprobs["tokens"], logprobs["text_offset"], strict=True):
        assert text[offset:].startswith(token)
    assert "".join(logprobs["tokens"]) == text.removeprefix("The first planets are")
    for token, logprob, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert top[token] == logprob == max(top.values())  # greedy
        assert len(top) == 2
    # a stop string cuts the tokens with the text
    cut = spec.create_completion("The first planets are", max_tokens=20, logprobs=0, stop=text[-9:-5])["choices"][0]
    assert "".join(cut["logprobs"]["tokens"]).startswith(cut["text"])
    assert all(offset < len(cut["text"]) for offset in cut["logprobs"]["text_offset"])


def test_logprobs_in_the_newer_form(spec):
    found = spec.create_chat_completion(MESSAGES, logprobs=True, top_logprobs=2)["choices"][0]
    content = found["logprobs"]["content"]
    assert b"".join(bytes(entry["bytes"]) for entry in content).decode() == found["message"]["content"]
    for entry in content:
        assert entry["logprob"] == entry["top_logprobs"][0]["logprob"] <= 0
        assert len(entry["top_logprobs"]) == 2
    assert spec.create_chat_completion(MESSAGES, logprobs=False, max_tokens=2)["choices"][0]["logprobs"] is None


def test_ignore_eos_goes_on(demo, spec, plain_spec):
    stopped = spec.chat(MESSAGES, max_tokens=200)
    assert stopped.finish_reason == "stop"
    for one in (spec, plain_spec):
        result = one.chat(MESSAGES, max_tokens=80, ignore_eos=True)
        assert (len(result.tokens), result.finish_reason) == (80, "length")
        assert result.tokens[: len(stopped.tokens)] == stopped.tokens
        assert result.text.startswith(stopped.text)
        assert result.tokens == plain_spec.chat(MESSAGES, max_tokens=80, ignore_eos=True).tokens


def test_thinking_is_split_from_the_answer(demo):
    script = demo.tokenize("France? Easy.\n</think>\n\nParis.<|im_end|>", parse_special=True)
    with Speculator(demo, draft=ScriptedDrafter(script, n_max=5), chat_template=THINKING, **SIZES) as spec:
        force_script(spec, script)
        result = spec.chat(MESSAGES)
        assert (result.reasoning_content, result.text) == ("France? Easy.", "Paris.")
        message = spec.create_chat_completion(MESSAGES)["choices"][0]["message"]
        assert message == {"role": "assistant", "content": "Paris.", "reasoning_content": "France? Easy."}
        deltas = [piece["choices"][0]["delta"] for piece in spec.create_chat_completion(MESSAGES, stream=True)]
        assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "France? Easy."
        assert "".join(delta.get("content", "") for delta in deltas) == "Paris."
        # without thinking the prompt has closed the tags, and the answer is content from the start
        result = spec.chat(MESSAGES, chat_template_kwargs={"enable_thinking": False})
        assert result.reasoning_content == ""
        assert result.text.startswith("France? Easy.\n</think>")


def test_template_variables_reach_the_template(demo, plain_spec):
    with Speculator(demo, draft=None, chat_template="{{ style }}:{{ messages[0].content }}", **SIZES) as spec:
        result = spec.chat(MESSAGES, chat_template_kwargs={"style": "dry"}, max_tokens=9)
        expected = plain_spec.generate("dry:" + MESSAGES[0]["content"], max_tokens=9)
        assert (result.tokens, result.stats.prompt_tokens) == (expected.tokens, expected.stats.prompt_tokens)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda s: s.create_completion("a", stream=1), TypeError, "stream must be True or False, not 1"),
        (lambda s: s.create_completion("a", max_tokens=2.0), TypeError, "max_tokens must be"),
        (lambda s: s.create_completion("a", model=3), TypeError, "model must be a string or None, not int"),
        (lambda s: s.create_completion("a", top_logprobs=3), TypeError, "did you mean 'logprobs'?"),
        (lambda s: s.create_completion("a", stream_options=True), TypeError, "stream_options must be"),
        (lambda s: s.create_chat_completion(MESSAGES, logprobs=3), TypeError, "logprobs must be True or False, not 3"),
        (lambda s: s.create_chat_completion(MESSAGES, top_logprobs=3), ValueError, "top_logprobs needs logprobs=True"),
        (lambda s: s.create_chat_completion(MESSAGES, temprature=3), TypeError, "did you mean 'temperature'?"),
        (lambda s: s.chat(MESSAGES, chat_template_kwargs=[1]), TypeError, "chat_template_kwargs must be a mapping"),
        (
            lambda s: s.chat(MESSAGES, chat_template_kwargs={"enable_thinking": 1}),
            TypeError,
            'chat_template_kwargs["enable_thinking"] must be True or False, not 1',
        ),
    ],
)
def test_wrong_arguments(spec, call, error, text):
    with pytest.raises(error) as e:
        call(spec)
    assert text in str(e.value)
