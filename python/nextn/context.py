"""A context: the state of one or more sequences over a model, and the decode call. Thin over nextn._core.Context."""

from __future__ import annotations

from types import TracebackType
from typing import Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from nextn import _core
from nextn._threads import default_n_threads
from nextn.model import Model, TokenIds
from nextn.options import check_bool, check_choice, check_int, name_unknown_keywords

__all__ = ["Context", "FloatArray", "HiddenTap", "Outputs", "TokenIds"]

FloatArray: TypeAlias = npt.NDArray[np.float32]
Outputs: TypeAlias = Literal["all", "last", "none"]
HiddenTap: TypeAlias = Literal["auto", "post", "pre"]

_INT32_MAX = 2**31 - 1
_MOST_SEQUENCES, _MOST_THREADS = 256, 512  # the engine's


class Context:
    """State of sequences over a model (KV cache, recurrent state) and the decode call.

    Safe to use from several threads: calls on one context wait for each other, and none holds the GIL meanwhile.

    Args:
        model: The model; the context keeps its native part alive.
        n_ctx: Number of tokens that fit, over all sequences; 0 takes the length the model was trained for.
        n_batch: Largest number of tokens in one decode().
        n_ubatch: Number of tokens computed at once inside it.
        n_seq_max: Number of sequences.
        n_threads: Threads for decodes of one token; None takes the physical cores this process may use.
        n_threads_batch: Threads for longer decodes; None takes n_threads.
        type_k: Type of the K cache: "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl".
        type_v: Type of the V cache; a quantized one needs flash attention.
        flash_attn: Flash attention: "auto" (when the backend has it), True or False.
        n_rs_seq: Recurrent-state snapshots per sequence: how many tokens of the last batch can be taken back.
        nextn_draft: Make a draft context: it runs the draft head alone, over the same weights.
        hidden_tap: Which hidden row feeds the head: "post" (after the final norm), "pre", "auto" (by architecture).
        offload_kqv: Keep the KV cache on the GPU when there is one.
        imatrix: Collects what the weights are multiplied with in every decode; see nextn.quantize.collect.

    Raises:
        NoNextnLayerError: nextn_draft over a model without a draft head, or loaded with load_nextn=False.
        ContextCreateError: Not enough memory, or options that exclude each other.
        ValueError: An option out of its range.
        ClosedError: The model was closed.
    """

    @name_unknown_keywords
    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int = 0,
        n_batch: int = 2048,
        n_ubatch: int = 512,
        n_seq_max: int = 1,
        n_threads: int | None = None,
        n_threads_batch: int | None = None,
        type_k: str = "f16",
        type_v: str = "f16",
        flash_attn: Literal["auto"] | bool = "auto",
        n_rs_seq: int = 0,
        nextn_draft: bool = False,
        hidden_tap: HiddenTap = "auto",
        offload_kqv: bool = True,
        imatrix: _core.Imatrix | None = None,
    ) -> None:
        if not isinstance(model, Model):
            raise TypeError(f"model must be a nextn.Model, not {type(model).__name__}")
        if n_threads is None:
            n_threads = default_n_threads()
        if n_threads_batch is None:
            n_threads_batch = n_threads
        for name, text in (("type_k", type_k), ("type_v", type_v), ("hidden_tap", hidden_tap)):
            if not isinstance(text, str):
                raise TypeError(f"{name} must be a string, not {type(text).__name__}")
        check_choice("flash_attn", flash_attn, ("auto", True, False))
        # types here; the native part knows the exact ranges
        self._model = model
        self._core = _core.Context(
            model._core,
            n_ctx=check_int("n_ctx", n_ctx, 0, _INT32_MAX),
            n_batch=check_int("n_batch", n_batch, 1, _INT32_MAX),
            n_ubatch=check_int("n_ubatch", n_ubatch, 1, _INT32_MAX),
            n_seq_max=check_int("n_seq_max", n_seq_max, 1, _MOST_SEQUENCES),
            n_threads=check_int("n_threads", n_threads, 1, _MOST_THREADS),
            n_threads_batch=check_int("n_threads_batch", n_threads_batch, 1, _MOST_THREADS),
            type_k=type_k,
            type_v=type_v,
            flash_attn={"auto": "auto", True: "on", False: "off"}[flash_attn],
            n_rs_seq=check_int("n_rs_seq", n_rs_seq, 0, _INT32_MAX),
            nextn_draft=check_bool("nextn_draft", nextn_draft),
            hidden_tap=hidden_tap,
            offload_kqv=check_bool("offload_kqv", offload_kqv),
            imatrix=imatrix,
        )

    # Decoding

    def decode(
        self,
        tokens: TokenIds,
        *,
        positions: TokenIds | None = None,
        seq_id: int = 0,
        hidden: FloatArray | None = None,
        outputs: Outputs = "all",
    ) -> int:
        """Run tokens through the model and append them to a sequence.

        Args:
            tokens: Token ids [n_tokens], at least one, at most n_batch.
            positions: Their positions [n_tokens], contiguous; None continues after seq_pos_max(seq_id).
            seq_id: The sequence, 0 <= seq_id < n_seq_max.
            hidden: float32 [n_tokens, n_embd], the row that the draft head reads next to each token. A draft context
                needs it, a target refuses it.
            outputs: Which tokens get a row of logits: "all", "last" or "none".

        Returns:
            Number of rows of logits.

        Raises:
            ContextOverflowError: No room for the tokens; nothing was changed.
            DecodeError: The computation failed. The state of the sequence is unknown then, so the sequence was removed
                from this context and from the paired one.
            CancelledError: abort() was called meanwhile; as for DecodeError.
            ValueError, TypeError: A wrong argument; nothing was changed.
        """
        return self._core.decode(tokens, positions=positions, seq_id=seq_id, hidden=hidden, outputs=outputs)

    def abort(self) -> None:
        """Make the decode that runs in another thread stop with CancelledError (on the CPU); later ones run again."""
        self._core.abort()

    def halt(self, value: bool) -> None:
        """Make the running decode and every later one stop with CancelledError, until it is called with False.

        Unlike abort() it cannot come too early: a decode that another thread is about to begin stops as well.
        """
        self._core.halt(check_bool("value", value))

    # Outputs of the last decode

    def logits(self) -> FloatArray:
        """Copy of the logits of the last decode, float32 [n_outputs, n_vocab]."""
        return self._core.logits()

    def logits_view(self) -> FloatArray:
        """Read-only view of the logits, float32 [n_outputs, n_vocab]; while it lives the context refuses to decode."""
        return self._core.logits_view()

    def set_argmax(self, value: bool, *, keep_logits: bool = False) -> None:
        """Search the arg-max of each row of logits while computing, from the next decode on, for argmax().

        No row of n_vocab logits is copied then, and logits() has nothing to give, unless keep_logits.
        """
        self._core.set_argmax(check_bool("value", value), check_bool("keep_logits", keep_logits))

    def argmax(self) -> list[int]:
        """The token with the largest logit of each row of the last decode [n_outputs]; of equal ones the lowest id.

        Raises:
            NextnError: set_argmax() was not called before, or nothing was decoded with outputs.
            DecodeError: The logits are no numbers.
        """
        return self._core.argmax()

    def hidden(self) -> FloatArray:
        """Copy of the rows that feed the draft head, float32 [n_tokens, n_embd], one per token of the last decode."""
        return self._core.hidden()

    def hidden_view(self) -> FloatArray:
        """Read-only view of hidden(); while it lives the context refuses to decode."""
        return self._core.hidden_view()

    def set_embeddings_pre_norm(self, value: bool) -> None:
        """Export the hidden rows before the final norm, from the next decode on."""
        self._core.set_embeddings_pre_norm(value)

    def embeddings_pre_norm(self) -> FloatArray:
        """Copy of the rows before the final norm, float32 [n_tokens, n_embd], one per token of the last decode."""
        return self._core.embeddings_pre_norm()

    def embeddings_pre_norm_view(self) -> FloatArray:
        """Read-only view of embeddings_pre_norm(); while it lives the context refuses to decode."""
        return self._core.embeddings_pre_norm_view()

    # Memory of the sequences

    def seq_rm(self, seq_id: int, p0: int, p1: int) -> bool:
        """Remove the positions [p0, p1) of a sequence with the engine's plain call (negative: from 0, to the end).

        On a model with recurrent layers the plain call can answer True and leave a wrong state, when tokens are taken
        back that were decoded in more than one batch. Use nextn_seq_rm() on a target.

        Returns:
            False when the engine refuses; nothing was changed then.
        """
        return self._core.seq_rm(seq_id, p0, p1)

    def nextn_seq_rm(self, seq_id: int, p0: int, p1: int) -> bool:
        """Remove the positions [p0, p1) of a sequence from this target and its paired draft context, or from neither.

        Args:
            seq_id: The sequence.
            p0: First position to remove; negative means 0.
            p1: End of the range; negative means the end.

        Returns:
            False, and nothing changed, when the range is no suffix or reaches deeper than max_rollback(seq_id).
            Removing the whole sequence always works.
        """
        return self._core.nextn_seq_rm(seq_id, p0, p1)

    def seq_pos_max(self, seq_id: int = 0) -> int:
        """Largest position in the sequence, -1 when it is empty."""
        return self._core.seq_pos_max(seq_id)

    def seq_pos_min(self, seq_id: int = 0) -> int:
        """Smallest position in the sequence, -1 when it is empty."""
        return self._core.seq_pos_min(seq_id)

    def max_rollback(self, seq_id: int = 0) -> int:
        """How many of the newest tokens of a sequence can be taken back bit-exactly right now.

        Recurrent layers keep one snapshot per token of the last batch, used once; without such layers every token can
        be taken back, and the answer is 2**31 - 1.
        """
        return self._core.max_rollback(seq_id)

    def save_state(self, seq_id: int = 0) -> bytes:
        """Copy what restore_state() needs to come back to this place: the state of the recurrent layers.

        Attention layers hold every position and can be cut anywhere; a model with no other layers gives b"".
        """
        return self._core.save_state(seq_id)

    def restore_state(self, state: bytes, n_past: int, seq_id: int = 0) -> bool:
        """Take a sequence of this target back to its first n_past tokens, where save_state() gave this state.

        The paired draft context is not touched.

        Returns:
            False when the sequence no longer holds those tokens: it is as it was then, or empty.
        """
        if not isinstance(state, bytes):
            raise TypeError(f"state must be the bytes that save_state() gave, not {type(state).__name__}")
        return self._core.restore_state(state, check_int("n_past", n_past, 1, _INT32_MAX), seq_id)

    # The pair of target and draft context

    def pair(self, draft_context: Context | None) -> None:
        """Pair this target with its draft context, so that nextn_seq_rm() trims both; None ends the pairing.

        Either of the two may be closed first.

        Raises:
            ValueError: The two do not fit: no draft context, another width or vocabulary, or paired elsewhere.
        """
        if draft_context is not None and not isinstance(draft_context, Context):
            raise TypeError(f"draft_context must be a nextn.Context or None, not {type(draft_context).__name__}")
        if draft_context is None:
            self._core.unpair()
        else:
            self._core.pair(draft_context._core)

    def set_hidden_tap(self, tap: HiddenTap) -> None:
        """Choose the hidden row that feeds the draft head, from the next decode on; both of a pair should agree."""
        self._core.set_hidden_tap(tap)

    @property
    def hidden_tap(self) -> Literal["post", "pre"]:
        """The tap in effect."""
        return cast(Literal["post", "pre"], self._core.hidden_tap)

    # What it is

    @property
    def model(self) -> Model:
        """The model it was made over."""
        return self._model

    @property
    def is_draft(self) -> bool:
        """Whether it is a draft context."""
        return self._core.is_draft

    @property
    def n_ctx(self) -> int:
        """Number of tokens that fit, over all sequences (the engine rounds up to a multiple of 256)."""
        return self._core.n_ctx

    @property
    def n_ctx_seq(self) -> int:
        """Number of tokens that fit in one sequence."""
        return self._core.n_ctx_seq

    @property
    def n_batch(self) -> int:
        """Largest number of tokens in one decode()."""
        return self._core.n_batch

    @property
    def n_ubatch(self) -> int:
        """Number of tokens computed at once."""
        return self._core.n_ubatch

    @property
    def n_seq_max(self) -> int:
        """Number of sequences."""
        return self._core.n_seq_max

    @property
    def n_rs_seq(self) -> int:
        """Recurrent-state snapshots per sequence; 0 on models without recurrent layers."""
        return self._core.n_rs_seq

    @property
    def n_threads(self) -> int:
        """Threads for decodes of one token."""
        return self._core.n_threads

    @property
    def n_threads_batch(self) -> int:
        """Threads for longer decodes."""
        return self._core.n_threads_batch

    def inexact(self, n_tokens: int) -> str | None:
        """Why a batch may differ from its tokens decoded one at a time, in logits, hidden rows or the state it leaves.

        The engine goes through the operations of such a batch and asks each one's backend. docs/exactness.md has more.

        Args:
            n_tokens: Tokens of the batch, at most n_ubatch; a round verifies its draft and one more.

        Returns:
            None when every bit is the same. Otherwise the first operation, with its weight and device, and the reason.

        Raises:
            ValueError: n_tokens out of its range.
        """
        return self._core.inexact(check_int("n_tokens", n_tokens, 1, _INT32_MAX))

    def memory_usage(self) -> dict[str, int]:
        """Bytes of the model's weights ("model"), of this context's caches ("context") and work space ("compute")."""
        return self._core.memory_usage()

    @property
    def n_graph_builds(self) -> int:
        """Number of graphs built since the context was made."""
        return self._core.n_graph_builds

    @property
    def n_graph_reuses(self) -> int:
        """Number of decodes that reused the previous graph."""
        return self._core.n_graph_reuses

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._core.closed

    def close(self) -> None:
        """Free the context, after a running decode; views that are alive keep the memory. May be called twice."""
        self._core.close()

    def __enter__(self) -> Context:
        """Give itself; leaving the block closes it."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Kind and size, for people."""
        if self.closed:
            return "Context(closed)"
        return f"Context(n_ctx={self.n_ctx}, {'draft' if self.is_draft else 'target'})"
