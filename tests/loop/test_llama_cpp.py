"""Code written for llama-cpp-python, with only its import changed."""

from __future__ import annotations

import json

import nextn
import pytest
from engine import DEMO
from nextn.llama_cpp import Llama

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def llm():
    with Llama(model_path=str(DEMO), n_ctx=512, n_threads=1, verbose=False, logits_all=False, seed=5) as llm:
        yield llm


def test_their_readme(llm):
    output = llm("Q: Name the planets in the solar system? A: ", max_tokens=32, stop=["Q:", "\n"], echo=True)
    assert output["object"] == "text_completion"
    assert output["choices"][0]["text"].startswith("Q: Name the planets in the solar system? A: ")
    output = llm.create_chat_completion(
        messages=[{"role": "system", "content": "You are an assistant."}, *MESSAGES],
        response_format={"type": "json_object"},
        temperature=0.7,
        max_tokens=100,
    )
    if output["choices"][0]["finish_reason"] == "stop":
        assert isinstance(json.loads(output["choices"][0]["message"]["content"]), dict)
    text = ""
    for piece in llm.create_completion("The first planets are", stream=True, max_tokens=10, tools=None):
        text += piece["choices"][0]["text"]
    assert text


def test_their_defaults(llm):
    """16 tokens, drawn with temperature 0.8, top_k 40, top_p 0.95, min_p 0.05."""
    options = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "max_tokens": 16, "seed": 11}
    expected = llm.speculator.create_completion("Once upon", **options)["choices"]
    assert llm("Once upon", seed=11)["choices"] == expected
    assert llm("Once upon")["choices"] == llm("Once upon", seed=5)["choices"]  # the seed of the constructor
    options = {**options, "temperature": 0.2, "max_tokens": None}
    expected = llm.speculator.create_chat_completion(MESSAGES, **options)["choices"]
    assert llm.create_chat_completion(MESSAGES, seed=11, top_k=40)["choices"] == expected


def test_small_things(llm):
    tokens = llm.tokenize(b"Hello <|im_end|>", special=True)
    assert llm.detokenize(tokens, special=True) == b"Hello <|im_end|>"
    assert tokens[-1] == llm.token_eos() or tokens[-1] in llm.speculator.model.eog_tokens
    assert (llm.n_ctx(), llm.n_vocab(), llm.n_embd()) == (512, 3072, 256)
    assert llm.metadata["general.architecture"] == "qwen35"
    llm.reset()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m: m("a", mirostat_mode=2), TypeError, "mirostat_mode=2) has no counterpart in nextn"),
        (lambda m: m("a", tempature=2), TypeError, "did you mean 'temperature'?"),
        (lambda m: Llama(DEMO, chat_format="chatml"), TypeError, "chat_format='chatml') has no counterpart"),
        (lambda m: Llama(DEMO, nctx=5), TypeError, "did you mean 'n_ctx'?"),
        (lambda m: m.create_chat_completion(MESSAGES, response_format="json"), TypeError, "response_format must be"),
        (
            lambda m: m.create_chat_completion(MESSAGES, response_format={"type": "x"}),
            ValueError,
            "response_format must",
        ),
        (lambda m: Llama("nowhere.gguf"), nextn.ModelFileError, "nowhere.gguf"),
    ],
)
def test_what_has_no_counterpart(llm, call, error, text):
    with pytest.raises(error) as caught:
        call(llm)
    assert text in str(caught.value)
