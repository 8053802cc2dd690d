"""Code written for llama-cpp-python, with only its import changed."""

from __future__ import annotations

import json

import nextn
import pytest
from engine import DEMO
from nextn.llama_cpp import Llama, LlamaGrammar

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def llm():
    with Llama(model_path=str(DEMO), n_ctx=512, n_threads=1, verbose=False, logits_all=True, seed=5) as llm:
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


def test_their_options_of_the_constructor(llm, tiny_model):
    options = {"use_mmap": False, "use_mlock": False, "type_k": 8, "type_v": 8, "flash_attn": True, "n_ubatch": 128}
    with Llama(str(DEMO), n_threads=1, **options) as other:
        model, asked = other.speculator.model, {"max_tokens": 8, "temperature": 0.0}
        with nextn.Speculator(model, n_ctx=512, n_threads=1, type_k="q8_0", type_v="q8_0", flash_attn=True) as spec:
            assert other("Once", **asked)["choices"] == spec.create_completion("Once", **asked)["choices"]
    assert model.closed
    with Llama(str(tiny_model("dense", part="trunk")), n_threads=1, type_k=1) as plain:  # no head: plain decoding
        assert plain.speculator.draft is None
        assert plain([5, 6, 7], max_tokens=4)["timings"]["draft_n"] == 0
    assert llm("Once", max_tokens=2, logprobs=1)["choices"][0]["logprobs"]["tokens"]


def test_their_grammars(llm, tmp_path):
    text = 'root ::= ("yes" | "no") "."'
    (tmp_path / "answer.gbnf").write_text(text, encoding="utf-8")
    for grammar in (LlamaGrammar.from_string(text, verbose=False), LlamaGrammar.from_file(tmp_path / "answer.gbnf")):
        assert llm("Is it?", grammar=grammar)["choices"][0]["text"] in ("yes.", "no.")
    schema = json.dumps({"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]})
    answer = llm.create_chat_completion(MESSAGES, grammar=LlamaGrammar.from_json_schema(schema), max_tokens=60)
    assert json.loads(answer["choices"][0]["message"]["content"])["n"] in (1, 2)
    with pytest.raises(nextn.GrammarError):
        LlamaGrammar.from_json_schema("{")
    with pytest.raises(nextn.GrammarError, match="line 1"):
        llm("Is it?", grammar=LlamaGrammar.from_string("root ::= ("))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m: m("a", mirostat_mode=2), TypeError, "mirostat_mode=2) has no counterpart in nextn"),
        (lambda m: m("a", tempature=2), TypeError, "did you mean 'temperature'?"),
        (lambda m: Llama(DEMO, chat_format="chatml"), TypeError, "chat_format='chatml') has no counterpart"),
        (lambda m: Llama(DEMO, type_k=77), ValueError, "type_k must be the number or the name of a type, not 77"),
        (lambda m: Llama(DEMO, type_k=14), ValueError, "type_k must be one of"),
        (lambda m: Llama(DEMO, use_mmap=1), TypeError, "use_mmap must be True or False"),
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
