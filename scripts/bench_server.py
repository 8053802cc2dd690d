#!/usr/bin/env python3
"""Tokens per second through HTTP: the patched llama-server, and upstream's when one is given, in turn.

    python scripts/bench_server.py MODEL.gguf --slots 4 --upstream ../llama.cpp/build/bin/llama-server
    python scripts/bench_server.py shape.gguf --rates 0.85 0.72 0.61 0.52 --upstream ...

Each arm is a server of its own that stays up. A pass sends the same greedy requests to each arm, as many at a time as
there are slots; passes of all arms take turns, and the medians are compared. Upstream needs a build without AMX where
output is to be compared (see CONTRIBUTING.md).

With --rates drafted tokens are accepted at random, by the servers themselves: entry j is the share of rounds in which
the first j tokens are all accepted. That is for models of random weights and real size; the texts mean nothing then,
and our head scores the first 32,768 ids, as in bench_engine.py.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import nextn
from acceptance_rates import RATES_VOCAB, shares
from demo_model import heldout
from nextn.server.process import ServerProcess
from upstream_server import drafts


@dataclass
class Arm:
    """A server under measurement."""

    name: str
    client: httpx.Client
    rates: list[float] = field(default_factory=list)  # tokens per second of each pass
    drafted: int = 0
    accepted: int = 0
    texts: list[str] = field(default_factory=list)  # of the last pass


def start(binary: Path, model: Path, args: argparse.Namespace, options: list[str], opened: ExitStack) -> httpx.Client:
    """Start a server and give a client of it."""
    command = [str(binary), "-m", str(model), "--port", "0", "-np", str(args.slots), "-c", str(args.slots * args.n_ctx)]
    command += ["-t", str(args.threads), "--cache-ram", "0", *options]
    process = ServerProcess(command, os.environ)
    opened.callback(process.stop, 5.0)
    if not process.wait_listening(600):
        raise SystemExit(f"{' '.join(command)}: does not start\n" + "\n".join(process.logs()[-10:]))
    assert process.address is not None
    return opened.enter_context(httpx.Client(base_url=process.address, timeout=None, trust_env=False))


def run_pass(arm: Arm, prompts: list[str], args: argparse.Namespace) -> None:
    """Send every prompt once."""

    def ask(prompt: str) -> dict[str, Any]:
        body = {"prompt": prompt, "n_predict": args.n_predict, "temperature": 0, "cache_prompt": False}
        response = arm.client.post("/completion", json={**body, "ignore_eos": args.ignore_eos or bool(args.rates)})
        response.raise_for_status()
        return dict(response.json())

    begin = time.perf_counter()
    with ThreadPoolExecutor(args.slots) as pool:
        answers = list(pool.map(ask, prompts))
    seconds = time.perf_counter() - begin
    arm.rates.append(sum(answer["tokens_predicted"] for answer in answers) / seconds)
    arm.drafted += sum(answer["timings"].get("draft_n", 0) for answer in answers)
    arm.accepted += sum(answer["timings"].get("draft_n_accepted", 0) for answer in answers)
    arm.texts = [answer["content"] for answer in answers]


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("model", type=Path, nargs="?", default=nextn.bundled_model())
    parser.add_argument("--upstream", type=Path, help="an unpatched llama-server")
    parser.add_argument(
        "--upstream-lengths", default="1,2,3,4", help="draft lengths of its draft-mtp (default: 1,2,3,4)"
    )
    parser.add_argument("--lengths", default="", help="our fixed draft lengths, as 1,2,3 (default: adaptive alone)")
    parser.add_argument("--slots", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--n-ctx", type=int, default=1024, help="of each slot")
    parser.add_argument("--n-predict", type=int, default=128)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--ignore-eos", action="store_true", help="as many tokens as --n-predict, whatever they are")
    parser.add_argument(
        "--rates", type=float, nargs="+", help="accept at random: share of rounds with the first j accepted"
    )
    args = parser.parse_args()
    prompts = [row.chat for row in heldout.read()[: args.prompts]]

    def options_of(kind: str, length: int) -> list[str]:
        options = drafts(kind, length, shares(args.rates, length) if args.rates else None)
        return [*options, "--spec-draft-vocab", str(RATES_VOCAB)] if args.rates and kind == "nextn" else options

    with ExitStack() as opened:
        ours = nextn.server_binary()
        kinds: list[tuple[str, Path, list[str]]] = [
            ("ours, plain", ours, []),
            ("ours, adaptive", ours, options_of("nextn", 8)),
        ]
        kinds += [
            (f"ours, fixed {length}", ours, [*options_of("nextn", int(length)), "--no-spec-draft-adaptive"])
            for length in filter(None, args.lengths.split(","))
        ]
        if args.upstream:
            kinds.append(("upstream, plain", args.upstream, []))
            kinds += [
                (f"upstream, draft-mtp {length}", args.upstream, options_of("draft-mtp", int(length)))
                for length in args.upstream_lengths.split(",")
            ]
        arms = [Arm(name, start(binary, args.model, args, options, opened)) for name, binary, options in kinds]
        for arm in arms:
            run_pass(arm, prompts, args)  # warm up
            arm.rates.clear()
        for _ in range(args.passes):
            for arm in arms:
                run_pass(arm, prompts, args)

    base = statistics.median(arms[0].rates)
    for arm in arms:
        rate = statistics.median(arm.rates)
        share = f"{arm.accepted / arm.drafted:.2f}" if arm.drafted else "-"
        same = sum(a == b for a, b in zip(arm.texts, arms[0].texts, strict=True))
        compared = "" if args.rates else f", {same} of {len(prompts)} texts as plain"
        spread = f"{min(arm.rates):.0f} to {max(arm.rates):.0f}"
        print(
            f"{arm.name:24} {rate:8.1f} tokens/s ({spread}), {rate / base:5.2f} of plain, acceptance {share}{compared}"
        )


if __name__ == "__main__":
    main()
