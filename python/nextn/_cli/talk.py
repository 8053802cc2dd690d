"""Talk: everything that is not a result, on standard error."""

from __future__ import annotations

import shutil
import sys
from time import perf_counter

from nextn.stats import Stats

_CLEAR = "\033[K"  # to the end of the line


def say(message: str) -> None:
    """Print a line on standard error."""
    print(message, file=sys.stderr, flush=True)


def complain(message: str, *, error: bool = True) -> None:
    """Print why the command ends, in one line."""
    say(f"nextn: {'error: ' if error else ''}{' '.join(message.split())}")


class Progress:
    """Shows how much of a longer work is done and how long the rest may take: on a terminal, until the block ends.

    Args:
        what: The work, in a word or two.
        delay: Seconds after which it is first shown: what is done by then was no longer work.
    """

    def __init__(self, what: str, *, delay: float = 0.0) -> None:
        self._what = what
        self._start = perf_counter()
        self._delay = delay
        self._shown = 0.0
        self._wanted = sys.stderr is not None and sys.stderr.isatty()

    def __call__(self, share: float) -> None:
        """Show the share, 0 to 1, that is done."""
        now = perf_counter()
        if not self._wanted or now - self._start < self._delay or now - self._shown < 0.1:
            return
        self._shown = now
        left = f", {(now - self._start) * (1 - share) / share:.0f} s left" if share > 0 else ""
        width = min(30, shutil.get_terminal_size().columns - len(self._what) - 22)  # a wrapped line would stay
        bar = f"[{'#' * round(width * share):<{width}}] " if width > 4 else ""
        print(f"\r{self._what} {bar}{share:4.0%}{left}{_CLEAR}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the line."""
        if self._shown:
            print(f"\r{_CLEAR}", end="", file=sys.stderr, flush=True)


def summary(stats: Stats, *, drafting: bool, limit: str | None) -> str:
    """What people want to know after a generation, in one line; limit is what cut the text off, if anything did."""
    tokens = f"{stats.completion_tokens} {'token' if stats.completion_tokens == 1 else 'tokens'}"
    speed = f"{stats.tokens_per_second:.1f} tokens/s" if stats.tokens_per_second else "too few to measure the speed"
    start = f"prompt {stats.prompt_tokens} tokens in {stats.prompt_ms:.0f} ms, then {tokens}, {speed}"
    end = f"; cut off by {limit}" if limit else ""
    if not drafting:
        return f"{start}; no drafting{end}"
    drafts = f"drafted {stats.draft_n}, accepted {stats.draft_n_accepted} ({stats.acceptance_rate:.1%})"
    return f"{start}; {drafts}, mean accepted length {stats.mean_accepted_len:.2f}{end}"
