"""Options of the public calls: keyword-only frozen dataclasses that check their values, and the checks themselves.

A wrong type is a TypeError, a wrong value a ValueError; both name the argument, the value and what is allowed. An
unknown argument is a TypeError that names the nearest known one.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import numbers
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "ChatOptions",
    "ChatParams",
    "DraftParams",
    "GenerateOptions",
    "GenerateParams",
    "SamplingParams",
    "check_bool",
    "check_choice",
    "check_int",
    "check_logit_bias",
    "check_number",
    "check_path",
    "check_progress",
    "check_stop",
    "check_template_kwargs",
    "check_text",
    "check_vocab",
    "name_unknown_keywords",
    "refuse_unknown",
    "show_options",
]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


# Checks


def check_int(name: str, value: object, low: int, high: int | None = None) -> int:
    """The value as an int within low..high; bool is no integer here."""
    allowed = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    try:
        if _is_bool(value):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be {allowed}, not {_shown(value)}") from None
    if number < low or (high is not None and number > high):
        raise ValueError(f"{name} must be {allowed}, not {_shown(number)}")
    return number


def check_number(name: str, value: object, low: float, high: float | None = None) -> float:
    """The value as a finite float within low..high; bool is no number here."""
    allowed = f"a finite number >= {low:g}" if high is None else f"a number from {low:g} to {high:g}"
    if _is_bool(value) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {allowed}, not {_shown(value)}")
    try:
        number = float(value)
    except OverflowError:  # an int beyond the floats
        raise ValueError(f"{name} must be {allowed}, not {_shown(value)}") from None
    if not math.isfinite(number) or number < low or (high is not None and number > high):
        raise ValueError(f"{name} must be {allowed}, not {_shown(value)}")
    return number


def check_bool(name: str, value: object) -> bool:
    """The value, which must be True or False."""
    if not _is_bool(value):
        raise TypeError(f"{name} must be True or False, not {_shown(value)}")
    return bool(value)


def check_path(name: str, value: object) -> None:
    """Accept a string or another object that stands for a path; whether the file is there others say."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} must be a path (a string or an os.PathLike), not {_shown(value)}")


def check_progress(value: object) -> None:
    """Accept a function to call, or None."""
    if value is not None and not callable(value):
        raise TypeError(f"progress must be callable or None, not {_shown(value)}")


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Accept one of the listed values, by type as well, so that 1 is not True."""
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        listed = ", ".join(repr(choice) for choice in choices)
        kind = ValueError if any(type(value) is type(choice) for choice in choices) else TypeError
        raise kind(f"{name} must be one of {listed}, not {_shown(value)}")


def check_stop(value: object) -> tuple[str, ...]:
    """Stop strings as a tuple: one string, or several, none of them empty."""
    allowed = "a string or a sequence of strings, none of them empty"
    listed = (value,) if isinstance(value, str) else value
    if isinstance(listed, (bytes, Mapping)) or not isinstance(listed, Iterable):
        raise TypeError(f"stop must be {allowed}, not {_shown(value)}")
    strings = tuple(listed)
    for item in strings:
        if not isinstance(item, str):
            raise TypeError(f"stop must be {allowed}, not {_shown(value)}")
        if not item:
            raise ValueError(f"stop must be {allowed}, not {_shown(value)}")
    return strings


def check_text(name: str, value: object) -> str:
    """A string that is not empty."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, not {_shown(value)}")
    if not value.strip():
        raise ValueError(f"{name} must be a string that is not empty, not {_shown(value)}")
    return value


def check_logit_bias(value: object) -> dict[int, float]:
    """Biases by token id; False becomes minus infinity, which is what bans a token."""
    allowed = "a mapping of token ids to finite numbers, or to False to ban a token"
    if not isinstance(value, Mapping):
        raise TypeError(f"logit_bias must be {allowed}, not {_shown(value)}")
    biases = {}
    for token, bias in value.items():
        token_id = check_int("a token id in logit_bias", token, 0, 2**31 - 1)
        if bias is False or (isinstance(bias, float) and bias == -math.inf):
            biases[token_id] = -math.inf
        else:
            biases[token_id] = check_number(f"logit_bias[{token_id}]", bias, -1e6, 1e6)
    return biases


def check_template_kwargs(value: object) -> dict[str, object]:
    """Variables of a chat template: a mapping with string keys; enable_thinking is True or False."""
    allowed = "a mapping of variable names to values"
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"chat_template_kwargs must be {allowed}, not {_shown(value)}")
    if "enable_thinking" in value:
        check_bool('chat_template_kwargs["enable_thinking"]', value["enable_thinking"])
    return dict(value)


def check_vocab(value: object) -> str | int | tuple[int, ...]:
    """The tokens a draft head scores: "auto", "full", a number of first ids, or ids; a path is read."""
    if isinstance(value, str) and value in ("auto", "full"):
        return value
    if isinstance(value, (str, os.PathLike)):
        return _read_ids(value)
    allowed = '"auto", "full", an integer >= 256, a sequence of token ids, or the path of a file of them'
    if isinstance(value, (bytes, Mapping)) or _is_bool(value):
        raise TypeError(f"vocab must be {allowed}, not {_shown(value)}")
    if isinstance(value, Iterable):
        ids = tuple(check_int("vocab", token, 0, 2**31 - 1) for token in value)
        if not ids:
            raise ValueError(f"vocab must be {allowed}, not an empty sequence")
        return ids
    try:
        return check_int("vocab", value, 256)
    except (TypeError, ValueError) as error:
        raise type(error)(f"vocab must be {allowed}, not {_shown(value)}") from None


def _read_ids(path: str | os.PathLike[str]) -> tuple[int, ...]:
    """The token ids in a text file, one per line."""
    try:
        words = Path(path).read_text(encoding="utf-8").split()
        ids = tuple(int(word) for word in words)
    except OSError as error:
        raise ValueError(
            f'vocab must be "auto", "full" or the path of a file of ids; {path} cannot be read: {error.strerror}'
        ) from None
    except ValueError:
        raise ValueError(f"vocab: {path} is no text file with one token id per line") from None
    if not ids or min(ids) < 0 or max(ids) >= 2**31:
        raise ValueError(f"vocab: {path} must hold token ids, at least one, none of them negative")
    return ids


def _int_or(value: object, otherwise: int) -> int:
    """The value when it is an int."""
    return value if isinstance(value, int) else otherwise


def _is_bool(value: object) -> bool:
    """Whether it is a Python or a NumPy bool."""
    return isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")


def _shown(value: object) -> str:
    """The value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


# Unknown keywords


def name_unknown_keywords(function: F) -> F:
    """Make the TypeError for an unknown keyword name the nearest known one; the signature stays as it is."""
    parameters = list(inspect.signature(function).parameters.values())
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    by_name_too = [p.name for p in parameters[1:] if p.kind is p.POSITIONAL_OR_KEYWORD]
    owner = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        refuse_unknown(owner, [name for name in kwargs if name not in by_name_too], known)
        return function(*args, **kwargs)

    return checked  # type: ignore[return-value]


def refuse_unknown(owner: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Raise the TypeError for the first given keyword that is not known."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(known)}"
            raise TypeError(f"{owner}() got an unexpected keyword argument {name!r}; {hint}")


def show_options(cls: type) -> Callable[[F], F]:
    """Make help() list the keywords of an options class where a method has only **options."""

    def decorate(method: F) -> F:
        signature = inspect.signature(method)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        method.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *inspect.signature(cls).parameters.values()]
        )
        return method

    return decorate


def _options_class(cls: type[T]) -> type[T]:
    """Give an options dataclass the better error for unknown keywords."""
    cls.__init__ = name_unknown_keywords(cls.__init__)  # type: ignore[method-assign]
    return cls


# Options


@_options_class
@dataclass(frozen=True, kw_only=True)
class DraftParams:
    """How the draft head drafts; names and meaning as in llama.cpp.

    Args:
        n_max: Longest draft in tokens, 1 to 16. The target keeps one recurrent-state snapshot for each.
        n_min: Without adaptive, drafts shorter than this many tokens are thrown away, 0 to n_max.
        p_min: The chain stops where the head gives its own first choice less than this probability, 0 to 1.
        adaptive: Choose the length of each draft, 0 among them, by what yields most accepted tokens per second, from
            measured costs and acceptance. Off: n_max, n_min and p_min alone decide.
        vocab: Tokens that the head scores. "auto" takes the first ids and adapts how many, "full" all, an integer
            from 256 that many of the first ids; special tokens and those of the prompt and of recent output are scored
            as well. A sequence of ids, or the path of a text file with one id per line, takes those for the first ids.
    """

    n_max: int = 6
    n_min: int = 0
    p_min: float = 0.0
    adaptive: bool = True
    vocab: Literal["auto", "full"] | int | Sequence[int] | str | os.PathLike[str] = "auto"

    def __post_init__(self) -> None:
        """Check types and ranges; read the file of ids."""
        _set(self, "n_max", check_int("n_max", self.n_max, 1, 16))
        _set(self, "n_min", check_int("n_min", self.n_min, 0, self.n_max))
        _set(self, "p_min", check_number("p_min", self.p_min, 0.0, 1.0))
        _set(self, "adaptive", check_bool("adaptive", self.adaptive))
        _set(self, "vocab", check_vocab(self.vocab))

    @property
    def n_vocab(self) -> int:
        """What the engine is told: 0 for "auto", -1 for "full", else the number of first ids."""
        return {"auto": 0, "full": -1}.get(self.vocab, 0) if isinstance(self.vocab, str) else _int_or(self.vocab, 0)

    @property
    def vocab_ids(self) -> tuple[int, ...]:
        """The ids of a list of one's own; none otherwise."""
        return self.vocab if isinstance(self.vocab, tuple) else ()


@_options_class
@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How a token is chosen from the target's logits; names, meaning and order of the steps as in llama.cpp.

    The steps are, in this order: logit_bias, penalties, top_k, typical_p, top_p, min_p, temperature. Left as they are,
    they do nothing: tokens are drawn from softmax(logits / temperature).

    Args:
        temperature: 0 takes the most probable token (greedy); above 0, tokens are drawn from what the steps leave.
        seed: Seed of the draws, 0 to 2**64 - 1; None takes a new one each time. The same seed gives the same text.
        top_k: Keep the k most probable tokens; 0 keeps all.
        typical_p: Keep the tokens nearest to the typical surprise that have this much probability; 1 keeps all.
        top_p: Keep the most probable tokens that have this much probability together; 1 keeps all.
        min_p: Keep the tokens that have at least this share of the most probable one's probability; 0 keeps all.
        repeat_penalty: Divide the logits of tokens among the last repeat_last_n by this (multiply negative ones).
        frequency_penalty: Subtract this from such a token's logit for each time that it is there.
        presence_penalty: Subtract this once.
        repeat_last_n: How many of the last tokens, prompt and answer together, penalties count; -1 counts all.
        logit_bias: What to add to a token's logit, by token id; False bans the token.
        grammar: The text must conform to this grammar, in llama.cpp's notation GBNF.
        json_schema: The text must be JSON that fits this schema, given as a dict. Not together with grammar.
        accept: How drafted tokens are accepted when tokens are drawn; both ways leave the model's distribution as it
            is. "ratio" draws the draft where the target seems to have a choice, takes the head's likeliest tokens
            elsewhere, and accepts by the ratio of probabilities.
            "match" accepts what the target draws itself: a seed gives the same text with and without speculation.
            "auto" takes "ratio", and "match" under a grammar.
    """

    temperature: float = 0.0
    seed: int | None = None
    top_k: int = 0
    typical_p: float = 1.0
    top_p: float = 1.0
    min_p: float = 0.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repeat_last_n: int = 64
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    grammar: str | None = None
    json_schema: Mapping[str, Any] | None = None
    accept: Literal["auto", "ratio", "match"] = "auto"

    def __post_init__(self) -> None:
        """Check types and ranges."""
        _set(self, "temperature", check_number("temperature", self.temperature, 0.0))
        if self.seed is not None:
            _set(self, "seed", check_int("seed", self.seed, 0, 2**64 - 1))
        _set(self, "top_k", check_int("top_k", self.top_k, 0, 2**31 - 1))
        for name in ("typical_p", "top_p", "min_p"):
            _set(self, name, check_number(name, getattr(self, name), 0.0, 1.0))
        _set(self, "repeat_penalty", check_number("repeat_penalty", self.repeat_penalty, 1e-3, 1e3))
        for name in ("frequency_penalty", "presence_penalty"):
            _set(self, name, check_number(name, getattr(self, name), -1e3, 1e3))
        _set(self, "repeat_last_n", check_int("repeat_last_n", self.repeat_last_n, -1, 2**31 - 1))
        _set(self, "logit_bias", check_logit_bias(self.logit_bias))
        if self.grammar is not None:
            check_text("grammar", self.grammar)
        if self.json_schema is not None and not isinstance(self.json_schema, Mapping):
            raise TypeError(f"json_schema must be a dict with a JSON schema, not {_shown(self.json_schema)}")
        if self.grammar is not None and self.json_schema is not None:
            raise ValueError("grammar and json_schema exclude each other: a schema is turned into a grammar")
        check_choice("accept", self.accept, ("auto", "ratio", "match"))

    @property
    def changes_logits(self) -> bool:
        """Whether the most probable token may become another one: by a bias or a penalty."""
        return bool(self.logit_bias) or (
            self.repeat_last_n != 0
            and (self.repeat_penalty, self.frequency_penalty, self.presence_penalty) != (1.0, 0.0, 0.0)
        )


@_options_class
@dataclass(frozen=True, kw_only=True)
class GenerateParams(SamplingParams):
    """Options of one generation, those of SamplingParams among them.

    Args:
        max_tokens: Most tokens to generate, at least 1; None goes on until the context is full.
        stop: A string, or several, at which the text ends; the text is cut before it.
        ignore_eos: Go on behind a token that would end the generation; it is in the tokens, not in the text.
        logprobs: Give the log probability of each token, and this many of the most probable tokens at its place, 0 to
            100; None gives none.
        progress: Called while the prompt is read, after each chunk, with the tokens read and all of them; returning
            False cancels the request.
    """

    max_tokens: int | None = None
    stop: str | Sequence[str] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    progress: Callable[[int, int], object] | None = None

    def __post_init__(self) -> None:
        """Check types and ranges."""
        super().__post_init__()
        if self.max_tokens is not None:
            _set(self, "max_tokens", check_int("max_tokens", self.max_tokens, 1))
        _set(self, "stop", check_stop(self.stop))
        _set(self, "ignore_eos", check_bool("ignore_eos", self.ignore_eos))
        if self.logprobs is not None:
            _set(self, "logprobs", check_int("logprobs", self.logprobs, 0, 100))
        check_progress(self.progress)

    @classmethod
    def of(cls, owner: str, options: Mapping[str, Any]) -> Self:
        """Make them from the keywords given to the method named owner."""
        refuse_unknown(owner, options, [field.name for field in fields(cls)])
        return cls(**options)


@_options_class
@dataclass(frozen=True, kw_only=True)
class ChatParams(GenerateParams):
    """Options of one answer in a conversation, those of GenerateParams among them.

    Args:
        chat_template_kwargs: Variables for the chat template, for example {"enable_thinking": False}.
    """

    chat_template_kwargs: Mapping[str, object] | None = None

    def __post_init__(self) -> None:
        """Check types and ranges."""
        super().__post_init__()
        if self.chat_template_kwargs is not None:
            _set(self, "chat_template_kwargs", check_template_kwargs(self.chat_template_kwargs))


class GenerateOptions(TypedDict, total=False):
    """The keywords of generate() and stream() for type checkers; GenerateParams explains them."""

    temperature: float
    seed: int | None
    top_k: int
    typical_p: float
    top_p: float
    min_p: float
    repeat_penalty: float
    frequency_penalty: float
    presence_penalty: float
    repeat_last_n: int
    logit_bias: Mapping[int, float]
    grammar: str | None
    json_schema: Mapping[str, Any] | None
    accept: Literal["auto", "ratio", "match"]
    max_tokens: int | None
    stop: str | Sequence[str]
    ignore_eos: bool
    logprobs: int | None
    progress: Callable[[int, int], object] | None


class ChatOptions(GenerateOptions, total=False):
    """The keywords of the chat forms for type checkers; ChatParams explains them."""

    chat_template_kwargs: Mapping[str, object] | None


def _set(instance: object, name: str, value: object) -> None:
    """Store a checked value in a frozen dataclass."""
    object.__setattr__(instance, name, value)
