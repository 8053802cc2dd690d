"""Talk: everything that is not a result, on standard error."""

from __future__ import annotations

import sys

from nextn.stats import Stats


def say(message: str) -> None:
    """Print a line on standard error."""
    print(message, file=sys.stderr, flush=True)


def complain(message: str, *, error: bool = True) -> None:
    """Print why the command ends, in one line."""
    say(f"nextn: {'error: ' if error else ''}{' '.join(message.split())}")


def show_progress(share: float) -> None:
    """Show how much of a model is loaded, on a terminal, for models that take a while."""
    if sys.stderr is not None and sys.stderr.isatty():
        end = "\r\033[K" if share >= 1 else ""
        print(f"\rloading the model: {100 * share:.0f} %{end}", end="", file=sys.stderr, flush=True)


def summary(stats: Stats, *, drafting: bool) -> str:
    """What people want to know after a generation, in one line."""
    tokens = f"{stats.completion_tokens} {'token' if stats.completion_tokens == 1 else 'tokens'}"
    speed = f"{stats.tokens_per_second:.1f} tokens/s" if stats.tokens_per_second else "too few to measure the speed"
    start = f"prompt {stats.prompt_tokens} tokens in {stats.prompt_ms:.0f} ms, then {tokens}, {speed}"
    if not drafting:
        return f"{start}; no drafting"
    return (
        f"{start}; drafted {stats.draft_n}, accepted {stats.draft_n_accepted} ({stats.acceptance_rate:.1%}), "
        f"mean accepted length {stats.mean_accepted_len:.2f}"
    )
