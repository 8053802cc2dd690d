"""Results in the shape of OpenAI's API, as llama-cpp-python returns them: plain dictionaries.

The keys are those of https://platform.openai.com/docs/api-reference; besides, "timings" holds nextn's statistics and
"reasoning_content" the thinking before an answer, both as llama-server names them.
"""

from __future__ import annotations

import codecs
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, TypeAlias

from nextn.logprobs import TokenLogprobs
from nextn.model import Model
from nextn.options import check_bool, check_int
from nextn.stats import Chunk, GenerationResult, Stats

__all__ = ["ChatShape", "CompletionShape", "Json", "read_chat_options", "read_completion_options"]

Json: TypeAlias = dict[str, Any]


def read_completion_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of create_completion() as those of generate().

    A max_tokens below 1 is no limit, a stop of None none, and the token ids of logit_bias may be strings, as in JSON.
    """
    read = dict(options)
    max_tokens = read.get("max_tokens")
    if max_tokens is not None:
        max_tokens = check_int("max_tokens", max_tokens, -(2**63))
        read["max_tokens"] = max_tokens if max_tokens > 0 else None
    if "stop" in read and read["stop"] is None:
        read["stop"] = ()
    bias = read.get("logit_bias")
    if isinstance(bias, Mapping):
        read["logit_bias"] = {int(i) if isinstance(i, str) and i.isdecimal() else i: bias[i] for i in bias}
    return read


def read_chat_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of create_chat_completion(): logprobs is True or False there, and top_logprobs counts alternatives."""
    read = read_completion_options(options)
    _read_format(read)
    wanted = read.pop("logprobs", None)
    n_top = read.pop("top_logprobs", None)
    if n_top is not None:
        n_top = check_int("top_logprobs", n_top, 0, 100)
    if wanted is not None and check_bool("logprobs", wanted):
        read["logprobs"] = n_top or 0
    elif n_top:
        raise ValueError("top_logprobs needs logprobs=True")
    return read


def _read_format(read: Json) -> None:
    """Turn response_format, OpenAI's or llama-cpp-python's form of it, into a JSON schema."""
    wanted = read.pop("response_format", None)
    if wanted is None:
        return
    allowed = '{"type": "text"}, {"type": "json_object"} or {"type": "json_schema", "json_schema": {"schema": {...}}}'
    if not isinstance(wanted, Mapping):
        raise TypeError(f"response_format must be {allowed}, not {wanted!r}")
    if wanted.get("type") == "json_object":
        read["json_schema"] = wanted.get("schema", {"type": "object"})
    elif wanted.get("type") == "json_schema" and isinstance(wanted.get("json_schema"), Mapping):
        read["json_schema"] = wanted["json_schema"].get("schema", {})
    elif wanted.get("type") != "text":
        raise ValueError(f"response_format must be {allowed}, not {wanted!r}")


class Shape(ABC):
    """What both kinds of results share: their head, their end, and how chunks become a stream.

    Args:
        model: The model, whose tokens are shown as text.
        name: What "model" says.
    """

    kind: str
    id_prefix: str

    def __init__(self, model: Model, name: str) -> None:
        self._model = model
        self._head = {"id": f"{self.id_prefix}-{uuid.uuid4()}", "created": int(time.time()), "model": name}
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0  # of the next token in the text, in characters

    @abstractmethod
    def whole(self, result: GenerationResult) -> Json:
        """A finished generation."""

    @abstractmethod
    def pieces(self, chunk: Chunk) -> Iterator[Json]:
        """The choices that one chunk of a stream becomes."""

    def stream(self, chunks: Generator[Chunk, None, None], *, include_usage: bool) -> Iterator[Json]:
        """The chunks of a stream; the last one carries the timings, and one more the usage when that is wanted."""
        last = None
        with closing(chunks):
            for last in chunks:
                for choice in self.pieces(last):
                    piece = self._object(self.stream_kind, [choice])
                    if choice["finish_reason"] is not None:
                        piece["timings"] = last.stats.to_dict()
                    yield piece
        if include_usage and last is not None:
            yield {**self._object(self.stream_kind, []), "usage": _usage(last.stats)}

    @property
    def stream_kind(self) -> str:
        """What "object" says in a stream."""
        return self.kind

    def _object(self, kind: str, choices: list[Json]) -> Json:
        """The frame around choices."""
        return {"id": self._head["id"], "object": kind, **self._head, "choices": choices}

    def _finished(self, choice: Json, stats: Stats) -> Json:
        """A finished generation around its choice."""
        return {**self._object(self.kind, [choice]), "usage": _usage(stats), "timings": stats.to_dict()}

    def _shown(self, logprobs: Iterable[TokenLogprobs], end: int | None) -> list[tuple[TokenLogprobs, int]]:
        """Those of the tokens that are in the text, up to the character end, with where each begins in it."""
        shown = []
        for entry in logprobs:
            piece = self._model.token_to_piece(entry.token, special=False)
            if not piece:  # a control token
                continue
            if end is None or self._offset < end:
                shown.append((entry, self._offset))
            self._offset += len(self._decoder.decode(piece))
        return shown

    def _text_of(self, token: int) -> str:
        """A token as text; a part of a character shows as U+FFFD."""
        return self._model.token_to_piece(token).decode(errors="replace")


class CompletionShape(Shape):
    """The results of create_completion().

    Args:
        model: The model.
        name: What "model" says.
        prefix: Text before the generated one: the prompt, when it is to be repeated.
    """

    kind = "text_completion"
    id_prefix = "cmpl"

    def __init__(self, model: Model, name: str, prefix: str = "") -> None:
        super().__init__(model, name)
        self._prefix = prefix
        self._first = True

    def whole(self, result: GenerationResult) -> Json:
        """A finished generation."""
        choice = self._choice(self._prefix + result.text, result.finish_reason)
        if result.logprobs is not None:
            choice["logprobs"] = self._logprobs(result.logprobs, len(result.text))
        return self._finished(choice, result.stats)

    def pieces(self, chunk: Chunk) -> Iterator[Json]:
        """One choice, unless the chunk has nothing to show."""
        text = self._prefix + chunk.text if self._first else chunk.text
        self._first = False
        if text or chunk.finish_reason is not None or chunk.logprobs:
            choice = self._choice(text, chunk.finish_reason)
            if chunk.logprobs is not None:
                choice["logprobs"] = self._logprobs(chunk.logprobs, None)
            yield choice

    def _choice(self, text: str, finish_reason: str | None) -> Json:
        """The one choice there is."""
        return {"text": text, "index": 0, "logprobs": None, "finish_reason": finish_reason}

    def _logprobs(self, logprobs: Sequence[TokenLogprobs], end: int | None) -> Json:
        """The older form: parallel lists."""
        shown = self._shown(logprobs, end)
        tops = []
        for entry, _ in shown:
            top: dict[str, float] = {}
            for token, logprob in entry.top:
                top.setdefault(self._text_of(token), logprob)  # two tokens can show the same text: the likelier stays
            tops.append(top)
        return {
            "tokens": [self._text_of(entry.token) for entry, _ in shown],
            "text_offset": [len(self._prefix) + offset for _, offset in shown],
            "token_logprobs": [entry.logprob for entry, _ in shown],
            "top_logprobs": tops,
        }


class ChatShape(Shape):
    """The results of create_chat_completion()."""

    kind = "chat.completion"
    id_prefix = "chatcmpl"

    def __init__(self, model: Model, name: str) -> None:
        super().__init__(model, name)
        self._first = True

    @property
    def stream_kind(self) -> str:
        """What "object" says in a stream."""
        return "chat.completion.chunk"

    def whole(self, result: GenerationResult) -> Json:
        """A finished generation."""
        message: Json = {"role": "assistant", "content": result.text}
        if result.reasoning_content:
            message["reasoning_content"] = result.reasoning_content
        choice: Json = {"index": 0, "message": message, "logprobs": None, "finish_reason": result.finish_reason}
        if result.logprobs is not None:
            choice["logprobs"] = self._logprobs(result.logprobs)
        return self._finished(choice, result.stats)

    def pieces(self, chunk: Chunk) -> Iterator[Json]:
        """The role first, then what there is to show, then the end."""
        if self._first:
            self._first = False
            yield self._choice({"role": "assistant"})
        delta: Json = {"reasoning_content": chunk.reasoning_content} if chunk.reasoning_content else {}
        if chunk.text:
            delta["content"] = chunk.text
        if delta or chunk.logprobs:
            choice = self._choice(delta)
            if chunk.logprobs is not None:
                choice["logprobs"] = self._logprobs(chunk.logprobs)
            yield choice
        if chunk.finish_reason is not None:
            yield {**self._choice({}), "finish_reason": chunk.finish_reason}

    def _choice(self, delta: Json) -> Json:
        """The one choice there is, with what is new."""
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}

    def _logprobs(self, logprobs: Iterable[TokenLogprobs]) -> Json:
        """The newer form: a list of tokens, each with its alternatives."""
        content = []
        for entry, _ in self._shown(logprobs, None):
            top = [self._token(token, logprob) for token, logprob in entry.top]
            content.append({**self._token(entry.token, entry.logprob), "top_logprobs": top})
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float) -> Json:
        """A token with its probability."""
        piece = self._model.token_to_piece(token)
        return {"token": piece.decode(errors="replace"), "logprob": logprob, "bytes": list(piece)}


def _usage(stats: Stats) -> Json:
    """How many tokens a generation took."""
    return {
        "prompt_tokens": stats.prompt_tokens,
        "completion_tokens": stats.completion_tokens,
        "total_tokens": stats.prompt_tokens + stats.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": stats.cache_n},
    }
