"""Options: every wrong argument is refused by name, value and range."""

from __future__ import annotations

import dataclasses
import re
from typing import get_type_hints

import numpy as np
import pytest
from nextn.options import (
    DraftParams,
    GenerateOptions,
    GenerateParams,
    SamplingParams,
    check_bool,
    check_choice,
    name_unknown_keywords,
)

NAN, INF = float("nan"), float("inf")


def test_defaults():
    assert DraftParams() == DraftParams(n_max=6, n_min=0, p_min=0.0, adaptive=True, vocab="auto")
    assert GenerateParams() == GenerateParams(temperature=0.0, seed=None, max_tokens=None, stop=())


def test_values_become_plain_python():
    params = DraftParams(n_max=np.int64(5), n_min=np.uint8(2), p_min=1)  # type: ignore[arg-type]
    assert [type(getattr(params, name)) for name in ("n_max", "n_min", "p_min")] == [int, int, float]
    assert GenerateParams(stop="END").stop == ("END",)
    assert GenerateParams(stop=["a", "b"]).stop == ("a", "b")
    assert GenerateParams(temperature=np.float32(0.5), seed=2**64 - 1).temperature == 0.5  # type: ignore[arg-type]


def test_options_are_keyword_only_and_frozen():
    with pytest.raises(TypeError):
        DraftParams(3)  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        DraftParams().n_max = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("cls", "name", "value", "error", "allowed"),
    [
        *(
            (DraftParams, "n_max", value, error, "an integer from 1 to 16")
            for value, error in [
                (0, ValueError), (17, ValueError), (-1, ValueError), (10**30, ValueError), (True, TypeError),
                (np.True_, TypeError), (2.0, TypeError), (NAN, TypeError), ("3", TypeError), (None, TypeError),
                ([3], TypeError), (np.array([3]), TypeError),
            ]
        ),
        (DraftParams, "n_min", 7, ValueError, "an integer from 0 to 6"),
        (DraftParams, "n_min", -1, ValueError, "an integer from 0 to 6"),
        (DraftParams, "n_min", False, TypeError, "an integer from 0 to 6"),
        *(
            (DraftParams, "p_min", value, error, "a number from 0 to 1")
            for value, error in [
                (1.01, ValueError), (-0.1, ValueError), (NAN, ValueError), (INF, ValueError), (-INF, ValueError),
                (True, TypeError), ("0.5", TypeError), (None, TypeError), (1j, TypeError), (10**400, ValueError),
            ]
        ),
        *(
            (cls, "temperature", value, error, "a finite number >= 0")
            for cls in (SamplingParams, GenerateParams)
            for value, error in [
                (-0.1, ValueError), (NAN, ValueError), (np.float32("nan"), ValueError), (INF, ValueError),
                (10**400, ValueError), (False, TypeError), ("hot", TypeError), (None, TypeError), ([1.0], TypeError),
            ]
        ),
        *(
            (SamplingParams, "seed", value, error, "an integer from 0 to 18446744073709551615")
            for value, error in [
                (-1, ValueError), (2**64, ValueError), (1.5, TypeError), (True, TypeError), ("a", TypeError),
            ]
        ),
        *(
            (GenerateParams, "max_tokens", value, error, "an integer >= 1")
            for value, error in [
                (0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError), (INF, TypeError),
            ]
        ),
        *(
            (GenerateParams, "stop", value, error, "a string or a sequence of strings, none of them empty")
            for value, error in [
                ("", ValueError), ([""], ValueError), (["a", ""], ValueError), (None, TypeError), (3, TypeError),
                (b"a", TypeError), ([b"a"], TypeError), ([None], TypeError), ({"a": 1}, TypeError), (True, TypeError),
            ]
        ),
    ],
)  # fmt: skip
def test_wrong_values_are_refused_by_name_value_and_range(cls, name, value, error, allowed):
    with pytest.raises(error) as e:
        cls(**{name: value})
    message = str(e.value)
    assert message.startswith(f"{name} must be {allowed}, not ")
    shown = repr(value)[:50]
    assert shown in message or repr(int(value))[:50] in message


def test_long_values_are_shortened_in_messages():
    with pytest.raises(TypeError) as e:
        DraftParams(n_max="x" * 10_000)  # type: ignore[arg-type]
    assert len(str(e.value)) < 150


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: DraftParams(nmax=3), "DraftParams() got an unexpected keyword argument 'nmax'; did you mean 'n_max'?"),
        (lambda: DraftParams(pmin=3), "did you mean 'p_min'?"),
        (lambda: SamplingParams(temp=1.0), "did you mean 'temperature'?"),
        (lambda: GenerateParams(max_token=1), "did you mean 'max_tokens'?"),
        (lambda: GenerateParams(stops="a"), "did you mean 'stop'?"),
        (lambda: DraftParams(zzz=1), "it takes n_max, n_min, p_min, adaptive, vocab"),
        (
            lambda: GenerateParams.of("Speculator.generate", {"temprature": 1}),
            "Speculator.generate() got an unexpected",
        ),
    ],
)
def test_unknown_options_name_the_nearest(make, text):
    with pytest.raises(TypeError, match=re.escape(text)):
        make()


def test_the_decorator_keeps_signature_and_ordinary_errors():
    import inspect

    class Thing:
        @name_unknown_keywords
        def __init__(self, a, *, width=1, height=2):
            self.size = a, width, height

    assert list(inspect.signature(Thing).parameters) == ["a", "width", "height"]
    assert Thing(1, height=5).size == (1, 1, 5)
    with pytest.raises(TypeError, match=r"Thing\(\) got .* 'widht'; did you mean 'width'\?"):
        Thing(1, widht=3)
    with pytest.raises(TypeError, match="missing 1 required"):
        Thing()


def test_type_checkers_see_every_option_of_generate():
    names = {field.name for field in dataclasses.fields(GenerateParams)}
    assert set(GenerateOptions.__annotations__) == names
    hints, fields = get_type_hints(GenerateOptions), get_type_hints(GenerateParams)
    assert hints == {name: fields[name] for name in names}


def test_choices_are_compared_by_type_as_well():
    choices = ("auto", True, False)
    for value in choices:
        check_choice("flash_attn", value, choices)
    with pytest.raises(TypeError, match=r"flash_attn must be one of 'auto', True, False, not 1"):
        check_choice("flash_attn", 1, choices)
    with pytest.raises(ValueError, match="not 'off'"):
        check_choice("flash_attn", "off", choices)


def test_bools_are_bools():
    assert check_bool("x", np.True_) is True
    with pytest.raises(TypeError, match="x must be True or False, not 1"):
        check_bool("x", 1)


def test_vocab_of_the_draft_head(tmp_path):
    assert [DraftParams(vocab=v).n_vocab for v in ("auto", "full", 1024)] == [0, -1, 1024]
    assert DraftParams(vocab=[5, 3]).vocab_ids == (5, 3)
    ids = tmp_path / "ids.txt"
    ids.write_text("7\n8\n")
    assert DraftParams(vocab=ids).vocab_ids == DraftParams(vocab=str(ids)).vocab_ids == (7, 8)
    ids.write_text("7 eight")
    with pytest.raises(ValueError, match="no text file with one token id per line"):
        DraftParams(vocab=ids)
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        DraftParams(vocab="automatic")


@pytest.mark.parametrize(
    ("value", "error"),
    [(255, ValueError), (True, TypeError), (1.5, TypeError), (None, TypeError), ([], ValueError), ([-1], ValueError),
     (["a"], TypeError), (b"auto", TypeError), ({}, TypeError)],
)  # fmt: skip
def test_a_wrong_vocab_is_refused(value, error):
    with pytest.raises(error, match="^vocab must be"):
        DraftParams(vocab=value)


WRONG_NUMBERS = [
    (NAN, ValueError), (INF, ValueError), (-INF, ValueError), (10**400, ValueError), (True, TypeError),
    (np.False_, TypeError), (None, TypeError), ("0.5", TypeError), ("", TypeError), (b"1", TypeError), ([], TypeError),
    ([0.5], TypeError), ({}, TypeError), (np.array([0.5, 0.5]), TypeError), (1j, TypeError), (object(), TypeError),
]  # fmt: skip
HUGE = 10**30
WRONG_INTEGERS = [
    (NAN, TypeError), (INF, TypeError), (2.0, TypeError), (np.float32(3), TypeError), (HUGE, ValueError),
    (-(10**30), ValueError), (True, TypeError), (np.True_, TypeError), ("3", TypeError), ([3], TypeError),
    ({}, TypeError), (np.array([3, 4]), TypeError), (object(), TypeError),
]  # fmt: skip
UNIT = "a number from 0 to 1"
SAMPLING_NUMBERS = {
    "temperature": ("a finite number >= 0", [-0.1, -1e300]),
    "typical_p": (UNIT, [-1e-9, 1.0000001, 40]),
    "top_p": (UNIT, [-1e-9, 1.0000001, 95]),
    "min_p": (UNIT, [-1e-9, 1.0000001, 5]),
    "repeat_penalty": ("a number from 0.001 to 1000", [0, -1, 0.0009, 1001]),
    "frequency_penalty": ("a number from -1000 to 1000", [-1001, 1e300]),
    "presence_penalty": ("a number from -1000 to 1000", [-1001, 1e300]),
}
SAMPLING_INTEGERS = {
    "top_k": (f"an integer from 0 to {2**31 - 1}", [-1, 2**31], [None]),
    "repeat_last_n": (f"an integer from -1 to {2**31 - 1}", [-2, 2**31], [None]),
    "seed": (f"an integer from 0 to {2**64 - 1}", [-1, 2**64], []),
    "max_tokens": ("an integer >= 1", [0, -1], []),
}
SAMPLING_CASES = [
    *((name, allowed, value, ValueError) for name, (allowed, values) in SAMPLING_NUMBERS.items() for value in values),
    *((name, allowed, *case) for name, (allowed, _) in SAMPLING_NUMBERS.items() for case in WRONG_NUMBERS),
    *((name, allowed, value, ValueError) for name, (allowed, v, _) in SAMPLING_INTEGERS.items() for value in v),
    *((name, allowed, value, TypeError) for name, (allowed, _, v) in SAMPLING_INTEGERS.items() for value in v),
    *(
        (name, allowed, *case)
        for name, (allowed, _, _) in SAMPLING_INTEGERS.items()
        for case in WRONG_INTEGERS
        if name != "max_tokens" or case[0] is not HUGE  # more than there is room for, but a number of tokens
    ),
]


@pytest.mark.parametrize(("name", "allowed", "value", "error"), SAMPLING_CASES)
def test_sampling_arguments(name, allowed, value, error):
    with pytest.raises(error, match=re.escape(f"{name} must be {allowed}, not ")):
        GenerateParams.of("Speculator.generate", {name: value})


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        *(
            ("logit_bias", value, TypeError, "logit_bias must be a mapping of token ids to finite numbers")
            for value in (None, 3, "x", [1, 2], [(1, 2.0)], {1}, object())
        ),
        *(("logit_bias", {t: 0.0}, TypeError, "a token id in logit_bias must be") for t in ("1", 1.0, None, (1,))),
        *(("logit_bias", {t: 0.0}, ValueError, "a token id in logit_bias must be") for t in (-1, 2**31, 10**30)),
        *(
            ("logit_bias", {7: bias}, ValueError, "logit_bias[7] must be a number from -1e+06 to 1e+06, not ")
            for bias in (NAN, INF, 1e7, -1e7, 10**400)
        ),
        *(
            ("logit_bias", {7: bias}, TypeError, "logit_bias[7] must be a number from -1e+06 to 1e+06, not ")
            for bias in (None, "1", True, [1.0], np.False_, np.array([1.0, 2.0]))
        ),
        *(("grammar", value, TypeError, "grammar must be a string, not ") for value in (3, b"x", [], {}, True, NAN)),
        *(("grammar", value, ValueError, "grammar must be a string that is not empty") for value in ("", " \n")),
        *(
            ("json_schema", value, TypeError, "json_schema must be a dict with a JSON schema, not ")
            for value in (3, "{}", [], True, NAN, b"")
        ),
        *(
            ("accept", value, error, "accept must be one of 'auto', 'ratio', 'match', not ")
            for value, error in [("best", ValueError), ("", ValueError), (None, TypeError), (1, TypeError)]
        ),
    ],
)  # fmt: skip
def test_other_sampling_arguments(name, value, error, message):
    with pytest.raises(error, match=re.escape(message)):
        GenerateParams.of("Speculator.generate", {name: value})


def test_grammar_and_schema_exclude_each_other():
    with pytest.raises(ValueError, match="grammar and json_schema exclude each other"):
        SamplingParams(grammar='root ::= "a"', json_schema={})


def test_sampling_values_become_plain_python():
    params = SamplingParams(top_k=np.int64(5), top_p=1, logit_bias={np.int32(3): 2, 4: False})  # type: ignore[dict-item, arg-type]
    assert (type(params.top_k), type(params.top_p)) == (int, float)
    assert params.logit_bias == {3: 2.0, 4: -INF}
    assert dataclasses.replace(params, seed=1).logit_bias == params.logit_bias
