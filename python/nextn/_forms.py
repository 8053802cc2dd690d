"""The calls that users make: text and chat, whole and streamed, as results of nextn and in OpenAI's shape.

They turn arguments into the state of a request, let Speculator._run() do the rounds, and turn those into results.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from nextn._openai import ChatShape, CompletionShape, Json, read_chat_options, read_completion_options
from nextn._setup import check_bias, check_tokens, make_grammar
from nextn._state import Emitted, State
from nextn.accept import make_rule
from nextn.chat import ChatPrompt, ChatPrompter, Message
from nextn.context import TokenIds
from nextn.errors import ClosedError, ContextOverflowError
from nextn.logprobs import LogprobRecorder, TokenLogprobs
from nextn.model import Model
from nextn.options import (
    ChatOptions,
    ChatParams,
    GenerateOptions,
    GenerateParams,
    check_bool,
    show_options,
)
from nextn.stats import Chunk, Counters, GenerationResult
from nextn.text import TextStream

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Forms"]

Params = TypeVar("Params", bound=GenerateParams)


class Forms(ABC):
    """The calls of a Speculator, over its rounds."""

    _model: Model
    _n_ctx: int
    _chat: ChatPrompter
    _closed: bool

    @abstractmethod
    def _run(self, state: State) -> Generator[Emitted, None, None]:
        """The rounds of one request, while it has its turn."""

    @show_options(GenerateParams)
    def generate(self, prompt: str | TokenIds, **options: Unpack[GenerateOptions]) -> GenerationResult:
        """Continue a text.

        Args:
            prompt: Text, in which control tokens such as <|im_start|> count as such, or token ids.
            **options: Those of nextn.options.GenerateParams: max_tokens, temperature, seed, stop, logprobs, ...

        Returns:
            Text, tokens, why it ended, and statistics.

        Raises:
            GrammarError: A grammar or a JSON schema that cannot be used.
            ContextOverflowError: Prompt and max_tokens do not fit in n_ctx; says what was asked and what is free.
            TypeError, ValueError: A wrong argument.
            ClosedError: The Speculator was closed.
            CancelledError: cancel() was called meanwhile.
            WorkerError: A worker was lost.
            NextnError: A stream of this Speculator is unfinished in this thread.
        """
        params = GenerateParams.of("Speculator.generate", options)
        return self._collect(self._request(params, lambda: self._read_prompt(prompt)))

    @show_options(GenerateParams)
    def stream(self, prompt: str | TokenIds, **options: Unpack[GenerateOptions]) -> Iterator[Chunk]:
        """Continue a text and give it piece by piece, one chunk per round.

        Arguments and errors are those of generate(). Nothing runs between two chunks. Closing the iterator ends the
        request; until it is exhausted or closed it keeps other requests waiting.
        """
        params = GenerateParams.of("Speculator.stream", options)
        return self._chunks(self._request(params, lambda: self._read_prompt(prompt)))

    @show_options(ChatParams)
    def chat(self, messages: Sequence[Message], **options: Unpack[ChatOptions]) -> GenerationResult:
        """Answer a conversation, which is written as a prompt by the file's own chat template.

        Args:
            messages: Mappings with "role" and "content", oldest first.
            **options: Those of generate(), and chat_template_kwargs.

        Raises:
            ChatTemplateError: The file has no chat template, or the template refuses the messages.
        """
        params = ChatParams.of("Speculator.chat", options)
        return self._collect(self._request(params, lambda: self._read_messages(messages, params)))

    @show_options(ChatParams)
    def stream_chat(self, messages: Sequence[Message], **options: Unpack[ChatOptions]) -> Iterator[Chunk]:
        """Answer a conversation piece by piece: chat() in the manner of stream()."""
        params = ChatParams.of("Speculator.stream_chat", options)
        return self._chunks(self._request(params, lambda: self._read_messages(messages, params)))

    # OpenAI's shape

    def create_completion(
        self,
        prompt: str | TokenIds,
        *,
        stream: bool = False,
        echo: bool = False,
        model: str | None = None,
        stream_options: Mapping[str, object] | None = None,
        **options: Any,
    ) -> Json | Iterator[Json]:
        """Continue a text: generate() with the result as a dictionary of OpenAI's form.

        Args:
            prompt: As for generate().
            stream: Give an iterator of dictionaries instead.
            echo: Begin the text with the prompt.
            model: What "model" says in the result; None shows the path.
            stream_options: {"include_usage": True} adds a last dictionary with the usage to a stream.
            **options: Those of generate(), with its defaults. max_tokens may be -1 for no limit, and is cut to what
                fits.

        Returns:
            A dictionary with id, object, created, model, choices and usage; "timings" are the statistics.
        """
        params = GenerateParams.of("Speculator.create_completion", read_completion_options(options))
        include_usage = _check_stream("stream", stream, stream_options)
        check_bool("echo", echo)
        state = self._request(params, lambda: self._read_prompt(prompt), clip=True)
        prefix = ""
        if echo:
            prefix = prompt if isinstance(prompt, str) else self._model.detokenize(state.prompt.tolist())
        shape = CompletionShape(self._model, self._shown_name(model), prefix)
        if stream:
            return shape.stream(self._chunks(state), include_usage=include_usage)
        return shape.whole(self._collect(state))

    def create_chat_completion(
        self,
        messages: Sequence[Message],
        *,
        stream: bool = False,
        model: str | None = None,
        stream_options: Mapping[str, object] | None = None,
        **options: Any,
    ) -> Json | Iterator[Json]:
        """Answer a conversation: chat() with the result as a dictionary of OpenAI's form.

        Args:
            messages: As for chat().
            stream: Give an iterator of dictionaries instead.
            model: What "model" says in the result; None shows the path.
            stream_options: {"include_usage": True} adds a last dictionary with the usage to a stream.
            **options: Those of chat(), except that logprobs is True or False and top_logprobs counts the alternatives;
                and response_format for JSON.
                max_tokens may be -1 for no limit, and is cut to what fits.
        """
        params = ChatParams.of("Speculator.create_chat_completion", read_chat_options(options))
        include_usage = _check_stream("stream", stream, stream_options)
        state = self._request(params, lambda: self._read_messages(messages, params), clip=True)
        shape = ChatShape(self._model, self._shown_name(model))
        if stream:
            return shape.stream(self._chunks(state), include_usage=include_usage)
        return shape.whole(self._collect(state))

    def _shown_name(self, model: object) -> str:
        """What "model" says."""
        if model is not None and not isinstance(model, str):
            raise TypeError(f"model must be a string or None, not {type(model).__name__}")
        return self._model.path if model is None else model

    # From arguments to a request

    def _request(self, params: GenerateParams, read: Callable[[], ChatPrompt], *, clip: bool = False) -> State:
        """Check everything that can be checked before the first decode."""
        if self._closed:
            raise ClosedError("this Speculator was closed")
        start = perf_counter()
        prompt = read()
        tokens = np.asarray(prompt.tokens, dtype=np.int32)
        check_bias(params, self._model.n_vocab)
        return State(
            prompt=tokens,
            n_left=self._room_for(len(tokens), params.max_tokens, clip=clip),
            rule=make_rule(params, tokens, make_grammar(self._model, params)),
            text=TextStream((*params.stop, *prompt.stops)),
            counters=Counters(prompt_tokens=len(tokens), ttft=perf_counter() - start),
            eog_tokens=frozenset() if params.ignore_eos else self._model.eog_tokens,
            logprobs=None if params.logprobs is None else LogprobRecorder(params.logprobs),
            reasoning=prompt.reasoning,
            progress=params.progress,
        )

    def _read_prompt(self, prompt: object) -> ChatPrompt:
        """A prompt given as text or as token ids."""
        if isinstance(prompt, str):
            return ChatPrompt(self._model.tokenize(prompt, add_special=True, parse_special=True))
        return ChatPrompt(check_tokens(prompt, self._model.n_vocab).tolist())

    def _read_messages(self, messages: Sequence[Message], params: ChatParams) -> ChatPrompt:
        """A conversation as its prompt."""
        return self._chat.prompt(messages, params.chat_template_kwargs)

    def _room_for(self, n_prompt: int, max_tokens: int | None, *, clip: bool) -> int:
        """How many tokens may be generated after n_prompt ones; clip: no more than fit, instead of an error."""
        if n_prompt == 0:
            raise ValueError("prompt must have at least one token, not none")
        available = self._n_ctx - n_prompt
        if available < 1:
            raise ContextOverflowError(
                f"the prompt has {n_prompt} tokens, but n_ctx={self._n_ctx} leaves {self._n_ctx - 1} for it and one for"
                " the answer: shorten it or raise n_ctx",
                n_prompt,
                self._n_ctx - 1,
            )
        if max_tokens is not None and max_tokens > available and not clip:
            raise ContextOverflowError(
                f"max_tokens asks for {max_tokens} tokens, but after a prompt of {n_prompt} only {available} of"
                f" n_ctx={self._n_ctx} are free: ask for fewer (None takes what is free) or raise n_ctx",
                max_tokens,
                available,
            )
        return available if max_tokens is None else min(max_tokens, available)

    # From rounds to results

    def _collect(self, state: State) -> GenerationResult:
        """Run a request to its end."""
        texts: list[str] = []
        reasoning: list[str] = []
        tokens: list[int] = []
        logprobs: list[TokenLogprobs] = []
        for emitted in self._emitted(state):
            texts.append(emitted.text)
            reasoning.append(emitted.reasoning)
            tokens += emitted.tokens
            logprobs += emitted.logprobs
        assert state.finish_reason is not None
        return GenerationResult(
            text="".join(texts),
            reasoning_content="".join(reasoning),
            tokens=tuple(tokens),
            finish_reason=state.finish_reason,
            stats=state.counters.snapshot(),
            logprobs=None if state.logprobs is None else tuple(logprobs),
        )

    def _chunks(self, state: State) -> Generator[Chunk, None, None]:
        """Run a request and show each round."""
        with closing(self._emitted(state)) as rounds:
            for emitted in rounds:
                yield Chunk(
                    text=emitted.text,
                    reasoning_content=emitted.reasoning,
                    tokens=tuple(emitted.tokens),
                    finish_reason=state.finish_reason,
                    stats=state.counters.snapshot(),
                    logprobs=None if state.logprobs is None else tuple(emitted.logprobs),
                )

    def _emitted(self, state: State) -> Generator[Emitted, None, None]:
        """Run a request; of what each round adds, the thinking is told from the answer."""
        with closing(self._run(state)) as rounds:
            for emitted in rounds:
                emitted.reasoning, emitted.text = _split(state, emitted.text)
                yield emitted


def _split(state: State, text: str) -> tuple[str, str]:
    """The new text as reasoning and content."""
    if state.reasoning is None:
        return "", text
    reasoning, content = state.reasoning.feed(text)
    if state.finish_reason is not None:
        rest = state.reasoning.finish()
        return reasoning + rest[0], content + rest[1]
    return reasoning, content


def _check_stream(name: str, stream: object, stream_options: object) -> bool:
    """Whether a stream ends with its usage."""
    check_bool(name, stream)
    if stream_options is None:
        return False
    if not isinstance(stream_options, Mapping) or not stream_options.keys() <= {"include_usage"}:
        raise TypeError('stream_options must be {"include_usage": True or False} or None, not ' + repr(stream_options))
    return check_bool("include_usage", stream_options.get("include_usage", False))
