"""Self-speculative generation: the one place to read the algorithm.

A round drafts a few tokens, lets the target verify them all in one decode, keeps those that the target would have
produced itself, and rolls both memories back to what is kept. See Speculator._rounds for the loop, accept.py for the
words, drafting.py for where drafts come from.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nextn._setup import check_bias, check_draft, check_tokens, choose_n_ctx, make_grammar, make_pair, open_model
from nextn._turn import Turn
from nextn.accept import Accepted, AcceptRule, make_rule
from nextn.chat import ChatPrompter, Message
from nextn.context import Context, HiddenTap, TokenIds
from nextn.drafting import Drafter, DrawingDrafter, HeadDrafter, IntArray
from nextn.errors import ClosedError, ContextOverflowError, RollbackError
from nextn.model import Model
from nextn.options import DraftParams, GenerateOptions, GenerateParams, name_unknown_keywords, show_options
from nextn.stats import Chunk, Counters, FinishReason, GenerationResult
from nextn.text import TextStream

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Speculator"]

_SEQ_ID = 0
_NO_DRAFT: IntArray = np.empty(0, dtype=np.int32)


@dataclass
class State:
    """Everything that one request changes, apart from what the two contexts and the drafter remember.

    Between rounds the target has decoded the positions 0 .. n_past - 1, and id_last, chosen but not decoded, belongs
    to position n_past.
    """

    prompt: IntArray  # [n_prompt]
    n_left: int  # tokens that may still be emitted
    rule: AcceptRule
    text: TextStream
    counters: Counters
    n_past: int = 0
    id_last: int = -1
    finish_reason: FinishReason | None = None


@dataclass
class Emitted:
    """What one round adds to the result."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)


class Speculator:
    """Generates text with a model, speculating with the model's own draft head; the text is the model's own.

    Greedy text equals plain greedy decoding token for token; sampled text has the model's own distribution.
    One request runs at a time: other threads wait for their turn.

    Args:
        model: A Model, or the path of a GGUF file to load and to close with the Speculator.
        n_ctx: Tokens that fit, prompt and answer together; 0 takes the length the model was trained for, None that
            length but at most 8192, for the memory's sake.
        n_batch: Most tokens of the prompt per decode.
        n_ubatch: Tokens computed at once.
        n_threads: Threads for decodes of one token; None takes the physical cores this process may use.
        n_threads_batch: Threads for longer decodes, verification among them; None takes n_threads.
        type_k: Type of the K cache, for example "f16" or "q8_0".
        type_v: Type of the V cache.
        flash_attn: "auto" (when the backend has it), True or False.
        hidden_tap: Which hidden row feeds the head: "post" or "pre" the final norm, "auto" by architecture.
        offload_kqv: Keep the KV cache on the GPU when there is one.
        draft: How the head drafts; None decodes plainly through the same code; or a Drafter of your own.
        draft_model: A model, or the path of a file, that holds the head when the model itself has none.
        n_gpu_layers: Layers on the GPU, -1 for all, when a path is given (a Model has made that choice).

    Raises:
        NoNextnLayerError: A draft is asked for and there is no head. Plain decoding needs draft=None.
        ModelFileError, ContextCreateError: The file cannot be loaded, the contexts cannot be made.
        TypeError, ValueError: A wrong argument.
    """

    @name_unknown_keywords
    def __init__(
        self,
        model: Model | str | os.PathLike[str],
        *,
        n_ctx: int | None = None,
        n_batch: int = 2048,
        n_ubatch: int = 512,
        n_threads: int | None = None,
        n_threads_batch: int | None = None,
        type_k: str = "f16",
        type_v: str = "f16",
        flash_attn: Literal["auto"] | bool = "auto",
        hidden_tap: HiddenTap = "auto",
        offload_kqv: bool = True,
        draft: DraftParams | Drafter | None = DraftParams(),  # noqa: B008 (frozen)
        draft_model: Model | str | os.PathLike[str] | None = None,
        n_gpu_layers: int | None = None,
    ) -> None:
        check_draft(draft, draft_model, n_batch, n_ubatch)
        with ExitStack() as owned:  # whatever was opened is closed again when a later step fails
            load_nextn = isinstance(draft, DraftParams) and draft_model is None
            self._model = open_model("model", model, n_gpu_layers, load_nextn, owned)
            head = self._model
            if draft_model is not None:
                head = open_model("draft_model", draft_model, n_gpu_layers, True, owned)

            n_ctx_asked = choose_n_ctx(n_ctx, self._model)

            def make_context(over: Model, **kind: Any) -> Context:
                context = Context(
                    over, n_ctx=n_ctx_asked, n_batch=n_batch, n_ubatch=n_ubatch, n_threads=n_threads,
                    n_threads_batch=n_threads_batch, type_k=type_k, type_v=type_v, flash_attn=flash_attn,
                    hidden_tap=hidden_tap, offload_kqv=offload_kqv, **kind,
                )  # fmt: skip
                owned.callback(context.close)
                return context

            self._ctx_tgt, self._ctx_dft, self._drafter = make_pair(self._model, head, draft, make_context)
            self._drawing = self._drafter if isinstance(self._drafter, DrawingDrafter) else None
            if isinstance(self._drafter, HeadDrafter):
                owned.callback(self._drafter.close)
            self._n_ctx = n_ctx_asked  # the context may hold more: the engine rounds up
            self._draft = draft
            self._eog_tokens = self._model.eog_tokens
            self._chat = ChatPrompter(self._model)
            self._turn = Turn()
            self._owned = owned.pop_all()
        self._closed = False

    # What users call

    @show_options(GenerateParams)
    def generate(self, prompt: str | TokenIds, **options: Unpack[GenerateOptions]) -> GenerationResult:
        """Continue a text.

        Args:
            prompt: Text, in which control tokens such as <|im_start|> count as such, or token ids.
            **options: Those of nextn.options.GenerateParams: max_tokens, stop, temperature, seed, and more.

        Returns:
            Text, tokens, why it ended, and statistics.

        Raises:
            GrammarError: A grammar or a JSON schema that cannot be used.
            ContextOverflowError: Prompt and max_tokens do not fit in n_ctx; says what was asked and what is free.
            TypeError, ValueError: A wrong argument.
            ClosedError: The Speculator was closed.
            NextnError: A stream of this Speculator is unfinished in this thread.
        """
        return self._collect(self._request("generate", lambda: self._tokenize(prompt), options))

    @show_options(GenerateParams)
    def stream(self, prompt: str | TokenIds, **options: Unpack[GenerateOptions]) -> Iterator[Chunk]:
        """Continue a text and give it piece by piece, one chunk per round.

        Arguments and errors are those of generate(). Nothing runs between two chunks. Closing the iterator ends the
        request; until it is exhausted or closed it keeps other requests waiting.
        """
        return self._chunks(self._request("stream", lambda: self._tokenize(prompt), options))

    @show_options(GenerateParams)
    def chat(self, messages: Sequence[Message], **options: Unpack[GenerateOptions]) -> GenerationResult:
        """Answer a conversation, which is written as a prompt by the file's own chat template.

        Args:
            messages: Mappings with "role" and "content", oldest first.
            **options: Those of generate().

        Raises:
            ChatTemplateError: The file has no chat template, or the template refuses the messages.
        """
        return self._collect(self._request("chat", lambda: self._chat.prompt(messages), options))

    @show_options(GenerateParams)
    def stream_chat(self, messages: Sequence[Message], **options: Unpack[GenerateOptions]) -> Iterator[Chunk]:
        """Answer a conversation piece by piece: chat() in the manner of stream()."""
        return self._chunks(self._request("stream_chat", lambda: self._chat.prompt(messages), options))

    @property
    def model(self) -> Model:
        """The model."""
        return self._model

    @property
    def n_ctx(self) -> int:
        """Tokens that fit, prompt and answer together."""
        return self._n_ctx

    @property
    def draft(self) -> DraftParams | Drafter | None:
        """What was given as draft."""
        return self._draft

    @property
    def ctx_tgt(self) -> Context:
        """The target context, for looking at; decoding with it from outside spoils a running request."""
        return self._ctx_tgt

    @property
    def ctx_dft(self) -> Context | None:
        """The draft context, when the head drafts."""
        return self._ctx_dft

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    def close(self) -> None:
        """Free the contexts, and the model when it was given as a path. May be called twice, and from any thread.

        A request that is under way ends with ClosedError at its next step.
        """
        self._closed = True
        self._owned.close()

    def __enter__(self) -> Speculator:
        """Give itself; leaving the block closes it."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    # The algorithm

    def _rounds(self, state: State) -> Iterator[Emitted]:
        """Prefill, then draft, verify, accept, roll back, until the request is done."""
        counters = state.counters
        counters.start()
        self._begin(state)
        emitted = self._prefill(state)
        counters.lap("prompt")
        yield emitted
        while state.finish_reason is None:
            counters.start()
            draft = self._draft_step(state)
            counters.lap("draft")
            self._verify(state, draft)
            accepted = self._accept(state, draft)
            counters.lap("verify")
            self._drafter.accept(accepted.n_accepted)
            counters.lap("draft")
            emitted = self._emit(state, draft[: accepted.n_accepted], accepted.id_next)
            self._roll_back(state, draft, emitted)
            counters.count_round(len(draft), min(accepted.n_accepted, len(emitted.tokens)))
            counters.lap("predicted")
            yield emitted

    def _begin(self, state: State) -> None:
        """Forget the previous request, however it ended."""
        self._ctx_tgt.seq_rm(_SEQ_ID, -1, -1)  # a whole sequence: the plain call is right for that
        if self._drawing:
            self._drawing.draw(state.rule.draws)
        self._drafter.begin(state.prompt)

    def _prefill(self, state: State) -> Emitted:
        """Read the prompt in chunks, the drafter following each, and choose the first token."""
        # One ubatch per decode: the engine cuts a longer batch differently when it keeps snapshots to roll back to, and
        # the target's numbers must not depend on whether something drafts.
        n_prompt, n_chunk = len(state.prompt), min(self._ctx_tgt.n_batch, self._ctx_tgt.n_ubatch)
        for start in range(0, n_prompt, n_chunk):
            chunk = state.prompt[start : start + n_chunk]
            is_last = start + n_chunk >= n_prompt
            self._ctx_tgt.decode(chunk, outputs="last" if is_last else "none")
            self._drafter.prefill(chunk)
        state.n_past = n_prompt
        return self._emit(state, _NO_DRAFT, self._accept(state, _NO_DRAFT).id_next)

    def _draft_step(self, state: State) -> IntArray:
        """Ask the drafter for tokens after id_last, no more than can be emitted: a round adds one of the target's."""
        n_room = state.n_left - 1
        draft = self._drafter.draft(state.id_last, state.n_past, n_room)[:n_room]
        kept = state.rule.cut(draft)
        if len(kept) < len(draft) and self._drawing:
            self._drawing.cut(len(kept))
        return kept

    def _verify(self, state: State, draft: IntArray) -> None:
        """Let the target decode id_last and the draft in one batch."""
        self._ctx_tgt.decode([state.id_last, *draft.tolist()], outputs="all")

    def _accept(self, state: State, draft: IntArray) -> Accepted:
        """Compare the draft with what the target itself chooses at each position."""
        q = self._drawing.q() if self._drawing else ()
        return state.rule(draft, self._ctx_tgt.logits_view(), q)

    def _roll_back(self, state: State, draft: IntArray, emitted: Emitted) -> None:
        """Take out of both memories what was decoded and is not in the text: rejected, or behind the end."""
        n_emitted = len(emitted.tokens)  # of which the last is not decoded
        state.n_past += n_emitted
        if n_emitted <= len(draft) and not self._ctx_tgt.nextn_seq_rm(_SEQ_ID, state.n_past, -1):
            raise RollbackError(f"the target could not take back {len(draft) + 1 - n_emitted} tokens")

    def _emit(self, state: State, accepted: IntArray, id_next: int) -> Emitted:
        """Turn the accepted tokens and the next one into text, up to the end of the generation if it is among them."""
        emitted, stream = Emitted(), state.text
        for token in (*accepted.tolist(), id_next):
            emitted.tokens.append(token)
            if token in self._eog_tokens:
                state.finish_reason = "stop"
                break
            emitted.text += stream.feed(self._model.token_to_piece(token, special=False))
            if stream.stopped:
                state.finish_reason = "stop"
                break
        state.id_last = emitted.tokens[-1]
        state.n_left -= len(emitted.tokens)
        state.counters.completion_tokens += len(emitted.tokens)
        if state.n_left == 0 and state.finish_reason is None:
            state.finish_reason = "length"
        if state.finish_reason is not None and not stream.stopped:
            emitted.text += stream.finish()
        return emitted

    # Around it

    def _request(self, owner: str, tokenize: Callable[[], IntArray | list[int]], options: GenerateOptions) -> State:
        """Check everything that can be checked before the first decode."""
        params = GenerateParams.of(f"Speculator.{owner}", options)
        if self._closed:
            raise ClosedError("this Speculator was closed")
        start = perf_counter()
        prompt = np.asarray(tokenize(), dtype=np.int32)
        n_left = self._room_for(len(prompt), params.max_tokens)
        counters = Counters(prompt_tokens=len(prompt), ttft=perf_counter() - start)
        check_bias(params, self._model.n_vocab)
        rule = make_rule(params, prompt, make_grammar(self._model, params))
        return State(prompt, n_left, rule, TextStream(params.stop), counters)

    def _tokenize(self, prompt: object) -> IntArray | list[int]:
        """The tokens of a prompt given as text or as token ids."""
        if isinstance(prompt, str):
            return self._model.tokenize(prompt, add_special=True, parse_special=True)
        return check_tokens(prompt, self._model.n_vocab)

    def _room_for(self, n_prompt: int, max_tokens: int | None) -> int:
        """How many tokens may be generated after n_prompt ones."""
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
        if max_tokens is not None and max_tokens > available:
            raise ContextOverflowError(
                f"max_tokens asks for {max_tokens} tokens, but after a prompt of {n_prompt} only {available} of"
                f" n_ctx={self._n_ctx} are free: ask for fewer (None takes what is free) or raise n_ctx",
                max_tokens,
                available,
            )
        return available if max_tokens is None else max_tokens

    def _run(self, state: State) -> Iterator[Emitted]:
        """The rounds of one request, while it has its turn."""
        start = perf_counter()
        with self._turn.taken():
            if self._closed:
                raise ClosedError("this Speculator was closed")
            try:
                for emitted in self._rounds(state):
                    if state.counters.n_rounds == 0:
                        state.counters.ttft += perf_counter() - start
                    yield emitted
            except BaseException as error:
                # A view of the outputs that lives on in a frame of the traceback would block the next request's decode.
                traceback.clear_frames(error.__traceback__)
                raise

    def _collect(self, state: State) -> GenerationResult:
        """Run a request to its end."""
        texts: list[str] = []
        tokens: list[int] = []
        for emitted in self._run(state):
            texts.append(emitted.text)
            tokens += emitted.tokens
        assert state.finish_reason is not None
        return GenerationResult(
            text="".join(texts),
            tokens=tuple(tokens),
            finish_reason=state.finish_reason,
            stats=state.counters.snapshot(),
        )

    def _chunks(self, state: State) -> Iterator[Chunk]:
        """Run a request and show each round."""
        for emitted in self._run(state):
            yield Chunk(
                text=emitted.text,
                tokens=tuple(emitted.tokens),
                finish_reason=state.finish_reason,
                stats=state.counters.snapshot(),
            )
