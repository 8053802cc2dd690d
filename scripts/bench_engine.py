"""Time the draft engine: plain decoding, fixed draft lengths and adaptive ones, interleaved in one run.

    python scripts/bench_engine.py python/nextn/models/nextn-demo-q8_0.gguf
    python scripts/bench_engine.py shape.gguf --rates 0.85 0.72 0.61 0.52 --upstream build-of-the-pin/bin/llama-server

With --rates a drafted token counts as accepted at random: entry j is the share of rounds in which the first j tokens
are all accepted, as in llama-server's --spec-synth-rates. That is for models of random weights, whose heads are never
right; the text means nothing then, the work per round is real. The draft head scores the first 32,768 ids there, as it
starts with on any model: random text would widen the shortlist without end. Without --rates acceptance is the model's
own, on prompts of the bundled model's held-out set.

--upstream names an unpatched llama-server of the same pin. It runs plain and with --spec-type draft-mtp at each length,
one server at a time on the same prompts, and its own timings are read.

Every figure is the median over --repeats rounds of all arms; the ratio to plain is taken repeat by repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

import nextn
import numpy as np
from nextn.drafting import Drafter, HeadDrafter, NoDrafter

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = ROOT / "scripts" / "demo_model" / "data" / "heldout_prompts.jsonl"
RATES_VOCAB = 32768


@dataclass
class Times:
    """What one arm did in one repeat; seconds."""

    n_tokens: int = 0
    n_rounds: int = 0
    draft_n: int = 0
    accepted: int = 0
    total: float = 0.0
    phases: dict[str, float] = field(
        default_factory=lambda: {"draft": 0.0, "verify": 0.0, "accept": 0.0, "rollback": 0.0}
    )

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.n_tokens / self.total


def conditional(rates: Sequence[float], position: int) -> float:
    """The chance that the token at a position (from 0) is accepted when those before it are; the last rate goes on."""
    if position >= len(rates):
        return rates[-1] / rates[-2] if len(rates) > 1 else rates[-1]
    return rates[position] / rates[position - 1] if position else rates[0]


def generate(ctx: nextn.Context, drafter: Drafter, prompt: list[int], n_predict: int, rates: Sequence[float] | None,
             chance: random.Random) -> Times:  # fmt: skip
    """The loop of the Speculator with a clock on each phase, and acceptance by rates when they are given."""
    eog_tokens = ctx.model.eog_tokens
    ctx.seq_rm(0, -1, -1)
    drafter.begin(np.array(prompt, np.int32))
    ctx.set_argmax(True)
    ctx.decode(prompt, outputs="last")
    drafter.prefill(np.array(prompt, np.int32))
    id_last, n_past, out = ctx.argmax()[-1], len(prompt), Times()
    start = time.perf_counter()
    ended = False
    while out.n_tokens < n_predict and not ended:
        t0 = time.perf_counter()
        draft = drafter.draft(id_last, n_past, n_predict - out.n_tokens - 1)
        t1 = time.perf_counter()
        ctx.decode([id_last, *draft.tolist()])
        t2 = time.perf_counter()
        target = ctx.argmax()
        a = 0
        while a < len(draft) and (
            draft[a] == target[a] if rates is None else chance.random() < conditional(rates, a)
        ):  # fmt: skip
            a += 1
        id_last, n_past = target[a], n_past + 1 + a
        ended = rates is None and not eog_tokens.isdisjoint(target[: a + 1])
        t3 = time.perf_counter()
        drafter.accept(a)
        if a < len(draft):
            ctx.nextn_seq_rm(0, n_past, -1)
        t4 = time.perf_counter()
        out.n_rounds, out.draft_n, out.accepted = out.n_rounds + 1, out.draft_n + len(draft), out.accepted + a
        out.n_tokens += 1 + a
        for name, spent in zip(out.phases, (t1 - t0, t2 - t1, t3 - t2, t4 - t3), strict=True):
            out.phases[name] += spent
    out.total = time.perf_counter() - start
    return out


def prefill_ratio(ctx: nextn.Context, drafter: Drafter, n_prompt: int, repeats: int) -> float:
    """Time to read a prompt without the head over the time with it; the median of the repeats."""
    prompt = np.random.default_rng(0).integers(0, ctx.model.n_vocab // 2, size=n_prompt).astype(np.int32)
    ratios = []
    for _ in range(repeats + 1):
        ctx.seq_rm(0, -1, -1)
        drafter.begin(prompt)
        target = head = 0.0
        for first in range(0, n_prompt, ctx.n_ubatch):
            chunk = prompt[first : first + ctx.n_ubatch]
            t0 = time.perf_counter()
            ctx.decode(chunk, outputs="none")
            t1 = time.perf_counter()
            drafter.prefill(chunk)
            target, head = target + t1 - t0, head + time.perf_counter() - t1
        ratios.append(target / (target + head))
    return median(ratios[1:])


def verify_costs(ctx: nextn.Context, n_max: int, repeats: int) -> list[float]:
    """Median seconds of a decode of 1 .. n_max + 1 tokens, interleaved, behind a short prompt."""
    times: list[list[float]] = [[] for _ in range(n_max + 1)]
    ctx.seq_rm(0, -1, -1)
    ctx.decode(list(range(1, 33)), outputs="none")
    for _ in range(repeats + 1):
        for n in range(1, n_max + 2):
            for _ in range(3):  # a decode like the one before, as in a run; the last one counts
                n_past = ctx.seq_pos_max() + 1
                start = time.perf_counter()
                ctx.decode(list(range(1, n + 1)))
                spent = time.perf_counter() - start
                if n > 1:
                    ctx.nextn_seq_rm(0, n_past + 1, -1)
            times[n - 1].append(spent)
    return [median(t[1:]) for t in times]


def total(runs: list[Times]) -> Times:
    """The sum over prompts."""
    out = Times()
    for run in runs:
        out.n_tokens += run.n_tokens
        out.n_rounds += run.n_rounds
        out.draft_n += run.draft_n
        out.accepted += run.accepted
        out.total += run.total
        for name, spent in run.phases.items():
            out.phases[name] += spent
    return out


def our_arms(
    args: argparse.Namespace, model: nextn.Model, prompts: list[list[int]]
) -> tuple[dict[str, list[Times]], float, list[float]]:
    """Plain, fixed and adaptive arms in this process, in turn; prefill_ratio() and verify_costs()."""
    vocab: Literal["auto"] | int = min(RATES_VOCAB, model.n_vocab) if args.rates else "auto"
    lengths: dict[str, nextn.DraftParams | None] = {"plain": None}
    lengths |= {f"k={k}": nextn.DraftParams(n_max=k, adaptive=False, vocab=vocab) for k in args.k}
    lengths["adaptive"] = nextn.DraftParams(n_max=args.n_max, vocab=vocab)
    done: dict[str, list[Times]] = {name: [] for name in lengths}
    options = {"n_ctx": args.n_ctx, "n_threads": args.threads, "n_batch": 512}
    contexts: dict[str, tuple[nextn.Context, Drafter]] = {}
    drafts: list[nextn.Context] = []  # a drafter does not keep its contexts open
    for name, params in lengths.items():
        ctx = nextn.Context(model, n_rs_seq=params.n_max if params else 0, **options)
        drafter: Drafter = NoDrafter()
        if params is not None:
            dft = nextn.Context(model, nextn_draft=True, **options)
            ctx.pair(dft)
            drafts.append(dft)
            drafter = HeadDrafter(ctx, dft, params)
        contexts[name] = (ctx, drafter)
    for repeat in range(args.repeats + 1):  # the first warms up
        for name, (ctx, drafter) in contexts.items():
            chance = random.Random(repeat)
            runs = [generate(ctx, drafter, prompt, args.n_predict, args.rates, chance) for prompt in prompts]
            if repeat:
                done[name].append(total(runs))
    ctx, drafter = contexts["adaptive"]
    return done, prefill_ratio(ctx, drafter, 512, args.repeats), verify_costs(ctx, args.n_max, 5 * args.repeats)


@contextmanager
def server(args: argparse.Namespace, extra: Sequence[str]) -> Iterator[str]:
    """An upstream server on a free port; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [args.upstream, "-m", str(args.model), "--host", "127.0.0.1", "--port", str(port), "-c", str(args.n_ctx),
               "-np", "1", "-t", str(args.threads), "-tb", str(args.threads), *extra]  # fmt: skip
    # threads of a server that wait actively take the cores from each other
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise SystemExit(f"the server ended with {process.returncode}: {' '.join(command)}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def ask(base: str, prompt: list[int], n_predict: int, *, ignore_eos: bool) -> dict[str, float]:
    """The server's timings for one completion."""
    body = {"prompt": prompt, "n_predict": n_predict, "temperature": 0, "ignore_eos": ignore_eos, "cache_prompt": False}
    request = urllib.request.Request(
        base + "/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as answer:
        timings: dict[str, float] = json.load(answer)["timings"]
    return timings


def report_upstream(args: argparse.Namespace, prompts: list[list[int]]) -> None:
    """Print rows of the unpatched server, plain and at each length."""
    arms: dict[str, list[str]] = {"upstream plain": []}
    for k in args.k:
        arms[f"upstream k={k}"] = ["--spec-type", "draft-mtp", "--spec-draft-n-max", str(k)]
        if args.rates:
            shares = np.cumprod([conditional(args.rates, position) for position in range(k)])
            arms[f"upstream k={k}"] += ["--spec-synth-rates", ",".join(f"{share:.4f}" for share in shares)]
    done: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(args.upstream_repeats):
        for name, extra in arms.items():
            with server(args, extra) as base:
                ask(base, prompts[0], 8, ignore_eos=True)  # warms up
                # where tokens are accepted at random, no text has an end, and in our arms neither
                times = [ask(base, prompt, args.n_predict, ignore_eos=bool(args.rates)) for prompt in prompts]
            tokens = sum(t["predicted_n"] for t in times)
            done[name].append(1e3 * tokens / sum(t["predicted_ms"] for t in times))
    for name, rates in done.items():
        ratio = median(rates) / median(done["upstream plain"])
        print(f"| {name} | {median(rates):.1f} | {ratio:.2f} | | | | | | | |")


def report(args: argparse.Namespace, ours: dict[str, list[Times]]) -> None:
    """Print a Markdown table."""
    kind = f"accepted at random, rates {args.rates}" if args.rates else "the model's own acceptance"
    print(
        f"{args.model.name}, {args.threads} threads, {args.n_predict} tokens a prompt, {args.repeats} repeats, {kind}\n"
    )
    print("| arm | tokens/s | of plain | acceptance | mean length | draft | verify | accept | rollback | rest |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    plain = [run.rate for run in ours["plain"]]
    for name, runs in ours.items():
        ratio = median(run.rate / base for run, base in zip(runs, plain, strict=True))
        drafted, accepted = sum(r.draft_n for r in runs), sum(r.accepted for r in runs)
        rounds, spent = sum(r.n_rounds for r in runs), sum(r.total for r in runs)
        shares = [sum(r.phases[p] for r in runs) / spent for p in runs[0].phases]
        cells = [f"{median(r.rate for r in runs):.1f}", f"{ratio:.2f}", f"{accepted / max(drafted, 1):.3f}"]
        cells += [f"{1 + accepted / rounds:.2f}", *(f"{share:.1%}" for share in (*shares, 1 - sum(shares)))]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Parse, run, print."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", type=Path)
    ap.add_argument(
        "--rates", type=float, nargs="+", help="accept at random: share of rounds with the first j accepted"
    )
    ap.add_argument("--upstream", help="an unpatched llama-server of the same pin")
    ap.add_argument("--k", type=int, nargs="+", default=[1, 2, 3, 4, 6], help="fixed draft lengths")
    ap.add_argument("--n-max", type=int, default=8, help="bound of the adaptive length")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--n-ctx", type=int, default=1024)
    ap.add_argument("--n-predict", type=int, default=96)
    ap.add_argument("--prompts", type=int, default=6, help="how many prompts")
    ap.add_argument("--repeats", type=int, default=5)
    ap.add_argument("--upstream-repeats", type=int, default=2)
    args = ap.parse_args()
    with nextn.Model(args.model) as model:
        if args.rates:
            rng = np.random.default_rng(0)
            prompts = [rng.integers(0, model.n_vocab // 2, size=32).tolist() for _ in range(args.prompts)]
        else:
            lines = PROMPTS.read_text(encoding="utf-8").splitlines()
            texts = [json.loads(line)["prompt"] for line in lines[:: max(1, len(lines) // args.prompts)]]
            chat = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
            prompts = [model.tokenize(chat.format(text), parse_special=True) for text in texts[: args.prompts]]
        ours, prefill, verify = our_arms(args, model, prompts)
    report(args, ours)
    if args.upstream:
        report_upstream(args, prompts)
    print(f"\nReading a prompt of 512 tokens: speed with the head over without it {prefill:.3f}")
    ratios = ", ".join(f"{n}: {t / verify[0]:.2f}" for n, t in enumerate(verify[1:], 2))
    print(f"Verifying n tokens over decoding one ({1e3 * verify[0]:.2f} ms): {ratios}")


if __name__ == "__main__":
    main()
