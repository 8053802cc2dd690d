"""What a call hands back: text, tokens, and how it went."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any, Literal, TypeAlias

from nextn.logprobs import TokenLogprobs

__all__ = ["Chunk", "Counters", "FinishReason", "GenerationResult", "Stats"]

FinishReason: TypeAlias = Literal["stop", "length"]
"""Why a generation ended: an end-of-turn token or a stop string; or max_tokens, or the context was full."""

TimeName: TypeAlias = Literal["prompt", "prompt_draft", "predicted", "draft", "verify"]
"""What the laps of a request are spent on; "prompt" and "predicted" are what is left of reading and of the rounds."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """How a generation went. Times are in milliseconds.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        cache_n: Those of them that were kept from an earlier request instead of being read again.
        completion_tokens: Generated tokens, an end-of-turn token among them.
        draft_n: Drafted tokens that the target verified.
        draft_n_accepted: Those of them that are in the result.
        acceptance_rate: draft_n_accepted / draft_n; 0.0 when nothing was drafted.
        n_rounds: Target decodes after the prompt.
        mean_accepted_len: Tokens per round, 1 + draft_n_accepted / n_rounds.
        accepted_per_position: Entry i counts the rounds in which the drafted token i was accepted.
        ttft_ms: From the call to the first token, waiting for another call on the same Speculator included.
        prompt_ms: Reading the prompt, by the target and by the draft head.
        prompt_draft_ms: The drafter's share of prompt_ms.
        predicted_ms: All rounds; what the caller does between two chunks of a stream is not counted.
        tokens_per_second: Tokens after the first (which belongs to the prompt's decode) per second of predicted_ms.
        draft_ms: The drafter's share of predicted_ms.
        verify_ms: The target's share of predicted_ms: verifying decodes and choosing tokens.
    """

    prompt_tokens: int
    cache_n: int
    completion_tokens: int
    draft_n: int
    draft_n_accepted: int
    acceptance_rate: float
    n_rounds: int
    mean_accepted_len: float
    accepted_per_position: tuple[int, ...]
    ttft_ms: float
    prompt_ms: float
    prompt_draft_ms: float
    predicted_ms: float
    tokens_per_second: float
    draft_ms: float
    verify_ms: float

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them, in this order."""
        return {**asdict(self), "accepted_per_position": list(self.accepted_per_position)}


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A piece of streamed text: what one round added.

    Attributes:
        text: New text; may be empty while a character or a possible stop string is incomplete.
        reasoning_content: New text of the thinking before the answer, in a chat whose template marks it; not in text.
        tokens: New tokens.
        logprobs: Log probabilities of the new tokens, when they were asked for.
        finish_reason: None, except in the last chunk.
        stats: The statistics up to here.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason | None
    stats: Stats
    reasoning_content: str = ""
    logprobs: tuple[TokenLogprobs, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class GenerationResult:
    """A finished generation.

    Attributes:
        text: The text, cut before a stop string; control tokens are not in it.
        reasoning_content: The thinking before the answer, in a chat whose template marks it; not in text.
        tokens: Every generated token, the end-of-turn token or those of a stop string included.
        finish_reason: "stop" at an end-of-turn token or a stop string, "length" at max_tokens or a full context.
        stats: How it went.
        logprobs: Log probabilities of the tokens, when they were asked for.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    stats: Stats
    reasoning_content: str = ""
    logprobs: tuple[TokenLogprobs, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        found: dict[str, Any] = {
            "text": self.text,
            "tokens": list(self.tokens),
            "finish_reason": self.finish_reason,
            "stats": self.stats.to_dict(),
        }
        if self.reasoning_content:
            found["reasoning_content"] = self.reasoning_content
        if self.logprobs is not None:
            found["logprobs"] = [asdict(entry) for entry in self.logprobs]
        return found


@dataclass
class Counters:
    """The running numbers of one generation, from which Stats are made. Times are in seconds."""

    prompt_tokens: int = 0
    cache_n: int = 0
    completion_tokens: int = 0
    draft_n: int = 0
    n_rounds: int = 0
    accepted_per_position: list[int] = field(default_factory=list)
    ttft: float = 0.0
    prompt: float = 0.0  # without prompt_draft
    prompt_draft: float = 0.0
    predicted: float = 0.0  # without draft and verify
    draft: float = 0.0
    verify: float = 0.0
    last_lap: float = 0.0

    def start(self) -> None:
        """Start the clock of the laps."""
        self.last_lap = perf_counter()

    def lap(self, name: TimeName) -> None:
        """Add the time since the start, or since the lap before, to the time of that name."""
        now = perf_counter()
        setattr(self, name, getattr(self, name) + now - self.last_lap)
        self.last_lap = now

    def count_round(self, n_draft: int, n_accepted: int) -> None:
        """Count a round that verified n_draft drafted tokens, of which the first n_accepted are in the result."""
        self.n_rounds += 1
        self.draft_n += n_draft
        positions = self.accepted_per_position
        if n_accepted > len(positions):
            positions.extend([0] * (n_accepted - len(positions)))
        for i in range(n_accepted):
            positions[i] += 1

    def snapshot(self) -> Stats:
        """The statistics so far."""
        n_accepted = sum(self.accepted_per_position)
        n_after_first = self.completion_tokens - 1
        predicted = self.predicted + self.draft + self.verify
        return Stats(
            prompt_tokens=self.prompt_tokens,
            cache_n=self.cache_n,
            completion_tokens=self.completion_tokens,
            draft_n=self.draft_n,
            draft_n_accepted=n_accepted,
            acceptance_rate=n_accepted / self.draft_n if self.draft_n else 0.0,
            n_rounds=self.n_rounds,
            mean_accepted_len=1.0 + (n_accepted / self.n_rounds if self.n_rounds else 0.0),
            accepted_per_position=tuple(self.accepted_per_position),
            ttft_ms=1e3 * self.ttft,
            prompt_ms=1e3 * (self.prompt + self.prompt_draft),
            prompt_draft_ms=1e3 * self.prompt_draft,
            predicted_ms=1e3 * predicted,
            tokens_per_second=n_after_first / predicted if n_after_first > 0 and predicted > 0 else 0.0,
            draft_ms=1e3 * self.draft,
            verify_ms=1e3 * self.verify,
        )
