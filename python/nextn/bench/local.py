"""Benchmarking a model in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import fields
from typing import Any

from nextn import _core
from nextn.bench.machine import engine_files, file_facts
from nextn.bench.plan import Arm
from nextn.bench.runner import Measured, Request, hash_text, hash_tokens, pad
from nextn.bench.suite import Message
from nextn.chat import ChatPrompter
from nextn.context import Context
from nextn.model import Model
from nextn.options import DraftParams, GenerateOptions
from nextn.speculator import Speculator
from nextn.stats import Chunk, Stats

__all__ = ["LocalRunner"]

# What a row takes from the statistics as it stands there; it pads the positions.
_IN_BOTH = {field.name for field in fields(Measured)} & {field.name for field in fields(Stats)}
_IN_BOTH -= {"accepted_per_position"}


class LocalRunner:
    """A Speculator for each arm over one model, all open at the same time so that each keeps what it has learnt.

    Args:
        model: The model.
        arms: Plain, fixed and adaptive ones.
        n_ctx: Tokens that fit.
        draft_model: The model that holds the head, when it is not the model itself.
        p_min: Of the fixed arms: a draft ends where the head is less sure than this.
        vocab: Tokens that the head scores.
        options: Further options of the Speculator: n_threads, type_k, flash_attn, ...

    Raises:
        NextnError: As for Speculator.
    """

    def __init__(
        self,
        model: Model,
        arms: Sequence[Arm],
        *,
        n_ctx: int,
        draft_model: Model | None = None,
        p_min: float = 0.0,
        vocab: Any = "auto",
        **options: Any,
    ) -> None:
        self._model = model
        self._head = draft_model
        self._chat = ChatPrompter(model)
        self._options = {"n_ctx": n_ctx, "p_min": p_min, "vocab": str(vocab), **options}
        self._speculators: dict[str, Speculator] = {}
        with ExitStack() as opened:
            for arm in arms:
                draft = _draft_params(arm, p_min, vocab)
                head = draft_model if draft is not None else None
                speculator = Speculator(
                    model, n_ctx=n_ctx, draft=draft, draft_model=head, ctx_checkpoints=0, **options
                )  # no checkpoints: each run reads its prompt
                self._speculators[arm.name] = opened.enter_context(speculator)
            self._opened = opened.pop_all()

    @property
    def contexts(self) -> list[Context]:
        """All contexts, to abort them at an interrupt."""
        both = [(speculator.ctx_tgt, speculator.ctx_dft) for speculator in self._speculators.values()]
        return [context for pair in both for context in pair if context is not None]

    def count_tokens(self, messages: list[Message]) -> int:
        """Tokens of a conversation as a prompt."""
        return len(self._chat.prompt(messages).tokens)

    def run(self, arm: Arm, request: Request) -> Measured:
        """Generate once, and look at each round."""
        tokens: list[int] = []
        text: list[str] = []
        drafted: list[int] = []
        n_drafted, last = 0, None
        for last in self._stream(self._speculators[arm.name], request):
            tokens += last.tokens
            text.append(last.text)
            length, n_drafted = last.stats.draft_n - n_drafted, last.stats.draft_n
            drafted.extend([0] * (length - len(drafted)))
            for position in range(length):
                drafted[position] += 1
        assert last is not None and last.finish_reason is not None  # a stream ends with a reason
        stats = last.stats
        return Measured(
            **{name: getattr(stats, name) for name in _IN_BOTH},
            drafted_per_position=drafted,
            accepted_per_position=pad(stats.accepted_per_position, len(drafted)),
            finish_reason=last.finish_reason,
            tokens_sha256=hash_tokens(tokens),
            text_sha256=hash_text("".join(text)),
        )

    def describe(self) -> dict[str, Any]:
        """The model, the engine, and the options of the Speculators."""
        info = _core.engine_info()
        engine = {key: info[key] for key in ("version", "upstream_commit", "stamp", "compiler", "system_info")}
        return {
            "model": {**file_facts(self._model.path), **_model_facts(self._model)},
            "draft_model": file_facts(self._head.path) if self._head is not None else None,
            "engine": {**engine, "devices": [d["description"] for d in info["devices"]], "files": engine_files()},
            "server": None,
            "context": dict(self._options),
        }

    def close(self) -> None:
        """Close the Speculators; the model stays open."""
        self._opened.close()

    def __enter__(self) -> LocalRunner:
        """Give itself; leaving the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _stream(self, speculator: Speculator, request: Request) -> Iterator[Chunk]:
        """The chunks of one generation."""
        options: GenerateOptions = {
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
            "ignore_eos": request.ignore_eos,
        }
        if request.messages is not None:
            return speculator.stream_chat(request.messages, **options)
        assert request.text is not None  # one of both is given
        return speculator.stream(request.text, **options)


def _draft_params(arm: Arm, p_min: float, vocab: Any) -> DraftParams | None:
    """How an arm drafts."""
    if arm.kind == "plain":
        return None
    if arm.kind == "fixed":
        return DraftParams(n_max=arm.n_max, adaptive=False, p_min=p_min, vocab=vocab)
    if arm.kind == "adaptive":
        return DraftParams(n_max=arm.n_max, vocab=vocab)
    raise ValueError(f"the arm {arm.name!r} is for a server")


def _model_facts(model: Model) -> dict[str, Any]:
    """What the engine says about the loaded model."""
    return {
        "description": model.description,
        "n_params": model.n_params,
        "has_nextn_layer": model.has_nextn_layer,
    }
