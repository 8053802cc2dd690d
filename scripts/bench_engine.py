"""Time the draft engine: plain decoding, fixed draft lengths and adaptive ones, interleaved in one run.

    python scripts/bench_engine.py python/nextn/models/nextn-demo-q8_0.gguf
    python scripts/bench_engine.py shape.gguf --rates 0.85 0.72 0.61 0.52 --upstream build-of-the-pin/bin/llama-server
    python scripts/bench_engine.py shape.gguf --cells 0 0.3 0.6 0.85 0.95

With --rates a drafted token counts as accepted at random: entry j is the share of rounds in which the first j tokens
are all accepted, as in llama-server's --spec-synth-rates. That is for models of random weights, whose heads are never
right; the text means nothing then, the work per round is real. Chance is thrown once for each place of an answer, for
all of our arms: they differ in what they draft, not in their luck. The draft head scores the first 32,768 ids there,
as it starts with on any model: random text would widen the shortlist without end. Without --rates acceptance is the
model's own, on prompts of the bundled model's held-out set.

With --cells each drafted token is accepted with the same probability, a table row for each: is adaptive as fast as the
best fixed length, and as plain decoding? The best length is chosen from one half of the repeats and measured in the
other, in turn, because the fastest of several noisy arms seems faster than it is.

--upstream names an unpatched llama-server of the same pin. In each repeat, behind our arms, it is started plain and
with --spec-type draft-mtp at each length, reads the same prompts, and its own timings are taken.

Our arms take turns prompt by prompt, in a random order. Every figure is the median over --repeats, ratios
are taken repeat by repeat, and brackets hold the lowest and the highest repeat.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

import nextn
import numpy as np
from acceptance_rates import RATES_VOCAB, conditional, shares
from demo_model import heldout
from nextn.drafting import Drafter, HeadDrafter, NoDrafter
from upstream_server import UpstreamServer, drafts

PHASES = ("draft", "verify", "accept", "rollback")


@dataclass
class Times:
    """What one arm did in one repeat; seconds."""

    n_tokens: int = 0
    n_rounds: int = 0
    draft_n: int = 0
    accepted: int = 0
    total: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    """Of PHASES; empty where they are not known."""

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.n_tokens / self.total


def generate(ctx: nextn.Context, drafter: Drafter, prompt: list[int], n_predict: int, rates: Sequence[float] | None,
             chances: Sequence[float]) -> Times:  # fmt: skip
    """The loop of the Speculator with a clock on each phase.

    With rates, a token drafted for the place i of the answer is accepted when chances[i] is below its rate.
    """
    eog_tokens = ctx.model.eog_tokens
    ctx.seq_rm(0, -1, -1)
    drafter.begin(np.array(prompt, np.int32))
    ctx.set_argmax(True)
    ctx.decode(prompt, outputs="last")
    drafter.prefill(np.array(prompt, np.int32))
    id_last, n_past, out = ctx.argmax()[-1], len(prompt), Times(phases=dict.fromkeys(PHASES, 0.0))
    start = time.perf_counter()
    ended = False
    while out.n_tokens < n_predict and not ended:
        t0 = time.perf_counter()
        draft = drafter.draft(id_last, n_past, n_predict - out.n_tokens - 1)
        t1 = time.perf_counter()
        ctx.decode([id_last, *draft])
        t2 = time.perf_counter()
        target = ctx.argmax()
        a = 0
        while a < len(draft) and (
            draft[a] == target[a] if rates is None else chances[out.n_tokens + a] < conditional(rates, a)
        ):  # fmt: skip
            a += 1
        id_last, n_past = target[a], n_past + 1 + a
        if rates is None:
            ended = not eog_tokens.isdisjoint(target[: a + 1])
        elif id_last in eog_tokens:  # behind its end a text is nothing but ends, at which drafts are cut short
            id_last = prompt[n_past % len(prompt)]
        t3 = time.perf_counter()
        drafter.accept(a)
        if a < len(draft):
            ctx.nextn_seq_rm(0, n_past, -1)
        t4 = time.perf_counter()
        out.n_rounds, out.draft_n, out.accepted = out.n_rounds + 1, out.draft_n + len(draft), out.accepted + a
        out.n_tokens += 1 + a
        for name, spent in zip(PHASES, (t1 - t0, t2 - t1, t3 - t2, t4 - t3), strict=True):
            out.phases[name] += spent
    out.total = time.perf_counter() - start
    return out


def read_prompts(model: nextn.Model, n: int) -> list[list[int]]:
    """Held-out prompts of the bundled model."""
    rows = heldout.read()
    return [model.tokenize(row.chat, parse_special=True) for row in rows[:: max(1, len(rows) // n)][:n]]


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


def rollback_costs(without: nextn.Context, room: nextn.Context, repeats: int) -> list[float]:
    """Times of a decode of one token where states are kept to roll back to, over where not; one for each repeat."""
    found = []
    for _ in range(repeats + 1):
        spent = []
        for ctx in (without, room):
            ctx.seq_rm(0, -1, -1)
            ctx.decode(list(range(1, 33)), outputs="none")
            times = []
            for token in range(1, 33):
                start = time.perf_counter()
                ctx.decode([token])
                times.append(time.perf_counter() - start)
            spent.append(median(times))
        found.append(spent[1] / spent[0])
    return found[1:]


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
            out.phases[name] = out.phases.get(name, 0.0) + spent
    return out


Arms = dict[str, list[Times]]
"""The repeats of each arm; each is the sum over the prompts."""


class OurArms:
    """Plain decoding, fixed lengths and adaptive ones, each with contexts of its own over one model."""

    def __init__(self, args: argparse.Namespace, model: nextn.Model, opened: ExitStack) -> None:
        by_chance = args.rates or args.cells
        vocab: Literal["auto"] | int = min(RATES_VOCAB, model.n_vocab) if by_chance else "auto"
        self._args = args
        self._params: dict[str, nextn.DraftParams | None] = {"plain": None}
        self._params |= {f"k={k}": nextn.DraftParams(n_max=k, adaptive=False, vocab=vocab) for k in args.k}
        self._params["adaptive"] = nextn.DraftParams(n_max=args.n_max, vocab=vocab)
        options = {"n_ctx": args.n_ctx, "n_threads": args.threads, "n_batch": 512}
        self._contexts: dict[str, tuple[nextn.Context, nextn.Context | None]] = {}
        for name, params in self._params.items():
            ctx, dft = nextn.Context(model, n_rs_seq=params.n_max if params else 0, **options), None
            opened.callback(ctx.close)
            if params is not None:
                dft = nextn.Context(model, nextn_draft=True, **options)
                ctx.pair(dft)
                opened.callback(dft.close)
            self._contexts[name] = (ctx, dft)

    @property
    def plain_context(self) -> nextn.Context:
        """A target that keeps no states to roll back to."""
        return self._contexts["plain"][0]

    @property
    def adaptive_context(self) -> nextn.Context:
        """The target of the adaptive arm."""
        return self._contexts["adaptive"][0]

    def drafter(self, name: str) -> Drafter:
        """A drafter of this arm that has learnt nothing."""
        ctx, dft = self._contexts[name]
        params = self._params[name]
        return NoDrafter() if dft is None or params is None else HeadDrafter(ctx, dft, params)

    @contextmanager
    def drafters(self) -> Iterator[dict[str, Drafter]]:
        """A drafter for each arm that keeps what it learns meanwhile."""
        with ExitStack() as opened:
            drafters = {name: self.drafter(name) for name in self._params}
            for drafter in drafters.values():
                if isinstance(drafter, HeadDrafter):
                    opened.callback(drafter.close)
            yield drafters

    def once(self, drafters: dict[str, Drafter], prompts: list[list[int]], rates: Sequence[float] | None,
             seed: int) -> dict[str, Times]:  # fmt: skip
        """One repeat of all arms, in a random order for each prompt: the caches are as the arm before left them."""
        runs: Arms = {name: [] for name in drafters}
        for i, prompt in enumerate(prompts):
            rng = np.random.default_rng([seed, i])
            chances = rng.random(self._args.n_predict).tolist()
            for name in rng.permutation(list(drafters)).tolist():
                ctx = self._contexts[name][0]
                runs[name].append(generate(ctx, drafters[name], prompt, self._args.n_predict, rates, chances))
        return {name: total(times) for name, times in runs.items()}


class UpstreamArms:
    """The unpatched server, plain and at each length."""

    def __init__(self, args: argparse.Namespace, server: UpstreamServer) -> None:
        self._args, self._server = args, server
        self._options: dict[str, list[str]] = {"upstream plain": []}
        for k in args.k:
            self._options[f"upstream k={k}"] = drafts("draft-mtp", k, shares(args.rates, k) if args.rates else None)

    def once(self, prompts: list[list[int]]) -> dict[str, Times]:
        """One repeat of all arms, each with a server of its own."""
        # where tokens are accepted at random, no text has an end, and in our arms neither
        by_chance = bool(self._args.rates)
        done = {}
        for name, options in self._options.items():
            counts = self._server.run_prompts(options, prompts, self._args.n_predict, ignore_eos=by_chance)
            done[name] = total([to_times(c) for c in counts])
        return done


def to_times(counts: dict[str, float]) -> Times:
    """What a server says about one completion; its phases are not known."""
    n_tokens, accepted = int(counts["predicted_n"]), int(counts.get("draft_n_accepted", 0))
    return Times(n_tokens=n_tokens, n_rounds=max(1, n_tokens - accepted), draft_n=int(counts.get("draft_n", 0)),
                 accepted=accepted, total=counts["predicted_ms"] / 1e3)  # fmt: skip


def measure(args: argparse.Namespace, ours: OurArms, upstream: UpstreamArms | None, prompts: list[list[int]],
            rates: Sequence[float] | None) -> Arms:  # fmt: skip
    """All repeats of all arms. A first one of ours warms up and is not counted."""
    done: Arms = {}
    with ours.drafters() as drafters:
        ours.once(drafters, prompts, rates, 0)
        for repeat in range(1, args.repeats + 1):
            runs = ours.once(drafters, prompts, rates, repeat)
            runs |= upstream.once(prompts) if upstream else {}
            for name, times in runs.items():
                done.setdefault(name, []).append(times)
    return done


def ratios(arms: Arms, above: str, below: str) -> list[float]:
    """Tokens per second of one arm over those of another, repeat by repeat."""
    return [run.rate / base.rate for run, base in zip(arms[above], arms[below], strict=True)]


def with_range(values: list[float]) -> str:
    """The median and, in brackets, the lowest and the highest."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def report(args: argparse.Namespace, arms: Arms) -> None:
    """Print a Markdown table."""
    kind = f"accepted at random, rates {args.rates}" if args.rates else "the model's own acceptance"
    print(
        f"{args.model.name}, {args.threads} threads, {args.n_predict} tokens a prompt, {args.prompts} prompts, "
        f"{args.repeats} repeats, {kind}\n"
    )
    print("| arm | tokens/s | of plain | acceptance | mean length | draft | verify | accept | rollback | rest |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, runs in arms.items():
        plain = "upstream plain" if name.startswith("upstream") else "plain"
        drafted, accepted = sum(r.draft_n for r in runs), sum(r.accepted for r in runs)
        rounds, spent = sum(r.n_rounds for r in runs), sum(r.total for r in runs)
        cells = [f"{median(r.rate for r in runs):.1f}", with_range(ratios(arms, name, plain))]
        cells += [f"{accepted / drafted:.3f}" if drafted else "", f"{1 + accepted / rounds:.2f}"]
        parts = [sum(r.phases[p] for r in runs) / spent for p in runs[0].phases]
        cells += [f"{part:.1%}" for part in (*parts, 1 - sum(parts))] if parts else [""] * (len(PHASES) + 1)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def report_comparisons(arms: Arms) -> None:
    """Print what adaptive is worth against the best of the others, whose length is chosen in other repeats."""
    fixed = {name: runs for name, runs in arms.items() if name.startswith("k=") or name == "adaptive"}
    over_best, best = held_out_ratio(fixed)
    print(f"\nAdaptive over the best fixed length ({best}): {over_best:.2f}")
    theirs = {name: runs for name, runs in arms.items() if name.startswith("upstream k=") or name == "adaptive"}
    if len(theirs) > 1:
        over_best, best = held_out_ratio(theirs)
        print(f"Adaptive over the best of upstream's lengths ({best}): {over_best:.2f}")
        print(f"Plain over upstream's plain: {with_range(ratios(arms, 'plain', 'upstream plain'))}")


def held_out_ratio(arms: Arms) -> tuple[float, str]:
    """The adaptive arm over the best of the others.

    Returns:
        The mean of two ratios, each with the best arm chosen in one half of the repeats and measured in the other, the
        median of those; and the arm that is best in all of them.
    """

    def over(name: str, repeats: slice) -> float:
        return median(ratios(arms, "adaptive", name)[repeats])

    fixed = [name for name in arms if name != "adaptive"]
    found = []
    for chosen, measured in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        best = min(fixed, key=lambda name: over(name, chosen))
        found.append(over(best, measured))
    return sum(found) / 2, min(fixed, key=lambda name: over(name, slice(None)))


def report_cells(args: argparse.Namespace, ours: OurArms, prompts: list[list[int]]) -> None:
    """Print a row for each acceptance."""
    print(f"{args.model.name}, {args.threads} threads, {args.n_predict} tokens a prompt, {args.repeats} repeats\n")
    print("| accepted | plain, tokens/s | best fixed | of plain | adaptive, of plain | over the best fixed |")
    print("| ---: | ---: | --- | ---: | ---: | ---: |")

    for share in args.cells:
        arms = measure(args, ours, None, prompts, [share, share * share])
        over_best, best = held_out_ratio(arms)
        plain = median(run.rate for run in arms["plain"])
        of_plain = [f"{median(ratios(arms, name, 'plain')):.3f}" for name in (best, "adaptive")]
        print(f"| {share:g} | {plain:.1f} | {best} | {' | '.join(of_plain)} | {over_best:.3f} |", flush=True)


def main() -> None:
    """Parse, run, print."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("model", type=Path)
    ap.add_argument(
        "--rates", type=float, nargs="+", help="accept at random: share of rounds with the first j accepted"
    )
    ap.add_argument("--cells", type=float, nargs="+", help="accept at random, each token: a table over these chances")
    ap.add_argument("--upstream", help="an unpatched llama-server of the same pin")
    ap.add_argument("--k", type=int, nargs="+", default=[1, 2, 3, 4, 6], help="fixed draft lengths")
    ap.add_argument("--n-max", type=int, default=8, help="bound of the adaptive length")
    ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--n-ctx", type=int, default=1024)
    ap.add_argument("--n-predict", type=int, default=96)
    ap.add_argument("--prompts", type=int, default=6, help="how many prompts")
    ap.add_argument("--repeats", type=int, default=5)
    args = ap.parse_args()
    if args.repeats < 2:
        ap.error("--repeats must be at least 2: a length is chosen in some and measured in others")
    if args.cells and (args.rates or args.upstream):
        ap.error("--cells goes with neither --rates nor --upstream")
    server = UpstreamServer(args.upstream, args.model, args.threads, args.n_ctx) if args.upstream else None
    with nextn.Model(args.model) as model, ExitStack() as opened:
        prompts = read_prompts(model, args.prompts)
        ours = OurArms(args, model, opened)
        if args.cells:
            report_cells(args, ours, prompts)
            return
        arms = measure(args, ours, UpstreamArms(args, server) if server else None, prompts, args.rates)
        ctx, drafter = ours.adaptive_context, ours.drafter("adaptive")
        prefill = prefill_ratio(ctx, drafter, 512, args.repeats)
        verify = verify_costs(ctx, args.n_max, 5 * args.repeats)
        room = rollback_costs(ours.plain_context, ctx, args.repeats)
    report(args, arms)
    report_comparisons(arms)
    print(f"Reading a prompt of 512 tokens: speed with the head over without it {prefill:.3f}")
    widths = ", ".join(f"{n}: {t / verify[0]:.2f}" for n, t in enumerate(verify[1:], 2))
    print(f"Verifying n tokens over decoding one ({1e3 * verify[0]:.2f} ms): {widths}")
    print(f"Decoding one with room to take {args.n_max} tokens back over without: {with_range(room)}")
    longest = f"k={max(args.k)}"
    step = median(1e3 * run.phases["draft"] / run.draft_n for run in arms[longest])
    print(f"A drafted token, {longest}: {step:.2f} ms", end="")
    if server:
        theirs = server.draft_step_ms(drafts("draft-mtp", max(args.k)), prompts[:2], args.n_predict)
        print(f"; upstream {theirs:.2f} ms, not counting that it runs the head once more on what was verified", end="")
    print()


if __name__ == "__main__":
    main()
