"""Every public argument with what it must not be: the right exception, which names argument, value and what is allowed.

The cases are made from tables of wrong values by kind of argument. All of them run in this process: none ends it, and
the objects they were tried on answer as before.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import fields
from pathlib import Path

import nextn
import numpy as np
import pytest
from engine import DEMO, SIZES
from nextn import gguf, quantize
from nextn.errors import ClosedError, NextnError
from nextn.options import ChatParams, DraftParams, GenerateParams, SamplingParams

NAN, INF, HUGE = math.nan, math.inf, 10**30
NO_NUMBERS = ["3", b"3", None, [3], {"a": 3}, 1j, object()]
NOT_FINITE = [NAN, INF, -INF, np.float32("nan"), np.float64("-inf")]


def within(low, high, wrong):
    """The same, with the limits that the message has to name."""
    return [(value, error, low, *([] if high is None else [high])) for value, error in wrong]


def whole(low, high=2**31 - 1, *, none=False):
    """Wrong values of an integer argument: of a wrong type, and out of low..high."""
    types = [value for value in NO_NUMBERS if not (none and value is None)]
    wrong = [(value, TypeError) for value in [*types, 1.0, True, np.float32(2), np.bool_(True)]]
    wrong += [(value, TypeError) for value in NOT_FINITE]
    wrong += [(value, ValueError) for value in (low - 1, -HUGE)]
    wrong += [] if high is None else [(value, ValueError) for value in (high + 1, HUGE)]
    return within(low, high, wrong)


def number(low, high):
    """Wrong values of a number."""
    wrong = [(value, TypeError) for value in [*NO_NUMBERS, True]]
    wrong += [(value, ValueError) for value in [*NOT_FINITE, low - 1, HUGE**20]]
    wrong += [] if high is None else [(value, ValueError) for value in (high + 1, HUGE)]
    return within(low, high, wrong)


def flag():
    """Wrong values of True or False."""
    return [(value, TypeError) for value in (0, 1, "yes", None, 1.0, [], np.float32(1))]


def one_of(*, none=False, wrong_word="nonsense"):
    """Wrong values of a choice among words."""
    wrong = [(value, TypeError) for value in (3, b"auto", ["auto"], 1.5) if not (none and value is None)]
    return [*wrong, (wrong_word, ValueError), ("", ValueError)]


def string(*, empty=True):
    """Wrong values of a string."""
    wrong = [(value, TypeError) for value in (3, b"x", ["x"], {"x": 1}, 1.5)]
    return [*wrong, ("", ValueError), (" \n", ValueError)] if empty else wrong


def path(*, none=False):
    """Wrong values of a path."""
    return [(value, TypeError) for value in (3, 1.5, NAN, True, [DEMO], {"a": 1}, object(), *([] if none else [None]))]


DRAFT = {
    "n_max": whole(1, 16),
    "n_min": whole(0, 6),
    "p_min": number(0, 1),
    "adaptive": flag(),
    "vocab": [(v, TypeError) for v in (None, True, b"auto", {1: 2}, 1.5, NAN)]
    + [(v, ValueError) for v in (255, 0, -1, [], [-1], [2**31], "/nowhere/at all", Path("/nowhere"), "")],
}
SAMPLING = {
    "temperature": number(0, None),
    "seed": whole(0, 2**64 - 1, none=True),
    "top_k": whole(0),
    "typical_p": number(0, 1),
    "top_p": number(0, 1),
    "min_p": number(0, 1),
    "repeat_penalty": number(0, 1000),
    "frequency_penalty": number(-1000, 1000),
    "presence_penalty": number(-1000, 1000),
    "repeat_last_n": whole(-1),
    "logit_bias": [(v, TypeError) for v in (3, "a", [1], {"a": 1.0}, {1.5: 1}, {1: "a"}, {1: None}, {1: True})]
    + [(v, ValueError) for v in ({-1: 1.0}, {HUGE: 1.0}, {1: NAN}, {1: INF}, {1: 1e300})],
    "grammar": string(),
    "json_schema": [(v, TypeError) for v in (3, "{}", [1], True)],
    "accept": one_of(),
}
GENERATE = {
    **SAMPLING,
    "max_tokens": whole(1, None, none=True),
    "stop": [(v, TypeError) for v in (3, None, b"x", ["a", 3], {"a": 1}, [None])]
    + [("", ValueError), ([""], ValueError)],
    "ignore_eos": flag(),
    "logprobs": whole(0, 100, none=True),
    "progress": [(v, TypeError) for v in (3, "print", [print])],
}
CHAT = {"chat_template_kwargs": [(v, TypeError) for v in (3, "a", [1], {1: 2}, {"enable_thinking": 1})]}
SPECULATOR = {
    "n_ctx": whole(0, none=True),
    "n_batch": whole(1, none=False),
    "n_ubatch": whole(1),
    "n_threads": whole(1, 512, none=True),
    "n_threads_batch": whole(1, 512, none=True),
    "type_k": [*((v, TypeError) for v in (3, None, b"f16", 1.5)), ("f17", ValueError), ("", ValueError)],
    "type_v": [*((v, TypeError) for v in (3, None, b"f16", 1.5)), ("f17", ValueError), ("", ValueError)],
    "flash_attn": [(v, TypeError) for v in (1, 0, None, 1.5)] + [("on", ValueError)],
    "hidden_tap": [*((v, TypeError) for v in (3, None, b"post")), ("both", ValueError)],
    "offload_kqv": flag(),
    "draft": [(v, TypeError) for v in (3, "auto", {}, True, DraftParams)],
    "draft_model": [(v, TypeError) for v in (3, 1.5, [DEMO])],
    "exact": flag(),
    "ctx_checkpoints": whole(0, 1024),
    "chat_template": [(v, TypeError) for v in (3, b"x", ["x"])],
}
RPC_SERVERS = [
    *((v, TypeError) for v in ("127.0.0.1:1", 5, NAN, {"a:1": 2}, [5], [None], [b"a:1"])),
    *(([v], ValueError) for v in ("", "here", "here:", ":1", "here:0", "here:65536", "a:1,b:2", "[::1]:5", "a:-1")),
]
MODEL = {
    "n_gpu_layers": whole(-1),
    "use_mmap": flag(),
    "use_mlock": flag(),
    "check_tensors": flag(),
    "load_nextn": flag(),
    "rpc_servers": [*RPC_SERVERS, (None, TypeError)],
    "progress": [(v, TypeError) for v in (3, "print")],
}
PLACEMENT = {"n_gpu_layers": whole(-1, none=True), "rpc_servers": RPC_SERVERS}  # of a Speculator, for paths
FILES = {"path": path(), "out": path(), "progress": MODEL["progress"]}
QUANTIZE = {
    **FILES,
    "type": [(3, TypeError), (None, TypeError), ("Q9", ValueError), ("", ValueError)],
    "recipe": one_of(),
    "tensor_types": [(v, TypeError) for v in (3, "a=q8_0", [3], ["ab"], [("a", 3)], [("a", "q8_0", "b")], None)],
    "imatrix": path(none=True),
    "allow_requantize": flag(),
    "n_threads": whole(1, 512, none=True),
}
HUB = {
    "repo_id": string(),
    "filename": string(),
    "quant": string(),
    "revision": string(),
    "local_files_only": flag(),
    "progress_bar": flag(),
    "cache_dir": path(none=True),
}
CONTEXT = {
    "n_ctx": whole(0),
    "n_batch": whole(1),
    "n_ubatch": whole(1),
    "n_seq_max": whole(1, 256),
    "n_threads": whole(1, 512, none=True),
    "n_threads_batch": whole(1, 512, none=True),
    "type_k": SPECULATOR["type_k"],
    "type_v": SPECULATOR["type_v"],
    "flash_attn": SPECULATOR["flash_attn"],
    "n_rs_seq": whole(0),
    "nextn_draft": flag(),
    "hidden_tap": SPECULATOR["hidden_tap"],
    "offload_kqv": flag(),
}
# As NumPy arrays, of a wrong dtype or shape; and lists.
TOKENS = [
    *((v, TypeError) for v in (None, 3, 1.5, b"ab", {1: 2}, {1, 2}, ["a"], [1.5], [None], [[1], [2]], [[1], [2, 3]])),
    *((v, TypeError) for v in (np.zeros((2, 2), np.int32), np.float32([1, 2]), np.array([NAN]), np.array([True]))),
    *((v, ValueError) for v in ([], [-1], [3072], [HUGE], [2**31], np.array([2**40]), np.array([], np.int32))),
]
MESSAGES = [
    *((v, TypeError) for v in (None, 3, "hello", b"hello", {"role": "user"}, [3], ["hello"], [None])),
    *((v, ValueError) for v in ([], [{}], [{"role": "user"}], [{"content": "a"}], [{"role": 3, "content": "a"}])),
    *((v, ValueError) for v in ([{"role": "user", "content": 3}], [{"role": "user", "content": None}])),
]
USER = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def demo():
    with nextn.Model(DEMO) as model:
        yield model


@pytest.fixture(scope="module")
def spec(demo):
    with nextn.Speculator(demo, **SIZES) as spec:
        before = spec.generate("Once", max_tokens=8).tokens
        yield spec
        assert spec.generate("Once", max_tokens=8).tokens == before  # after all of this


def called(function, **usual):
    """A call of a function with what is given instead of the usual."""
    return lambda demo, spec, **given: function(**{**usual, **given})


CALLS = {
    "DraftParams": (DRAFT, lambda demo, spec, **given: DraftParams(**given)),
    "SamplingParams": (SAMPLING, lambda demo, spec, **given: SamplingParams(**given)),
    "GenerateParams": (GENERATE, lambda demo, spec, **given: GenerateParams(**given)),
    "ChatParams": (CHAT, lambda demo, spec, **given: ChatParams(**given)),
    "generate": (GENERATE, lambda demo, spec, **given: spec.generate("a", **given)),
    "chat": (CHAT, lambda demo, spec, **given: spec.stream_chat(USER, **given)),
    "create_completion": (
        {"stream": flag(), "echo": flag(), "max_tokens": [(1.5, TypeError), ("3", TypeError), (NAN, TypeError)]},
        lambda demo, spec, **given: spec.create_completion("a", **given),
    ),
    "create_chat_completion": (
        {"stream": flag(), "logprobs": flag()[:3], "top_logprobs": whole(0, 100, none=True)},
        lambda demo, spec, **given: spec.create_chat_completion(USER, **{"logprobs": True, **given}),
    ),
    "Speculator": (SPECULATOR, lambda demo, spec, **given: nextn.Speculator(demo, **{"n_ctx": 512, **given})),
    "Speculator of a path": (PLACEMENT, lambda demo, spec, **given: nextn.Speculator(DEMO, n_ctx=512, **given)),
    "Model of": ({"path": path()}, lambda demo, spec, path: nextn.Model(path)),
    "Model": (MODEL, lambda demo, spec, **given: nextn.Model(DEMO, **given)),
    "from_pretrained": (
        HUB,
        lambda demo, spec, **given: nextn.Model.from_pretrained(
            **{"repo_id": "a/b", "local_files_only": True, **given}
        ),
    ),
    "verify": ({"path": path(), "load": flag()}, called(nextn.verify, path=DEMO)),
    "inspect": ({"path": path()}, called(gguf.inspect)),
    "read_header": ({"path": path()}, called(gguf.read_header)),
    "check_loadable": ({"path": path()}, called(gguf.check_loadable)),
    "extract_head": (FILES, called(gguf.extract_head, path=DEMO, out="/nowhere/at/all")),
    "graft_head": ({**FILES, "head": path()}, called(gguf.graft_head, path=DEMO, head=DEMO, out="/nowhere/at/all")),
    "quantize": (
        {name: wrong for name, wrong in QUANTIZE.items() if name != "type"},
        called(quantize.quantize, path=DEMO, out="/nowhere/at/all", type_name="Q8_0"),
    ),
    "make_plan": ({"type": QUANTIZE["type"]}, lambda demo, spec, type: quantize.make_plan(DEMO, type)),  # noqa: A006
    "read_imatrix": ({"path": path()}, called(quantize.read_imatrix)),
    "Server": ({"model": path(none=True), "draft_model": path(none=True)}, called(nextn.Server)),
    "Context": (CONTEXT, lambda demo, spec, **given: nextn.Context(demo, **{"n_ctx": 512, **given})),
    "prompt": ({"prompt": TOKENS}, lambda demo, spec, prompt: spec.generate(prompt)),
    "completion prompt": ({"prompt": TOKENS}, lambda demo, spec, prompt: spec.create_completion(prompt)),
    "messages": ({"messages": MESSAGES}, lambda demo, spec, messages: spec.chat(messages)),
    "completion messages": ({"messages": MESSAGES}, lambda demo, spec, messages: spec.create_chat_completion(messages)),
}
ALL = [
    pytest.param(call, name, value, error, limits, id=f"{call}-{name}-{value!r}"[:80])
    for call, (table, _) in CALLS.items()
    for name, wrong in table.items()
    for value, error, *limits in wrong
]


@pytest.mark.parametrize(("call", "name", "value", "error", "limits"), ALL)
def test_wrong_value(demo, spec, call, name, value, error, limits):
    with pytest.raises((TypeError, ValueError)) as caught:
        result = CALLS[call][1](demo, spec, **{name: value})
        if hasattr(result, "close"):
            result.close()
    assert type(caught.value) is error
    text = str(caught.value)
    assert name in text
    shown = text.partition(name)[2]
    assert " must " in shown or "exclude" in shown or "is no text file" in shown, text  # what is allowed
    for limit in limits:
        assert str(limit) in shown, text
    if isinstance(value, (int, float, str)) and value not in ("", " \n") and not isinstance(value, bool):
        short = repr(value)[:40].removeprefix("np.float32(").removeprefix("np.float64(").rstrip(")")
        assert short.strip("'") in text or type(value).__name__ in text, text  # the value, or its type


def test_the_first_argument_may_be_named():
    with nextn.Model(path=DEMO) as model, nextn.Context(model=model, n_ctx=64) as context:
        assert context.n_ctx >= 64
    with nextn.Speculator(model=DEMO, n_ctx=64) as spec, pytest.raises(TypeError, match="did you mean 'n_ctx'"):
        nextn.Speculator(model=spec.model, nctx=3)
    with pytest.raises(nextn.ModelFileError):
        nextn.Server(model="/nowhere/at/all")


def test_there_are_enough():
    assert len(ALL) >= 300
    assert len({str(case.id) for case in ALL}) > 600


def test_every_option_is_tried():
    """A new option must come into the tables."""

    def keywords(function):
        return {p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}

    assert set(DRAFT) == {field.name for field in fields(DraftParams)}
    assert set(GENERATE) == {field.name for field in fields(GenerateParams)}
    assert {*GENERATE, *CHAT} == {field.name for field in fields(ChatParams)}
    assert keywords(nextn.Speculator.__init__) == {*SPECULATOR, *PLACEMENT}
    assert keywords(nextn.Model.__init__) == set(MODEL)
    assert keywords(nextn.Context.__init__) - set(CONTEXT) == {"imatrix"}  # nextn.quantize's own


@pytest.mark.parametrize(
    "call",
    [
        lambda m, s, c: s.generate("a"),
        lambda m, s, c: next(s.stream("a")),
        lambda m, s, c: s.chat(USER),
        lambda m, s, c: next(s.stream_chat(USER)),
        lambda m, s, c: s.create_completion("a"),
        lambda m, s, c: s.create_chat_completion(USER, stream=True),
        lambda m, s, c: nextn.Speculator(m),
        lambda m, s, c: nextn.Context(m),
        lambda m, s, c: m.tokenize("a"),
        lambda m, s, c: m.detokenize([1]),
        lambda m, s, c: m.token_to_piece(1),
        lambda m, s, c: m.eog_tokens,
        lambda m, s, c: m.n_vocab,
        lambda m, s, c: c.decode([1]),
        lambda m, s, c: c.logits(),
        lambda m, s, c: c.seq_rm(0, 0, -1),
        lambda m, s, c: c.nextn_seq_rm(0, 0, -1),
        lambda m, s, c: c.save_state(),
        lambda m, s, c: c.restore_state(b"", 1),
        lambda m, s, c: c.abort(),
        lambda m, s, c: c.halt(True),
        lambda m, s, c: c.n_ctx,
        lambda m, s, c: c.pair(None),
    ],
)
def test_closed(call):
    model = nextn.Model(DEMO)
    context = nextn.Context(model, n_ctx=256)
    spec = nextn.Speculator(model, n_ctx=256)
    for thing in (spec, context, model, spec, context, model):
        thing.close()
    with pytest.raises(ClosedError, match="closed"):
        call(model, spec, context)
    assert spec.cancel() is False


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda c: c.decode([1], seq_id=1), ValueError, "seq_id must be"),
        (lambda c: c.decode([1], seq_id=NAN), TypeError, "seq_id"),
        (lambda c: c.decode([1], outputs="some"), ValueError, "outputs must be"),
        (lambda c: c.decode([1], hidden=np.zeros((1, 256), np.float32)), ValueError, "hidden"),
        (lambda c: c.decode([1], positions=[5, 6]), ValueError, "positions"),
        (lambda c: c.save_state(3), ValueError, "seq_id must be"),
        (lambda c: c.restore_state("a", 1), TypeError, "state must be the bytes"),
        (lambda c: c.restore_state(b"", 0), ValueError, "n_past must be"),
        (lambda c: c.restore_state(b"", NAN), TypeError, "n_past must be"),
        (lambda c: c.halt(1), TypeError, "value must be True or False"),
        (lambda c: c.max_rollback(-1), ValueError, "seq_id must be"),
        (lambda c: c.set_hidden_tap("x"), ValueError, "hidden_tap must be"),
        (lambda c: c.logits(), NextnError, "decode"),
    ],
)
def test_calls_of_a_context(demo, call, error, text):
    with nextn.Context(demo, n_ctx=256, n_threads=1) as context:
        with pytest.raises(error, match=text):
            call(context)
        assert context.decode([1]) == 1


def test_states_that_are_not_ones_own(demo):
    """Any bytes are refused, or leave an empty sequence; nothing ends the process."""
    with nextn.Context(demo, n_ctx=256, n_threads=1) as context:
        context.decode([1, 2, 3])
        state = context.save_state()
        context.decode([4])
        for wrong in (b"", b"x", bytes(len(state)), state[:-1], state[: len(state) // 2], b"\xff" * len(state)):
            assert context.restore_state(wrong, 3) is False
            if context.seq_pos_max() < 0:
                context.decode([1, 2, 3])
                state = context.save_state()
                context.decode([4])
        assert context.restore_state(state, 9) is False
        assert context.restore_state(state, 3) is True
        assert context.seq_pos_max() == 2


@pytest.mark.parametrize(
    "text", ["\x00", "\ud800", "a" * 20000, "<|im_start|>" * 50, "\U0001f600" * 300, "\n" * 3000, "\x1b[31m"]
)
def test_strange_texts(spec, text):
    """An answer or an exception, whatever the text."""
    try:
        assert len(spec.generate(text, max_tokens=2).tokens) <= 2
    except (NextnError, ValueError) as error:
        assert str(error)


def test_huge_numbers_of_stops_and_messages(spec):
    assert spec.generate("Once", max_tokens=4, stop=[f"{i}~" for i in range(2000)]).finish_reason in ("stop", "length")
    with pytest.raises(NextnError):
        spec.chat(USER * 1000)
