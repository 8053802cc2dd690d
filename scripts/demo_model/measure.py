"""Acceptance and exactness of a model on the held-out prompts, greedy, with nextn itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nextn

from .corpus import ARMS
from .heldout import HeldOutPrompt

N_CTX = 2048


@dataclass(frozen=True, kw_only=True)
class Answered:
    """A prompt and what the model made of it."""

    prompt: HeldOutPrompt
    result: nextn.GenerationResult

    @property
    def is_reference(self) -> bool:
        """Is the text the generator's own answer, word for word?"""
        return self.result.text.strip() == self.prompt.answer.strip()


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """Draft counters summed over some answers."""

    drafted: int
    accepted: int
    rounds: int

    @classmethod
    def of(cls, answers: Iterable[Answered]) -> Acceptance:
        """Sum the counters."""
        stats = [a.result.stats for a in answers]
        return cls(
            drafted=sum(s.draft_n for s in stats),
            accepted=sum(s.draft_n_accepted for s in stats),
            rounds=sum(s.n_rounds for s in stats),
        )

    def __str__(self) -> str:
        if not self.drafted:
            return "-"
        rate, length = self.accepted / self.drafted, 1 + self.accepted / self.rounds
        return f"{rate:.3f} ({self.accepted}/{self.drafted}) {length:.2f}"


def answer_all(
    model: nextn.Model, prompts: Sequence[HeldOutPrompt], *, n_max: int, max_tokens: int, threads: int | None
) -> list[Answered]:
    """Answer every prompt greedily with drafts of up to n_max tokens, whatever they cost; 0 decodes plainly."""
    draft = nextn.DraftParams(n_max=n_max, adaptive=False) if n_max else None
    with nextn.Speculator(model, n_ctx=N_CTX, n_threads=threads, draft=draft) as speculator:
        return [
            Answered(
                prompt=p,
                result=speculator.chat([{"role": "user", "content": p.prompt}], max_tokens=max_tokens),
            )
            for p in prompts
        ]


def ms_per_token(answers: Sequence[Answered]) -> float:
    """Time of the rounds over the tokens they made."""
    stats = [a.result.stats for a in answers]
    return sum(s.predicted_ms for s in stats) / sum(s.completion_tokens - 1 for s in stats)


def of_arm(answers: Sequence[Answered], arm: str) -> list[Answered]:
    """The answers to one arm's prompts."""
    return [a for a in answers if a.prompt.arm == arm]


def table_row(n_max: int, answers: Sequence[Answered], plain: Sequence[Answered]) -> str:
    """One line of the table: acceptance per arm, prompts with other tokens than plain decoding, time."""
    groups = [of_arm(answers, arm) for arm in ARMS] + [list(answers)]
    cells = "".join(f"{Acceptance.of(group)!s:>24}" for group in groups)
    unlike = [a.prompt.id for a, p in zip(answers, plain, strict=True) if a.result.tokens != p.result.tokens]
    listed = f" ({', '.join(unlike)})" if unlike else ""
    return f"{n_max:<3}{cells}{len(unlike):>8}{ms_per_token(answers):>10.2f}{listed}"


def measure(
    path: Path,
    prompts: Sequence[HeldOutPrompt],
    *,
    draft_lengths: Sequence[int] = (1, 2, 3, 4, 6),
    max_tokens: int = 128,
    threads: int | None = None,
) -> bool:
    """Print the answers' quality, then one line per draft length.

    Args:
        path: The model file.
        prompts: What to ask.
        draft_lengths: The longest drafts to try.
        max_tokens: Longest answer.
        threads: Threads of a decode; None takes nextn's default.

    Returns:
        Whether every speculative run gave the tokens of plain decoding.
    """
    exact = True
    with nextn.Model(path) as model:
        plain = answer_all(model, prompts, n_max=0, max_tokens=max_tokens, threads=threads)
        for arm in ARMS:
            part = of_arm(plain, arm)
            tokens = sum(a.result.stats.completion_tokens for a in part)
            ended = sum(a.result.finish_reason == "stop" for a in part)
            same = sum(a.is_reference for a in part)
            print(f"{arm}: {len(part)} prompts, {tokens} tokens, {ended} ended, {same} equal the reference answer")
        print("\nK: longest draft; acceptance rate (accepted/drafted) and tokens per round; `unlike`: prompts whose")
        print(f"tokens differ from plain decoding, which takes {ms_per_token(plain):.2f} ms per token\n")
        print("K  " + "".join(f"{name:>24}" for name in (*ARMS, "all")) + f"{'unlike':>8}{'ms/token':>10}")
        for n_max in draft_lengths:
            answers = answer_all(model, prompts, n_max=n_max, max_tokens=max_tokens, threads=threads)
            exact &= all(a.result.tokens == p.result.tokens for a, p in zip(answers, plain, strict=True))
            print(table_row(n_max, answers, plain), flush=True)
    return exact
