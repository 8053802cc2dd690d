"""nextn demo: the same prompts plain and speculative, side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from nextn._cli.models import messages_for, open_models, open_speculator, read_draft
from nextn._cli.sampling import generation_options
from nextn._cli.talk import say
from nextn.options import GenerateOptions
from nextn.speculator import Speculator
from nextn.stats import Chunk, Stats

_FEWEST_TOKENS = 16  # below, a run is over before its time means anything
DEFAULT_PROMPT = "Write a Python function to count how often each word occurs in a text."


@dataclass(kw_only=True)
class Arm:
    """One way of decoding one prompt: what came out, and the statistics of its timed runs."""

    text: str = ""
    tokens: list[int] = field(default_factory=list)
    runs: list[Stats] = field(default_factory=list)

    @property
    def stats(self) -> Stats:
        """The run of median speed (of an even number, the slower of the middle two)."""
        return sorted(self.runs, key=lambda stats: stats.tokens_per_second)[(len(self.runs) - 1) // 2]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Both ways of decoding one prompt."""

    prompt: str
    plain: Arm
    speculative: Arm

    @property
    def identical(self) -> bool:
        """Whether both gave the same tokens."""
        return self.plain.tokens == self.speculative.tokens

    @property
    def speedup(self) -> float | None:
        """How many times as fast speculation was, by the median runs; None when there was too little to measure."""
        if min(len(self.plain.tokens), len(self.speculative.tokens)) < _FEWEST_TOKENS:
            return None
        return self.speculative.stats.tokens_per_second / self.plain.stats.tokens_per_second

    @property
    def speedup_range(self) -> tuple[float, float]:
        """The least and the greatest ratio of speeds of two runs next to each other; of 5 runs the middle 3 count."""
        pairs = zip(self.plain.runs, self.speculative.runs, strict=True)
        ratios = sorted(right.tokens_per_second / left.tokens_per_second for left, right in pairs)
        n_left_out = len(ratios) // 5
        return ratios[n_left_out], ratios[-1 - n_left_out]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        arms = {
            name: {"text": arm.text, "tokens": arm.tokens, "stats": arm.stats.to_dict()}
            for name, arm in (("plain", self.plain), ("speculative", self.speculative))
        }
        speed = {"speedup": self.speedup, "speedup_range": self.speedup and self.speedup_range}
        return {"prompt": self.prompt, **arms, "identical": self.identical, **speed}


def run(args: argparse.Namespace) -> None:
    """Run the prompts and print texts, tables and a verdict."""
    prompts = args.prompts or [DEFAULT_PROMPT]
    draft = read_draft(args)
    comparisons = []
    with (
        open_models(args) as (model, head),
        open_speculator(model, None, None, args) as plain,
        open_speculator(model, head, draft, args) as speculative,
    ):
        for prompt in prompts:
            comparison = _compare(prompt, plain, speculative, args)
            comparisons.append(comparison)
            if not args.json:
                table = _table(comparison.plain.stats, comparison.speculative.stats)
                print(f"\n{table}\n\n{_verdict(comparison)}\n")
    if args.json:
        print(json.dumps({"prompts": [comparison.to_dict() for comparison in comparisons]}, ensure_ascii=False))
    elif len(comparisons) > 1:
        print(_total(comparisons))


def _compare(prompt: str, plain: Speculator, speculative: Speculator, args: argparse.Namespace) -> Comparison:
    """Show both texts, which warms up, then time both in turn, so that a busy moment hits both alike."""
    options = generation_options(args)
    if args.temp > 0 and args.seed < 0:
        options["seed"] = 1  # the same draws for both
    if not args.json:
        print(f"prompt: {prompt}")
    done = Comparison(prompt=prompt, plain=Arm(), speculative=Arm())
    pairs = (("plain", plain, done.plain), ("speculative", speculative, done.speculative))
    for title, speculator, arm in pairs:
        _show(title, arm, _stream(speculator, prompt, options), quiet=args.json)
    say(f"timing {args.repeats} {'run' if args.repeats == 1 else 'runs'} of each ...")
    for _ in range(args.repeats):
        for _, speculator, arm in pairs:
            *_, last = _stream(speculator, prompt, options)
            arm.runs.append(last.stats)
    return done


def _stream(speculator: Speculator, prompt: str, options: GenerateOptions) -> Iterator[Chunk]:
    """One answer; a model without a chat template continues the text."""
    if speculator.model.chat_template is None:
        return speculator.stream(prompt, **options)
    return speculator.stream_chat(messages_for(prompt, None), **options)


def _show(title: str, arm: Arm, chunks: Iterator[Chunk], *, quiet: bool) -> None:
    """Keep an answer, and print its text under a title as it comes."""
    if not quiet:
        print(f"\n--- {title} ---")
    for chunk in chunks:
        arm.text += chunk.text
        arm.tokens += chunk.tokens
        if not quiet:
            print(chunk.text, end="", flush=True)
    if not quiet:
        print(flush=True)


def _table(plain: Stats, speculative: Stats) -> str:
    """Both statistics side by side."""
    rows = [
        ("tokens", *(f"{stats.completion_tokens}" for stats in (plain, speculative))),
        ("tokens/s", *(f"{stats.tokens_per_second:.1f}" for stats in (plain, speculative))),
        ("time to first token, ms", *(f"{stats.ttft_ms:.1f}" for stats in (plain, speculative))),
        ("time after it, ms", *(f"{stats.predicted_ms:.1f}" for stats in (plain, speculative))),
        ("  of it drafting, ms", "-", f"{speculative.draft_ms:.1f}"),
        ("  of it verifying, ms", "-", f"{speculative.verify_ms:.1f}"),
        ("decodes of the model", *(f"{stats.n_rounds}" for stats in (plain, speculative))),
        ("drafted", "-", f"{speculative.draft_n}"),
        ("accepted", "-", f"{speculative.draft_n_accepted}"),
        ("acceptance rate", "-", f"{speculative.acceptance_rate:.1%}"),
        ("mean accepted length", *(f"{stats.mean_accepted_len:.2f}" for stats in (plain, speculative))),
    ]
    lines = [f"{'':<24}{'plain':>12}{'speculative':>14}"]
    return "\n".join(lines + [f"{label:<24}{left:>12}{right:>14}" for label, left, right in rows])


def _verdict(comparison: Comparison) -> str:
    """Whether the texts are the same, and what speculation did to the speed."""
    if comparison.identical:
        same = "Both texts are identical, token for token."
    else:
        same = "THE TEXTS DIFFER: " + _first_difference(comparison)
    if comparison.speedup is None:
        return f"{same}\nToo few tokens to compare the speed."
    return f"{same}\n{_speed(comparison.speedup, *comparison.speedup_range)}"


def _speed(speedup: float, low: float, high: float) -> str:
    """A ratio of speeds, with its least and greatest value over the runs, in words that do not flatter."""
    times = f"{speedup:.2f} times the speed of plain decoding ({low:.2f} to {high:.2f} from run to run)"
    if low > 1:
        return f"Speculation was faster: {times}."
    if high >= 1:
        return f"Speculation made no clear difference: {times}."
    return (
        f"Speculation was slower: {times}.\n"
        "It pays when many drafted tokens are accepted and a decode of the model costs much more than one of its head."
    )


def _first_difference(comparison: Comparison) -> str:
    """Where two runs part."""
    left, right = comparison.plain.tokens, comparison.speculative.tokens
    at = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    return f"they part at token {at} of {len(left)} and {len(right)}."


def _total(comparisons: Sequence[Comparison]) -> str:
    """All prompts together."""
    n_same = sum(comparison.identical for comparison in comparisons)
    drafts = [comparison.speculative.stats for comparison in comparisons]
    drafted, accepted = sum(s.draft_n for s in drafts), sum(s.draft_n_accepted for s in drafts)
    lines = [f"All {len(comparisons)} prompts: {n_same} of {len(comparisons)} with identical texts."]
    if drafted:
        lines.append(f"Drafted {drafted}, accepted {accepted} ({accepted / drafted:.1%}).")
    speedups = [comparison.speedup for comparison in comparisons if comparison.speedup is not None]
    if speedups:
        shown = f"{median(speedups):.2f} ({min(speedups):.2f} to {max(speedups):.2f})"
        lines.append(f"Speed of speculation over plain decoding, median over the prompts: {shown}.")
    return "\n".join(lines)
