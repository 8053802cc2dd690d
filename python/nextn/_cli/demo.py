"""nextn demo: the same prompts plain and speculative, side by side."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from nextn._cli.models import choose_draft, generation_options, messages_for, open_models, open_speculator
from nextn._cli.talk import say
from nextn.options import GenerateOptions
from nextn.speculator import Speculator
from nextn.stats import Chunk, Stats

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
    def speedup(self) -> float:
        """How many times as fast speculation was; 0 when there was too little to measure."""
        plain = self.plain.stats.tokens_per_second
        return self.speculative.stats.tokens_per_second / plain if plain else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        arms = {
            name: {"text": arm.text, "tokens": arm.tokens, "stats": arm.stats.to_dict()}
            for name, arm in (("plain", self.plain), ("speculative", self.speculative))
        }
        return {"prompt": self.prompt, **arms, "identical": self.identical, "speedup": self.speedup}


def run(args: argparse.Namespace) -> None:
    """Run the prompts and print texts, tables and a verdict."""
    prompts = args.prompts or [DEFAULT_PROMPT]
    comparisons = []
    with open_models(args) as (model, head):
        draft = choose_draft(args, model, head)
        with (
            open_speculator(model, None, None, args) as plain,
            open_speculator(model, head, draft, args) as speculative,
        ):
            for prompt in prompts:
                comparison = _compare(prompt, plain, speculative, args)
                comparisons.append(comparison)
                if not args.json:
                    print(
                        f"\n{_table(comparison.plain.stats, comparison.speculative.stats)}\n\n{_verdict(comparison)}\n"
                    )
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
    if not comparison.speedup:
        return f"{same} Too few tokens to compare the speed."
    return f"{same} {_speed(comparison.speedup)}"


def _speed(speedup: float) -> str:
    """A ratio of speeds in words that do not flatter."""
    if speedup >= 1.005:
        return f"Speculation was {speedup:.2f} times as fast as plain decoding."
    if speedup <= 0.995:
        return (
            f"Speculation was slower: {speedup:.2f} times the speed of plain decoding. Drafting pays when a decode of "
            "the model costs much more than one of its head; here it does not."
        )
    return "Speculation made no difference to the speed."


def _first_difference(comparison: Comparison) -> str:
    """Where two runs part."""
    left, right = comparison.plain.tokens, comparison.speculative.tokens
    at = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    return f"they part at token {at} of {len(left)} and {len(right)}."


def _total(comparisons: Sequence[Comparison]) -> str:
    """All prompts together."""
    ways = [[getattr(c, name).stats for c in comparisons] for name in ("plain", "speculative")]
    seconds = [sum(stats.predicted_ms for stats in way) / 1e3 for way in ways]
    n_after_first = [sum(stats.completion_tokens - 1 for stats in way) for way in ways]
    drafted, accepted = (sum(getattr(s, name) for s in ways[1]) for name in ("draft_n", "draft_n_accepted"))
    n_same = sum(c.identical for c in comparisons)
    lines = [f"All {len(comparisons)} prompts: {n_same} of {len(comparisons)} with identical texts."]
    if all(seconds):
        speeds = [n / t for n, t in zip(n_after_first, seconds, strict=True)]
        lines[0] += f" Plain {speeds[0]:.1f} tokens/s, speculative {speeds[1]:.1f}. {_speed(speeds[1] / speeds[0])}"
    if drafted:
        lines.append(f"Drafted {drafted}, accepted {accepted} ({accepted / drafted:.1%}).")
    return "\n".join(lines)
