"""Drafters: they propose tokens, the target has the last word. A drafter can cost time, never change the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from nextn import _core
from nextn.context import Context, FloatArray
from nextn.options import DraftParams, SamplingParams, check_int
from nextn.sampling import Distribution, FloatRow

__all__ = [
    "Drafter",
    "DrawingDrafter",
    "Draws",
    "HeadDrafter",
    "IntArray",
    "LearningDrafter",
    "NoDrafter",
    "ResumableDrafter",
    "ScriptedDrafter",
]

IntArray: TypeAlias = npt.NDArray[np.int32]


@runtime_checkable
class Drafter(Protocol):
    """What the loop asks of a drafter.

    For every request: begin() once, prefill() after each chunk of the prompt, then draft() and accept() in turn.

    Attributes:
        n_max: Longest draft it proposes; the target keeps as many snapshots to roll back to.
    """

    n_max: int

    def begin(self, prompt: IntArray) -> None:
        """Forget the previous request; prompt [n_prompt] is the new one."""
        ...

    def prefill(self, tokens: IntArray) -> None:
        """The target has just decoded this chunk of the prompt, tokens [n_tokens]."""
        ...

    def draft(self, id_last: int, n_past: int, n_room: int) -> Sequence[int] | IntArray:
        """Propose what follows id_last, which stands at position n_past: at most n_room tokens [n_draft], or none."""
        ...

    def accept(self, n_accepted: int) -> None:
        """The target has just decoded id_last and the draft, and the first n_accepted drafted tokens are kept."""
        ...


@dataclass(frozen=True, kw_only=True)
class Draws:
    """How a drafter draws its tokens; top_k, top_p, min_p and temperature as in SamplingParams.

    Attributes:
        seed: Seed of the draws.
        steady: The same seed gives the same drafts: their lengths depend on nothing that is measured.
    """

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    steady: bool

    @classmethod
    def like(cls, params: SamplingParams, seed: int) -> Draws:
        """Draw from a q that resembles the p of these options; they say whether the text shall be reproducible."""
        return cls(temperature=params.temperature, top_k=params.top_k, top_p=params.top_p, min_p=params.min_p,
                   seed=seed, steady=params.seed is not None)  # fmt: skip


@runtime_checkable
class DrawingDrafter(Drafter, Protocol):
    """A drafter that can draw its tokens instead of taking the best ones."""

    def draw(self, draws: Draws | None) -> None:
        """Before begin(): draw in this way from now on; None: take the best tokens."""
        ...

    def q(self) -> list[Distribution]:
        """What the tokens of the last draft were drawn from [n_draft]; none when they were not drawn."""
        ...

    def cut(self, n_draft: int) -> None:
        """Only the first n_draft tokens of the last draft go to the target."""
        ...


@runtime_checkable
class LearningDrafter(Protocol):
    """What lets a drafter learn from how its drawn tokens were judged."""

    def saw_p(self, p: Sequence[FloatRow]) -> None:
        """Before accept(): what the target gave to the ids of q(), for each token that it judged."""
        ...


@runtime_checkable
class ResumableDrafter(Protocol):
    """What lets a drafter go on in the middle of a prompt, instead of with begin()."""

    def checkpoint(self) -> Any:
        """After prefill(): what resume() needs to come back to this place."""
        ...

    def resume(self, prompt: IntArray, n_past: int, checkpoint: Any) -> bool:
        """Begin a request whose prompt [n_prompt] has its first n_past tokens in common with an earlier one.

        Args:
            prompt: The new prompt.
            n_past: Where prefill() will go on.
            checkpoint: What checkpoint() gave at this place of the earlier prompt.

        Returns:
            False, when that is not possible after all; begin() follows.
        """
        ...


class NoDrafter:
    """Drafts nothing: plain decoding through the same loop."""

    n_max = 0

    def begin(self, prompt: IntArray) -> None:
        """Nothing to forget."""

    def prefill(self, tokens: IntArray) -> None:
        """Nothing to learn."""

    def draft(self, id_last: int, n_past: int, n_room: int) -> list[int]:
        """Propose nothing."""
        return []

    def accept(self, n_accepted: int) -> None:
        """Nothing to learn."""

    def checkpoint(self) -> None:
        """Nothing to remember."""

    def resume(self, prompt: IntArray, n_past: int, checkpoint: None) -> bool:
        """Nothing to go back to."""
        return True


class ScriptedDrafter:
    """Proposes tokens from a list, for tests: any pattern of acceptance can be had, with true verification.

    Args:
        script: The tokens expected after the prompt; entry i is proposed as the i-th generated token.
        n_max: Longest draft.
    """

    def __init__(self, script: Sequence[int], *, n_max: int = 3) -> None:
        self.n_max = check_int("n_max", n_max, 1, 64)
        self._script = list(script)
        self._n_prompt = 0

    def begin(self, prompt: IntArray) -> None:
        """Remember where the script starts."""
        self._n_prompt = len(prompt)

    def prefill(self, tokens: IntArray) -> None:
        """Nothing to learn."""

    def draft(self, id_last: int, n_past: int, n_room: int) -> list[int]:
        """The entries that stand after position n_past."""
        start = n_past + 1 - self._n_prompt
        return self._script[start : start + min(self.n_max, n_room)]

    def accept(self, n_accepted: int) -> None:
        """Nothing to learn."""

    def checkpoint(self) -> None:
        """Nothing to remember."""

    def resume(self, prompt: IntArray, n_past: int, checkpoint: None) -> bool:
        """As begin()."""
        self.begin(prompt)
        return True


class HeadDrafter:
    """Drafts with the model's NextN head, in a draft context paired with the target, through the draft engine.

    The head reads token x_p next to h_(p-1), the target's hidden row of the position before (zeros at position 0), and
    proposes x_(p+1). Further down a chain there is no target row yet; the head's own hidden row stands in for it.

    The engine (overlay/src/llama-nextn-drafter.cpp of the fork) reads each kept token once with its true row: those of
    a round wait, and the next draft reads them in the same decode as its first step. It scores a shortlist of the
    vocabulary, and it chooses the length of a draft from what it has measured, unless params fix it.

    Args:
        ctx_tgt: The target; its hidden rows are read after each of its decodes.
        ctx_dft: The draft context, paired with it.
        params: Length of the drafts and size of the shortlist.
    """

    def __init__(self, ctx_tgt: Context, ctx_dft: Context, params: DraftParams) -> None:
        self.n_max = params.n_max
        self._core = _core.Drafter(
            ctx_tgt._core,
            ctx_dft._core,
            n_max=params.n_max,
            n_min=params.n_min,
            p_min=params.p_min,
            adaptive=params.adaptive,
            n_vocab=params.n_vocab,
            vocab_ids=params.vocab_ids,
        )
        self._round: list[int] = []  # id_last and the draft, as verified
        self._n_rest = 0  # coming rounds in which the engine drafts nothing and needs no more than their tokens
        self._is_resting = False  # this round is one of them
        self._is_drawing = False
        self._verify_start = 0.0

    def draw(self, draws: Draws | None) -> None:
        """From the next begin() on draw in this way; None: take the best tokens."""
        self._is_drawing = draws is not None
        if draws is None:
            self._core.draw(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, seed=0, steady=False)
        else:
            self._core.draw(temperature=draws.temperature, top_k=draws.top_k, top_p=draws.top_p, min_p=draws.min_p,
                            seed=draws.seed, steady=draws.steady)  # fmt: skip

    def begin(self, prompt: IntArray) -> None:
        """Forget the previous request; what was learnt of costs and of the head stays."""
        self._n_rest = 0
        self._core.begin()

    def prefill(self, tokens: IntArray) -> None:
        """Take the rows of a chunk of the prompt; the row of its last token is kept for the token that follows."""
        self._core.flush()  # so that resume() can come back to the end of the chunk before
        self._core.feed(tokens)

    def draft(self, id_last: int, n_past: int, n_room: int) -> list[int]:
        """Let the head read what it has not read and id_last, then run the chain."""
        self._is_resting = self._n_rest > 0
        if self._is_resting:
            self._n_rest -= 1
            self._round = [id_last]
            return []
        drafted = self._core.draft(id_last, n_room)
        self._round = [id_last, *drafted]
        self._verify_start = perf_counter()
        return drafted

    def q(self) -> list[Distribution]:
        """What the tokens of the last draft were drawn from; ids ascending."""
        return [Distribution.of(ids, q.astype(np.float64)) for ids, q in self._core.q()] if self._is_drawing else []

    def cut(self, n_draft: int) -> None:
        """Only these go to the target."""
        del self._round[1 + n_draft :]

    def saw_p(self, p: Sequence[FloatRow]) -> None:
        """Learn where a draft had better be drawn, and where the best token is the better guess."""
        self._core.saw_p([row.tolist() for row in p])

    def accept(self, n_accepted: int) -> None:
        """Take the target's rows of id_last and the accepted tokens, and what the verdict cost."""
        if self._is_resting:
            self._core.feed(self._round)
            return
        verify_us = 1e6 * (perf_counter() - self._verify_start)
        self._n_rest = self._core.accept(self._round[: n_accepted + 1], len(self._round) - 1, verify_us)

    def checkpoint(self) -> FloatArray:
        """The hidden row [1, n_embd] that the next token is paired with; the draft memory holds everything else."""
        return self._core.carry()

    def resume(self, prompt: IntArray, n_past: int, checkpoint: FloatArray) -> bool:
        """Cut the draft memory behind the first n_past tokens."""
        self._n_rest = 0
        return self._core.resume(prompt[:n_past], checkpoint)

    def stats(self) -> dict[str, Any]:
        """What the engine knows.

        Returns:
            The size of the shortlist: n_prefix, n_extra, n_extra_bytes, miss_rate. And running estimates, in
            microseconds, of verifying n = 1 .. 16 tokens (verify_us) and of drafting as many (draft_us).
        """
        return dict(self._core.stats())

    def close(self) -> None:
        """Free the engine's part."""
        self._core.close()
