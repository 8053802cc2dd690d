"""What a benchmark asks of whatever generates: a model in this process (local.py) or servers (remote.py)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from nextn.bench.plan import Arm
from nextn.bench.suite import Message

__all__ = ["Measured", "Request", "Runner", "hash_text", "hash_tokens", "pad"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """One generation: either messages, for the chat template, or a text to continue.

    With ignore_eos it is as long as max_tokens says, wherever the model would have ended it.
    """

    messages: list[Message] | None
    text: str | None
    max_tokens: int
    temperature: float
    seed: int
    ignore_eos: bool = False


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one generation gave; None where a server does not say it. Times are in milliseconds.

    Attributes:
        prompt_tokens, completion_tokens: Tokens read and generated.
        prompt_ms: Reading the prompt.
        predicted_ms: All rounds; the first token belongs to the prompt.
        draft_ms, verify_ms: The drafter's and the target's share of predicted_ms.
        draft_n, draft_n_accepted: Drafted tokens, and those of them that were accepted.
        n_rounds: Target decodes after the prompt.
        drafted_per_position, accepted_per_position: Rounds in which a token was drafted, or accepted, at position
            1, 2, ... of the draft.
        finish_reason: "stop" or "length".
        tokens_sha256: Hash of the token ids, see hash_tokens.
        text_sha256: Hash of the text.
    """

    prompt_tokens: int
    completion_tokens: int
    prompt_ms: float
    predicted_ms: float
    draft_ms: float | None
    verify_ms: float | None
    draft_n: int
    draft_n_accepted: int
    n_rounds: int | None
    drafted_per_position: list[int] | None
    accepted_per_position: list[int] | None
    finish_reason: str
    tokens_sha256: str | None
    text_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """As in a receipt's row; microseconds are kept, less is noise."""
        times = ("prompt_ms", "predicted_ms", "draft_ms", "verify_ms")
        return {k: round(v, 3) if k in times and v is not None else v for k, v in asdict(self).items()}


class Runner(Protocol):
    """Generates for the arms it was made with."""

    def count_tokens(self, messages: list[Message]) -> int:
        """Tokens of a conversation as a prompt."""
        ...

    def run(self, arm: Arm, request: Request) -> Measured:
        """Generate once."""
        ...

    def describe(self) -> dict[str, Any]:
        """The receipt's facts about what runs: "model", "engine", "server", "context"."""
        ...

    def close(self) -> None:
        """Give back what was opened."""
        ...


def hash_tokens(tokens: Sequence[int]) -> str:
    """SHA-256 of the token ids, written as a JSON list without blanks."""
    return hashlib.sha256(json.dumps(list(tokens), separators=(",", ":")).encode()).hexdigest()


def hash_text(text: str) -> str:
    """SHA-256 of the UTF-8 text."""
    return hashlib.sha256(text.encode()).hexdigest()


def pad(counts: Sequence[int], n: int) -> list[int]:
    """Counts by position, with zeros up to n: whoever counts accepted tokens ends at the last one."""
    return [*counts, *[0] * (n - len(counts))]
