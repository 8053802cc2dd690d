#!/usr/bin/env python3
"""Measure what an importance matrix gains a coarse draft head.

    python scripts/calibrated_head.py [MODEL.gguf] --types Q4_K Q3_K Q2_K

The trunk stays Q8_0, which no importance matrix changes; only the NextN block is quantized to each type, without a
matrix and with one made from training conversations of the demo model. Held-out prompts are answered greedily
with drafts of a fixed length, so all files write the same tokens and only the drafts differ. The interval of the gain
is that of a bootstrap over prompts.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import nextn
import numpy as np
import numpy.typing as npt
from demo_model import corpus, heldout
from nextn.quantize import quantize, write_imatrix
from nextn.quantize.collect import collect

N_CONVERSATIONS = 600
N_RESAMPLES = 10_000

Counts = npt.NDArray[np.int64]


def measure(path: Path, prompts: list[str], n_draft: int) -> tuple[Counts, list[list[int]]]:
    """Drafted and accepted tokens per prompt [n_prompt, 2], and the tokens of the answers."""
    counts: list[tuple[int, int]] = []
    answers: list[list[int]] = []
    draft = nextn.DraftParams(n_max=n_draft, adaptive=False, vocab="full")
    with nextn.Speculator(path, draft=draft, n_ctx=1024, n_threads=1) as speculator:
        for prompt in prompts:
            result = speculator.chat([{"role": "user", "content": prompt}], max_tokens=256)
            counts.append((result.stats.draft_n, result.stats.draft_n_accepted))
            answers.append(list(result.tokens))
    return np.array(counts), answers


def rate(counts: Counts) -> float:
    """Accepted by drafted tokens."""
    drafted, accepted = counts.sum(axis=0)
    return float(accepted / drafted)


def gain(without: Counts, with_it: Counts) -> tuple[float, float]:
    """95 % interval of the difference of the two rates, in percentage points."""
    rng = np.random.default_rng(1)
    picks = rng.integers(len(without), size=(N_RESAMPLES, len(without)))
    rates = [counts[picks].sum(axis=1) for counts in (without, with_it)]
    differences = rates[1][:, 1] / rates[1][:, 0] - rates[0][:, 1] / rates[0][:, 0]
    low, high = np.percentile(100 * differences, [2.5, 97.5])
    return float(low), float(high)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, default=nextn.bundled_model(), help="a demo model")
    parser.add_argument("--types", nargs="+", default=["Q4_K", "Q3_K", "Q2_K"])
    parser.add_argument("--draft-max", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=200, help="number of held-out prompts")
    args = parser.parse_args()
    prompts = [row.prompt for row in heldout.heldout_set(args.prompts, seed=3)]
    with tempfile.TemporaryDirectory() as folder:
        matrix = Path(folder, "imatrix.gguf")
        conversations = corpus.training_set(N_CONVERSATIONS, seed=77)
        with nextn.Model(args.model) as model:
            block = f"blk.{model.n_layer}."
            text = "".join(corpus.render(conversation) for _, conversation in conversations)
            write_imatrix(matrix, collect(model, text, dataset="training conversations"))

        def run(kind: str, imatrix: Path | None) -> tuple[Counts, list[list[int]]]:
            out = Path(folder, "out.gguf")
            given = [(block.replace(".", r"\."), kind)]
            quantize(args.model, out, "Q8_0", recipe="base", tensor_types=given, imatrix=imatrix, allow_requantize=True)
            return measure(out, prompts, args.draft_max)

        best, answers = run("Q8_0", None)
        print("| head | without | with importance matrix | gain, percentage points (95 %) |\n| --- | --- | --- | --- |")
        print(f"| Q8_0 | {rate(best):.2%} | - | - |", flush=True)
        for kind in args.types:
            without, same = run(kind, None)
            with_it, same_too = run(kind, matrix)
            assert answers == same == same_too
            low, high = gain(without, with_it)
            points = 100 * (rate(with_it) - rate(without))
            print(
                f"| {kind} | {rate(without):.2%} | {rate(with_it):.2%} | {points:+.2f} ({low:+.2f} to {high:+.2f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
