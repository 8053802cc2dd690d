"""Self-speculative generation: the one place to read the algorithm.

A round drafts a few tokens, lets the target verify them all in one decode, keeps those that the target would have
produced itself, and rolls both memories back to what is kept. See Speculator._rounds for the loop, accept.py for the
words, drafting.py for where drafts come from.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache, partial
from time import perf_counter
from types import TracebackType
from typing import Any, Literal

import numpy as np

from nextn._checkpoints import Checkpoint, Checkpoints, end_of_chunk
from nextn._forms import Forms
from nextn._setup import check_draft, check_exact, choose_n_ctx, make_pair, open_model
from nextn._state import Emitted, State
from nextn._turn import Turn
from nextn.accept import Accepted
from nextn.chat import ChatPrompter
from nextn.context import Context, HiddenTap
from nextn.drafting import Drafter, DrawingDrafter, HeadDrafter, IntArray, LearningDrafter, ResumableDrafter
from nextn.errors import CancelledError, ClosedError, RollbackError
from nextn.model import Model
from nextn.options import DraftParams, check_bool, check_int, name_unknown_keywords

__all__ = ["Speculator"]

_SEQ_ID = 0
_PIECES_KEPT = 1 << 16  # texts use a small part of a vocabulary


class Speculator(Forms):
    """Generates text with a model, speculating with the model's own draft head; the text is the model's own.

    Greedy text equals plain greedy decoding token for token, on the CPU bit for bit; elsewhere near-ties may fall
    differently (see exact). Sampled text has the model's own distribution.
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
        rpc_servers: Workers, as for Model, when a path is given.
        exact: Refuse to speculate where a verified token could differ in one bit from a decoded one, instead of
            speculating all the same.
        ctx_checkpoints: Most places in a prompt to keep, from which the next prompt can go on when it begins the same;
            each holds a copy of the model's recurrent state. They lie behind the turns of a conversation, 128 to
            n_ubatch tokens apart. 0 reads every prompt from its start. The answer is the same.
        chat_template: A chat template (Jinja) to use instead of the file's.

    Raises:
        NoNextnLayerError: A draft is asked for and there is no head. Plain decoding needs draft=None.
        InexactError: exact is True, and the model, its options, this build or this machine do not allow it.
        ModelFileError, ContextCreateError: The file cannot be loaded, the contexts cannot be made.
        WorkerError: A worker cannot be reached, or was lost; so for every later call.
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
        rpc_servers: Sequence[str] = (),
        exact: bool = False,
        ctx_checkpoints: int = 8,
        chat_template: str | None = None,
    ) -> None:
        ctx_checkpoints = check_int("ctx_checkpoints", ctx_checkpoints, 0, 1024)
        check_draft(draft, draft_model, n_batch, n_ubatch)
        check_bool("exact", exact)
        with ExitStack() as owned:  # whatever was opened is closed again when a later step fails
            load_nextn = isinstance(draft, DraftParams) and draft_model is None
            open_here = partial(open_model, owned=owned, n_gpu_layers=n_gpu_layers, rpc_servers=rpc_servers)
            self._model = open_here("model", model, load_nextn)
            head = self._model
            if draft_model is not None:
                head = open_here("draft_model", draft_model, True)

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
            if exact:
                check_exact(self._ctx_tgt, self._drafter.n_max)
            self._drawing = self._drafter if isinstance(self._drafter, DrawingDrafter) else None
            self._learning = self._drafter if isinstance(self._drafter, LearningDrafter) else None
            if isinstance(self._drafter, HeadDrafter):
                owned.callback(self._drafter.close)
            self._piece = lru_cache(_PIECES_KEPT)(partial(self._model.token_to_piece, special=False))
            self._n_ctx = n_ctx_asked  # the context may hold more: the engine rounds up
            self._draft = draft
            self._chat = ChatPrompter(self._model, chat_template)
            self._turn = Turn()
            self._checkpoints = Checkpoints(ctx_checkpoints if isinstance(self._drafter, ResumableDrafter) else 0)
            self._running_in: int | None = None  # the thread of the request that runs
            self._running_lock = threading.Lock()
            self._owned = owned.pop_all()
        self._closed = False

    # What it is

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

    def cancel(self) -> bool:
        """End the running request from any thread: it raises CancelledError, at once even in the middle of a decode.

        The Speculator can be used afterwards.

        Returns:
            Whether a request was running.
        """
        with self._running_lock:
            return self._running_in is not None and self._halt(True)

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
        """Go back to what the memories share with the new prompt, as far as a checkpoint allows; forget the rest."""
        self._ctx_tgt.set_argmax(state.rule.by_argmax, keep_logits=state.logprobs is not None)
        if self._drawing:
            self._drawing.draw(state.rule.draws)
        checkpoint = self._checkpoints.find(state.prompt)
        if checkpoint is not None and self._resume(state.prompt, checkpoint):
            state.n_past = state.counters.cache_n = checkpoint.n_past
        else:
            self._ctx_tgt.seq_rm(_SEQ_ID, -1, -1)  # a whole sequence: the plain call is right for that
            self._drafter.begin(state.prompt)
        self._checkpoints.start(state.prompt, state.n_past)

    def _prefill(self, state: State) -> Emitted:
        """Read the prompt in chunks, the drafter following each, and choose the first token."""
        # One ubatch per decode: the engine cuts a longer batch differently when it keeps snapshots to roll back to, and
        # the target's numbers must not depend on whether something drafts.
        n_prompt, n_most = len(state.prompt), min(self._ctx_tgt.n_batch, self._ctx_tgt.n_ubatch)
        while state.n_past < n_prompt:
            end, is_whole = end_of_chunk(state.prompt, state.n_past, n_most, self._model.eog_tokens)
            chunk = state.prompt[state.n_past : end]
            state.n_past = end
            self._ctx_tgt.decode(chunk, outputs="last" if state.n_past == n_prompt else "none")
            state.counters.lap("prompt")
            self._drafter.prefill(chunk)
            state.counters.lap("prompt_draft")
            if is_whole:
                self._save_checkpoint(state.n_past)
            if state.progress is not None and state.progress(state.n_past, n_prompt) is False:
                raise CancelledError("reading the prompt was cancelled: progress returned False")
        return self._emit(state, [], self._accept(state, []).id_next)

    def _draft_step(self, state: State) -> Sequence[int]:
        """Ask the drafter for tokens after id_last, no more than can be emitted: a round adds one of the target's."""
        n_room = state.n_left - 1
        draft = self._drafter.draft(state.id_last, state.n_past, n_room)[:n_room]
        if not isinstance(draft, list):
            draft = np.asarray(draft).tolist()
        kept = state.rule.cut(draft)
        if len(kept) < len(draft) and self._drawing:
            self._drawing.cut(len(kept))
        return kept

    def _verify(self, state: State, draft: Sequence[int]) -> None:
        """Let the target decode id_last and the draft in one batch."""
        self._ctx_tgt.decode([state.id_last, *draft], outputs="all")

    def _accept(self, state: State, draft: Sequence[int]) -> Accepted:
        """Compare the draft with what the target itself chooses at each position."""
        drawn = self._drawing if state.rule.draws is not None else None
        accepted = state.rule(draft, self._ctx_tgt, drawn.q() if drawn else ())
        if self._learning and state.rule.seen:
            self._learning.saw_p(state.rule.seen)
        if state.logprobs is not None:
            kept = [*draft[: accepted.n_accepted], accepted.id_next]
            state.logprobs.note(kept, self._ctx_tgt.logits_view())
        return accepted

    def _roll_back(self, state: State, draft: Sequence[int], emitted: Emitted) -> None:
        """Take out of both memories what was decoded and is not in the text: rejected, or behind the end."""
        n_emitted = len(emitted.tokens)  # of which the last is not decoded
        state.n_past += n_emitted
        if n_emitted <= len(draft) and not self._ctx_tgt.nextn_seq_rm(_SEQ_ID, state.n_past, -1):
            raise RollbackError(f"the target could not take back {len(draft) + 1 - n_emitted} tokens")

    def _emit(self, state: State, accepted: Sequence[int], id_next: int) -> Emitted:
        """Turn the accepted tokens and the next one into text, up to the end of the generation if it is among them."""
        stream = state.text
        tokens = words = [*accepted, id_next]
        if not state.eog_tokens.isdisjoint(tokens):
            del tokens[1 + min(map(tokens.index, state.eog_tokens.intersection(tokens))) :]
            words = tokens[:-1]
            state.finish_reason = "stop"
        text, n_fed = stream.feed(list(map(self._piece, words)))
        if stream.stopped:
            del tokens[n_fed:]
            state.finish_reason = "stop"
        state.id_last = tokens[-1]
        state.n_left -= len(tokens)
        state.counters.completion_tokens += len(tokens)
        if state.n_left == 0 and state.finish_reason is None:
            state.finish_reason = "length"
        if state.finish_reason is not None and not stream.stopped:
            text += stream.finish()
        return Emitted(text, tokens, state.logprobs.take(len(tokens)) if state.logprobs else [])

    # Around it

    def _resume(self, prompt: IntArray, checkpoint: Checkpoint) -> bool:
        """Take both memories back to a checkpoint in the prompt, if they can."""
        drafter = self._drafter
        return (
            isinstance(drafter, ResumableDrafter)
            and self._ctx_tgt.restore_state(checkpoint.target, checkpoint.n_past, _SEQ_ID)
            and drafter.resume(prompt, checkpoint.n_past, checkpoint.drafter)
        )

    def _save_checkpoint(self, n_past: int) -> None:
        """Keep what it takes to come back here."""
        if self._checkpoints.n_max > 0 and isinstance(self._drafter, ResumableDrafter):
            target = self._ctx_tgt.save_state(_SEQ_ID)
            self._checkpoints.add(Checkpoint(n_past, target, self._drafter.checkpoint()))

    @contextmanager
    def _registered(self) -> Iterator[None]:
        """Let cancel() find the request in the block."""
        with self._running_lock:
            if self._closed:
                raise ClosedError("this Speculator was closed")
            self._running_in = threading.get_ident()
        try:
            yield
        finally:
            with self._running_lock:
                self._running_in = None
                self._halt(False)

    def _cancel_in(self, thread: int | None) -> None:
        """End the running request if it was begun in this thread."""
        with self._running_lock:
            if self._running_in is not None and self._running_in == thread:
                self._halt(True)

    def _halt(self, value: bool) -> bool:
        """Make every decode of both contexts stop at once, or let them run again."""
        for context in (self._ctx_tgt, self._ctx_dft):
            if context is not None:
                with suppress(ClosedError):
                    context.halt(value)
        return True

    def _run(self, state: State) -> Generator[Emitted, None, None]:
        """The rounds of one request, while it has its turn."""
        start = perf_counter()
        with self._turn.taken(), self._registered():
            try:
                for emitted in self._rounds(state):
                    if state.counters.n_rounds == 0:
                        state.counters.ttft += perf_counter() - start
                    yield emitted
            except BaseException as error:
                # A view of the outputs that lives on in a frame of the traceback would block the next request's decode.
                traceback.clear_frames(error.__traceback__)
                raise
