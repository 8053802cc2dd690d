"""What the Python loop of a Speculator costs a round: its time outside the engine's calls.

    python scripts/bench_loop.py python/nextn/models/nextn-demo-q8_0.gguf

Each call into the compiled module that a round makes has a clock around it while an answer is generated; what is left
of the time of all rounds, divided by their number, is printed for plain decoding, a fixed length and the default. The
clocks count as left, so the figures are a little too high. The arms take turns; the median of --repeats and, in
brackets, the range.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import nextn
from nextn import _core

PROMPT = "Write a Python function that multiplies each number in a list by 6."
CALLS = {
    _core.Context: ("decode", "argmax", "nextn_seq_rm"),
    _core.Drafter: ("draft", "accept", "feed"),
}


class Clock:
    """Seconds in calls of the engine."""

    def __init__(self) -> None:
        self.spent = 0.0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, counted."""

        def timed(*args: Any, **options: Any) -> Any:
            start = time.perf_counter()
            result = call(*args, **options)
            self.spent += time.perf_counter() - start
            return result

        return timed


@contextmanager
def clocks_on_calls() -> Iterator[Clock]:
    """A clock on every call of CALLS."""
    clock, before = Clock(), [(cls, name, getattr(cls, name)) for cls, names in CALLS.items() for name in names]
    for cls, name, call in before:
        setattr(cls, name, clock.around(call))
    try:
        yield clock
    finally:
        for cls, name, call in before:
            setattr(cls, name, call)


def left_over(speculator: nextn.Speculator, n_predict: int) -> float:
    """Microseconds of a round outside the engine, in one answer."""
    messages = [{"role": "user", "content": PROMPT}]
    with clocks_on_calls() as clock:
        stream = speculator.stream_chat(messages, max_tokens=n_predict, ignore_eos=True)
        next(stream)  # the prompt is read
        clock.spent = 0.0
        for chunk in stream:
            stats = chunk.stats
    return 1e3 * (stats.predicted_ms - 1e3 * clock.spent) / stats.n_rounds


def main() -> None:
    """Parse, run, print."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", type=Path)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--n-predict", type=int, default=400)
    ap.add_argument("--repeats", type=int, default=7)
    args = ap.parse_args()
    arms = {
        "plain": None,
        "k=4": nextn.DraftParams(n_max=4, adaptive=False),
        "adaptive": nextn.DraftParams(),
    }
    with ExitStack() as opened:
        model = opened.enter_context(nextn.Model(args.model))
        speculators = {
            name: opened.enter_context(nextn.Speculator(model, n_ctx=1024, n_threads=args.threads, draft=draft))
            for name, draft in arms.items()
        }
        left: dict[str, list[float]] = {name: [] for name in arms}
        for _ in range(args.repeats + 1):  # the first warms up
            for name, speculator in speculators.items():
                left[name].append(left_over(speculator, args.n_predict))
    for name, (_, *counted) in left.items():
        print(f"{name}: {median(counted):.0f} us a round ({min(counted):.0f} to {max(counted):.0f})")


if __name__ == "__main__":
    main()
