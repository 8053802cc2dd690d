"""Measure the share of drafted tokens that each acceptance rule keeps when tokens are drawn, on the same texts.

    .venv/bin/python scripts/bench_acceptance.py [-m FILE] [--runs 6] [--n-max 4] [--temperatures 0.3 0.7 1 1.5]

Two kinds of texts: answers to the demo model's held-out prompts, and open ones, which go on from a few words. At each
position that is judged p and q are known, and with them what either rule accepts there: match p of the head's best
token, ratio sum(min(p, q)). The rules' own runs would write different texts, and one that derails outweighs the
difference between them. A table shows the means and their difference in thousandths, with its 95 % interval over
prompts. Texts have no seed, so that what is learnt of one counts in the next, as it does by default.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from typing import Any
from unittest import mock

import nextn
import numpy as np
from demo_model import heldout
from nextn.accept import Accepted, accept_ratio
from nextn.bench.statistics import ratio_of_sums

BEGINNINGS = [
    "Once upon a time", "The", "I think that", "def ", "In the", "# A story", "It was a", "class ", "import ",
    "My favourite", "1, 2, 3,", "Question:", "Write", "A", "What is", "There are many", "Dear", "We",
    "The capital of", "for i in", "Yesterday", "People", "Some animals", "If you", "When", "She said", "He", "Water",
    "return ", "if ", "The best", "Today", "Every", "One day", "They", "My name is", "You can", "To make", "Animals",
    "A good", "The sun", "Why", "How", "Number", "Let", "Here is", "Many years ago", "Our", "This function", "Python",
]  # fmt: skip


class Shares:
    """What match and ratio accept at each judged position, by prompt."""

    def __init__(self) -> None:
        self.prompt = 0
        self._seen: dict[int, list[tuple[float, float]]] = defaultdict(list)

    def judge(self, *args: Any, saw: Callable[[Any], object], **options: Any) -> Accepted:
        """Judge as accept_ratio() does and note each position that it judges."""
        q = iter(args[3])

        def noted(p: Any) -> None:
            q_here = next(q).p
            self._seen[self.prompt].append((p[q_here.argmax()], np.minimum(p, q_here).sum()))
            saw(p)

        return accept_ratio(*args, saw=noted, **options)

    def means(self) -> tuple[int, float, float]:
        """How many positions, and what match and ratio accept of them."""
        seen = np.vstack(list(self._seen.values()))
        match, ratio = seen.mean(axis=0).tolist()
        return len(seen), match, ratio

    def row(self) -> str:
        """The table's columns."""
        n_positions, match, ratio = self.means()
        sums = [np.sum(seen, axis=0) for seen in self._seen.values()]
        counts = [len(seen) for seen in self._seen.values()]
        gain = ratio_of_sums([1e3 * (ratio - match) for match, ratio in sums], counts)
        assert gain is not None and gain.low is not None and gain.high is not None
        return f"{n_positions} | {match:.4f} | {ratio:.4f} | {gain.value:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default=nextn.bundled_model())
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--n-max", type=int, default=4)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.3, 0.7, 1.0, 1.5])
    args = parser.parse_args()
    if not all(temperature > 0 for temperature in args.temperatures):
        parser.error("--temperatures must be above 0: nothing is drawn without one")

    questions = [row.prompt for row in heldout.read()]
    print("| texts | temperature | positions | match | ratio | gain, thousandths |")
    print("| --- | --- | --- | --- | --- | --- |")
    draft = nextn.DraftParams(n_max=args.n_max, adaptive=False)
    for kind, prompts in (("answers", questions), ("open", BEGINNINGS)):
        for temperature in args.temperatures:
            shares = Shares()
            watched = mock.patch("nextn.accept.accept_ratio", shares.judge)
            with nextn.Speculator(args.model, n_ctx=2048, draft=draft) as spec, watched:
                options = {"max_tokens": 200, "temperature": temperature}
                for _ in range(args.runs):
                    for shares.prompt, prompt in enumerate(prompts):
                        if kind == "open":
                            spec.generate(prompt, **options)
                        else:
                            spec.chat([{"role": "user", "content": prompt}], **options)
            print(f"| {kind} | {temperature:g} | {shares.row()} |", flush=True)


if __name__ == "__main__":
    main()
