"""A line at the bottom of the terminal that changes while text scrolls above it."""

from __future__ import annotations

import os
import sys
from time import perf_counter

from nextn.stats import Stats

_SECONDS_BETWEEN = 0.1
_SAVE, _RESTORE = "\0337", "\0338"  # the cursor's place and colour
_INDEX, _UP = "\033D", "\033[A"  # one line down in the same column, scrolling at the end; one line up
_CLEAR, _DIM, _PLAIN = "\033[K", "\033[2m", "\033[m"


class LiveStats:
    """How an answer goes, while it goes: inside a with block, at a terminal; elsewhere nothing is written.

    The terminal's scrolling is restricted to the lines above the last one, as package managers do it, so that text may
    be printed meanwhile by anybody and of any length. The line is gone after the block.

    Args:
        wanted: Whether to show it at all.
    """

    def __init__(self, wanted: bool) -> None:
        streams = (sys.stdout, sys.stderr)
        at_terminal = all(stream is not None and stream.isatty() for stream in streams)
        self._wanted = wanted and at_terminal and os.environ.get("TERM", "dumb") != "dumb"
        self._lines = 0  # of the terminal, as they were when scrolling was restricted; 0: it is not
        self._shown = 0.0

    def __enter__(self) -> LiveStats:
        """Give itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the line, and let the whole terminal scroll again."""
        if self._lines:
            self._write(f"{_SAVE}\033[r\033[{self._lines}H{_CLEAR}{_RESTORE}")
            self._lines = 0

    def show(self, stats: Stats) -> None:
        """Show these statistics, if the last ones were not shown a moment ago."""
        now = perf_counter()
        if not self._wanted or now - self._shown < _SECONDS_BETWEEN:
            return
        self._shown = now
        try:
            columns, lines = os.get_terminal_size(sys.stderr.fileno())
        except OSError:
            return
        if lines < 3:
            return
        text = live_line(stats)[: columns - 1]
        reserve = "" if lines == self._lines else self._reserve(lines)
        self._write(f"{reserve}{_SAVE}\033[{lines}H{_CLEAR}{_DIM}{text}{_PLAIN}{_RESTORE}")

    def _reserve(self, lines: int) -> str:
        """What takes the last line out of the scrolling; the cursor stays at its text, which may move up by one."""
        self._lines = lines
        return f"{_INDEX}{_UP}{_SAVE}\033[1;{lines - 1}r{_RESTORE}"

    def _write(self, text: str) -> None:
        """Write to the terminal, after what was printed so far."""
        sys.stdout.flush()
        sys.stderr.write(text)
        sys.stderr.flush()


def live_line(stats: Stats) -> str:
    """The statistics of an answer that is being written."""
    speed = f"{stats.tokens_per_second:.1f} tokens/s, " if stats.tokens_per_second else ""
    if not stats.draft_n:
        return f"{speed}nothing drafted"
    rate = f"{stats.draft_n_accepted} of {stats.draft_n} drafted tokens accepted ({stats.acceptance_rate:.0%})"
    return f"{speed}{rate}, {stats.mean_accepted_len:.1f} tokens per round"
