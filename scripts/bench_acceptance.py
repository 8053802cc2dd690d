"""Measure the share of drafted tokens that each acceptance rule keeps when tokens are drawn, on the same texts.

    .venv/bin/python scripts/bench_acceptance.py [-m FILE] [--seeds 1] [--n-max 4]

Answers the demo model's held-out prompts at three temperatures. At each position that is judged p and q are known, and
with them what either rule accepts there: match p of the head's best token, ratio sum(min(p, q)). A table shows the
means; the rules' own runs would write different texts, and one that derails outweighs the difference between them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nextn
import nextn.accept
import numpy as np
from nextn.sampling import Distribution, Sampler

PROMPTS = Path(__file__).parent / "demo_model" / "data" / "heldout_prompts.jsonl"


def watch(shares: list[tuple[float, float]]) -> None:
    """From now on note (match, ratio) at each position that the ratio rule judges."""
    accept = nextn.accept.accept_ratio

    def watched(draft: Any, logits: Any, sampler: Sampler, q: Sequence[Distribution], **options: Any) -> Any:
        seen: list[Distribution] = []
        distribution = sampler.distribution

        def noted(row: Any) -> Distribution:
            seen.append(distribution(row))
            return seen[-1]

        setattr(sampler, "distribution", noted)  # noqa: B010 (of this sampler only)
        accepted = accept(draft, logits, sampler, q, **options)
        delattr(sampler, "distribution")
        for p, drawn_from, _ in zip(seen, q, draft, strict=False):
            p_here = np.array([p[int(token)] for token in drawn_from.ids])
            shares.append((p_here[drawn_from.p.argmax()], np.minimum(p_here, drawn_from.p).sum()))
        return accepted

    nextn.accept.accept_ratio = watched


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", default=nextn.bundled_model())
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--n-max", type=int, default=4)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.3, 0.7, 1.0, 1.5])
    args = parser.parse_args()

    prompts = [json.loads(line)["prompt"] for line in PROMPTS.read_text(encoding="utf-8").splitlines()]
    shares: list[tuple[float, float]] = []
    watch(shares)
    print("| temperature | positions | match | ratio |\n| --- | --- | --- | --- |")
    with nextn.Speculator(args.model, n_ctx=2048, draft=nextn.DraftParams(n_max=args.n_max, adaptive=False)) as spec:
        for temperature in args.temperatures:
            shares.clear()
            for seed in range(args.seeds):
                for prompt in prompts:
                    spec.chat([{"role": "user", "content": prompt}], max_tokens=200, temperature=temperature, seed=seed)
            match, ratio = np.mean(shares, axis=0)
            print(f"| {temperature:g} | {len(shares)} | {match:.4f} | {ratio:.4f} |", flush=True)


if __name__ == "__main__":
    main()
