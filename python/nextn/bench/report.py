"""What people read: a report of one receipt, made of nothing but its rows and facts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from nextn.bench import plots
from nextn.bench.document import Document, Figure, Item, Paragraph, Section, Table
from nextn.bench.plan import PLAIN
from nextn.bench.receipt import Receipt
from nextn.bench.statistics import FEWEST_PROMPTS
from nextn.bench.summary import Summary, control, summarise
from nextn.gguf.report import format_count

__all__ = ["label_of", "make_report", "report_sections", "show_estimate", "show_number"]

_SAME = "not distinguishable from 1.0"
_MARKS = {
    " *": Paragraph(f"* {_SAME}: the interval covers it."),
    "prompts)": Paragraph("† too few prompts for an interval: nothing can be told. Their number is in brackets."),
    "prompt)": Paragraph("† one prompt alone: nothing can be told."),
}
_MANY = Paragraph(
    "A table has many intervals, and at 95 % about one in twenty misses: some exclude 1.0 by chance, also for arms"
    " that make no difference. What just misses 1.0 in one cell proves little; the table of all prompts is the result."
)


def make_report(receipt: Receipt) -> Document:
    """The report of one receipt."""
    label = label_of(receipt)
    return Document(f"Benchmark of {label}", report_sections(receipt, summarise(receipt), label))


def report_sections(receipt: Receipt, summary: Summary, label: str = "", level: int = 2) -> list[Section]:
    """The sections of one receipt's report.

    Args:
        receipt: The receipt.
        summary: Its figures.
        label: What the receipt is called in plots and in their names.
        level: Of the headings.
    """
    arms = summary["arms"]
    topics = list(dict.fromkeys(prompt["topic"] for prompt in receipt["suite"]["prompts"]))
    lengths = {arm["name"]: arm["n_max"] for arm in receipt["arms"] if arm["kind"] == "fixed"}
    sections = [
        Section("Result", [*verdict(receipt, summary), *_arms_table(arms), *_speedup_figure(arms, topics, label)]),
        Section("By topic and by seed", _many([*_parts("topic", arms, topics), *_seeds(receipt, arms)])),
        Section("Acceptance by position", _positions(arms, lengths, topics, label)),
        Section("Speed against the draft length", _lengths(arms, lengths, topics, label)),
        Section("Raw prompts and chat prompts", _raw(summary["raw"])),
        Section("Speed against the length of the conversation", _contexts(summary["contexts"], label)),
        Section("Is the output the same?", _exactness(summary["exactness"])),
        Section("What was run", _facts(receipt)),
        Section("How to read this", [Paragraph(text) for text in _GLOSSARY]),
    ]
    kept = [section for section in sections if section.items]
    for section in kept:
        section.level = level
    return kept


def label_of(receipt: Receipt) -> str:
    """The receipt in a few words."""
    if receipt["model"] is None:
        return str(receipt["server"][0]["model"] or "a server")
    return str(receipt["model"]["file"]).removesuffix(".gguf")


def show_number(value: float | None, digits: int = 3) -> str:
    """A figure with as many digits as mean something."""
    if value is None:
        return "–"
    return f"{value:.{max(0, digits - len(str(int(abs(value)))))}f}"


def show_estimate(estimate: dict[str, Any] | None, percent: bool = False) -> str:
    """A figure with its interval."""
    if estimate is None:
        return "–"

    def show(value: float) -> str:
        return f"{100 * value:.1f}" if percent else f"{value:.3f}"

    unit = " %" if percent else ""
    if estimate["low"] is None:
        return f"{show(estimate['value'])}{unit}"
    return f"{show(estimate['value'])}{unit} ({show(estimate['low'])} to {show(estimate['high'])})"


def _slug(label: str) -> str:
    """The label as part of a file's name."""
    return re.sub(r"[^\w.-]+", "-", label)


def verdict(receipt: Receipt, summary: Summary) -> list[Item]:
    """What the benchmark says, in sentences."""
    items: list[Item] = []
    if not summary["finished"]:
        items.append(Paragraph("This run is not complete: it was interrupted, and --resume continues it.", True))
    items += [Paragraph(_sentence(arm), True) for arm in summary["arms"] if arm["arm"] == "adaptive"]
    fixed = [arm for arm in summary["arms"] if arm["arm"].startswith("k=") and arm["speedup"]]
    if fixed:
        best = max(fixed, key=lambda arm: arm["speedup"]["value"])
        items.append(Paragraph(f"Of the fixed draft lengths {best['arm']} was best. {_sentence(best)}"))
    servers = [arm for arm in summary["arms"] if arm["arm"] in _servers(receipt) and arm["speedup"]]
    items += [Paragraph(_sentence(arm)) for arm in servers]
    again = control(summary)
    if again is not None and again["speedup"]:
        shown = show_estimate(again["speedup"])
        if again["distinguishable"]:
            text = (
                f"The control fails: plain decoding against itself came out at {shown}. Something beside the arms made"
                " a difference, so smaller effects than that mean nothing here; run it again on an idle machine."
            )
        else:
            text = f"Control: plain decoding against itself is {shown}, {_SAME}, as it should be."
        items.append(Paragraph(text, again["distinguishable"]))
    return [*items, *_exactness(summary["exactness"])[:1]]


def _sentence(arm: dict[str, Any]) -> str:
    """An arm's speed-up in words."""
    name = "Adaptive drafting" if arm["arm"] == "adaptive" else arm["arm"]
    ratio = arm["speedup"]
    if ratio is None:
        return f"{name} was not compared with plain decoding."
    over = f"over {ratio['n_prompts']} prompts"
    if ratio["n_prompts"] < FEWEST_PROMPTS:
        over = f"over {_few(ratio)}"
        return f"{name}: {ratio['value']:.3f} times the speed of plain decoding {over}, too few for an interval."
    if not arm["distinguishable"]:
        return f"{name}: {show_estimate(ratio)} times the speed of plain decoding {over}: {_SAME}."
    return (
        f"{name} is {ratio['value']:.3f} times as fast as plain decoding {over}"
        f" (95 % interval {ratio['low']:.3f} to {ratio['high']:.3f})."
    )


def _servers(receipt: Receipt) -> set[str]:
    """Arms that have a server of their own."""
    return {arm["name"] for arm in receipt["arms"] if arm["kind"] == "server"}


def _speedup_cell(arm: dict[str, Any]) -> str:
    """A speed-up, and a mark when nothing can be told."""
    if arm["speedup"] is None:
        return "1" if arm["arm"] == PLAIN else "–"
    if arm["speedup"]["n_prompts"] < FEWEST_PROMPTS:
        return f"{show_estimate(arm['speedup'])} † ({_few(arm['speedup'])})"
    return show_estimate(arm["speedup"]) + ("" if arm["distinguishable"] else " *")


def _few(estimate: dict[str, Any]) -> str:
    """The number of prompts in words."""
    return "1 prompt" if estimate["n_prompts"] == 1 else f"{estimate['n_prompts']} prompts"


def _acceptance_cell(arm: dict[str, Any]) -> str:
    """Acceptance in per cent, and a mark when there are too few prompts for an interval."""
    shown = show_estimate(arm["acceptance"], percent=True)
    if arm["acceptance"] is not None and arm["acceptance"]["n_prompts"] < FEWEST_PROMPTS:
        return f"{shown} † ({_few(arm['acceptance'])})"
    return shown


def _with_mark(table: Table) -> list[Item]:
    """The table, and what its marks mean if it has some."""
    cells = [cell for row in table.rows for cell in row]
    return [table, *(text for mark, text in _MARKS.items() if any(cell.endswith(mark) for cell in cells))]


def _many(items: list[Item]) -> list[Item]:
    """Tables of parts of the runs, and what to think of their many intervals."""
    return [*items, _MANY] if any(isinstance(item, Table) for item in items) else items


def _arms_table(arms: Sequence[dict[str, Any]]) -> list[Item]:
    """The table of all arms."""
    header = ["arm", "tokens/s", "speed-up", "acceptance", "tokens per round", "drafting", "verifying", "rest"]
    rows = []
    for arm in arms:
        shares = arm["shares"] or {}
        rows.append(
            [
                arm["arm"],
                show_number(arm["tokens_per_second"]),
                _speedup_cell(arm),
                _acceptance_cell(arm),
                show_number(arm["mean_accepted_len"]),
                *(f"{100 * shares[k]:.0f} %" if k in shares else "–" for k in ("draft", "verify", "rest")),
            ]
        )
    return _with_mark(Table(header, rows))


def _speedup_figure(arms: Sequence[dict[str, Any]], topics: Sequence[str], label: str) -> list[Item]:
    """The plot of all arms."""
    if not any(arm["speedup"] for arm in arms):
        return []
    caption = (
        "Speed-up of each arm: right of the dashed line it is faster than plain decoding, left of it slower. Where the"
        " black bar touches the line, the arm is not distinguishable from plain decoding. Coloured marks: the same"
        " by topic."
    )
    return [Figure(f"{_slug(label)}-speedup", caption, partial(plots.plot_speedups, label, arms, topics))]


def _parts(what: str, arms: Sequence[dict[str, Any]], parts: Sequence[str], with_acceptance: bool = True) -> list[Item]:
    """Speed-up and acceptance in parts of the runs."""
    shown = [arm for arm in arms if arm["arm"] != PLAIN]
    if len(parts) < 2 or not shown:
        return []
    tables: list[Item] = []
    for title, cell in (("speed-up", _speedup_cell), ("acceptance", _acceptance_cell))[: 1 + with_acceptance]:
        rows = []
        for arm in shown:
            found = [arm[f"by_{what}"].get(part) for part in parts]
            cells = [cell(figures) if figures else "–" for figures in found]
            if any(text != "–" for text in cells):
                rows.append([arm["arm"], *cells])
        if rows:
            tables += _with_mark(Table([f"{title} by {what}", *parts], rows))
    return tables


def _seeds(receipt: Receipt, arms: Sequence[dict[str, Any]]) -> list[Item]:
    """The same by seed."""
    seeds = [str(seed) for seed in receipt["options"]["seeds"]]
    greedy = receipt["options"]["temperature"] == 0
    tables = _parts("seed", arms, seeds, with_acceptance=not greedy)
    if tables and greedy:
        note = "Decoding is greedy: a seed decides the order of the runs, not the text, so acceptance is the same."
        return [Paragraph(note), *tables]
    return tables


def _positions(
    arms: Sequence[dict[str, Any]], lengths: dict[str, int], topics: Sequence[str], label: str
) -> list[Item]:
    """Acceptance at each position: a table of all arms, a plot of the one with the longest drafts."""
    known = [arm for arm in arms if arm["positions"]]
    if not known:
        return []
    n_most = max(len(arm["positions"]) for arm in known)
    rows = []
    for arm in known:
        rates = [show_estimate(p["acceptance"], percent=True).split(" (")[0] for p in arm["positions"]]
        rows.append([arm["arm"], *rates, *["–"] * (n_most - len(rates))])
    widest = max((arm for arm in known if arm["arm"] in lengths), key=lambda a: lengths[a["arm"]], default=known[-1])
    caption = (
        f"Acceptance by position, {widest['arm']}: of the drafts that reached a position, the share whose token there"
        " was accepted. A token counts only when all before it in the draft were accepted, so the line can only fall"
        " where drafts have one length."
    )
    figure = Figure(f"{_slug(label)}-positions", caption, partial(plots.plot_positions, label, widest, topics))
    return [figure, Table(["arm \\ position", *map(str, range(1, n_most + 1))], rows)]


def _lengths(arms: Sequence[dict[str, Any]], lengths: dict[str, int], topics: Sequence[str], label: str) -> list[Item]:
    """The sweep over fixed draft lengths."""
    if sum(1 for arm in arms if arm["arm"] in lengths and arm["speedup"]) < 2:
        return []
    plain = next((arm for arm in arms if arm["arm"] == PLAIN), None)
    base = f" Plain decoding makes {show_number(plain['tokens_per_second'])} tokens/s." if plain else ""
    caption = (
        "Speed-up against the draft length: where the black line is highest, fixed drafts are best. The orange line is"
        " the adaptive arm, which chooses a length before each draft; it should be about as high as the best fixed"
        f" length, without knowing it beforehand.{base}"
    )
    return [Figure(f"{_slug(label)}-lengths", caption, partial(plots.plot_lengths, label, arms, lengths, topics))]


def _raw(raw: Sequence[dict[str, Any]] | None) -> list[Item]:
    """Raw against chat."""
    if not raw:
        return []
    note = (
        "The same prompts as texts to continue, and through the model's chat template. Models are trained on chats, and"
        " so are their heads: acceptance on raw text is usually lower. Raw texts go on to the full length, also where"
        " the model would have ended them."
    )
    header = ["arm", "tokens/s raw", "chat", "speed-up raw", "chat", "acceptance raw", "chat"]
    rows = [
        [
            both["arm"],
            *(show_number(both[mode]["tokens_per_second"]) for mode in ("raw", "chat")),
            *(_speedup_cell(both[mode]) for mode in ("raw", "chat")),
            *(_acceptance_cell(both[mode]) for mode in ("raw", "chat")),
        ]
        for both in raw
    ]
    return _many([Paragraph(note), *_with_mark(Table(header, rows))])


def _contexts(contexts: Sequence[dict[str, Any]], label: str) -> list[Item]:
    """The sweep over contexts."""
    if not contexts:
        return []
    header = ["tokens before the answer", "arm", "tokens/s", "speed-up", "acceptance"]
    rows = [
        [
            f"{context['prompt_tokens']:.0f}",
            arm["arm"],
            show_number(arm["tokens_per_second"]),
            _speedup_cell(arm),
            _acceptance_cell(arm),
        ]
        for context in contexts
        for arm in context["arms"]
    ]
    items = _with_mark(Table(header, rows))
    if len(contexts) > 1:
        names = [arm["arm"] for arm in contexts[0]["arms"]][:6]
        caption = (
            "Tokens per second against the length of the conversation before the answer; higher is faster. Few prompts"
            " are asked here; their intervals are in the table."
        )
        items.insert(
            0, Figure(f"{_slug(label)}-contexts", caption, partial(plots.plot_contexts, label, contexts, names))
        )
    return _many(items)


def _exactness(found: dict[str, Any]) -> list[Item]:
    """Whether the arms wrote the same."""
    if not found["comparable"]:
        return [Paragraph("Outputs are not compared: tokens were drawn, and arms draw differently.")]
    if not found["different"]:
        text = (
            f"Output: identical. The {found['n_runs']} runs of {found['n_groups']} prompts (each mode and context"
            " counts) agree, whatever was drafted: the hashes of their outputs are equal."
        )
        return [Paragraph(text)]
    text = (
        f"Output: DIFFERENT for {len(found['different'])} of {found['n_groups']} prompts. Greedy speculation must not"
        " change the text; this is a fault of the engine, or a server whose numbers depend on the batch."
    )
    rows = [
        [
            d["prompt"],
            d["mode"] + (f" at {d['n_context']}" if d["n_context"] is not None else ""),
            ", ".join(d["arms"]),
        ]
        for d in found["different"][:20]
    ]
    return [Paragraph(text, True), Table(["prompt", "mode", "arms unlike plain"], rows, numbers=False)]


def _facts(receipt: Receipt) -> list[Item]:
    """Model, engine, machine, options."""
    options, machine, versions = receipt["options"], receipt["machine"], receipt["versions"]
    rows: list[list[str]] = []
    for name, file in (("model", receipt["model"]), ("file with the draft head", receipt["draft_model"])):
        if file:
            about = f", {file['description'].replace(' ?B', '')}" if "description" in file else ""
            about += f", {format_count(file['n_params'])} parameters" if "n_params" in file else ""
            rows.append([name, f"{file['file']}, {file['bytes']:,} bytes{about}; sha256 {file['sha256']}"])
    engine = receipt["engine"]
    if engine:
        rows.append(["engine", f"llama.cpp {engine['upstream_commit']} with nextn's overlay, stamp {engine['stamp']}"])
        listed = "".join(f"{digest}  {name}\n" for name, digest in sorted(engine["files"].items()))
        digest = hashlib.sha256(listed.encode()).hexdigest()
        rows.append(["engine's files", f"sha256 {digest} over the list of {len(engine['files'])} in the receipt"])
    servers = receipt["server"] or ()
    rows += [["server", f"{', '.join(s['arms'])}: {s['build_info'] or 'unknown build'}"] for s in servers]
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB" if machine["memory_bytes"] else "unknown memory"
    system = f"{machine['system']} {machine['release']} {machine['machine']}"
    rows.append(["machine", f"{machine['cpu']}, {machine['usable_cores']} cores used at most, {memory}, {system}"])
    rows.append(["contexts", ", ".join(f"{k} {v}" for k, v in receipt["context"].items() if v is not None)])
    how = "greedy" if options["temperature"] == 0 else f"temperature {options['temperature']:g}"
    seeds = ", ".join(map(str, options["seeds"]))
    often = "once each" if options["repeats"] == 1 else f"{options['repeats']} times each"
    runs = f"{how}, at most {options['max_tokens']} tokens, seeds {seeds}, {often}"
    rows.append(["runs", f"{runs}; {len(receipt['rows'])} in all, arms in turn in random order, warm-up dropped"])
    n_prompts = len(receipt["suite"]["prompts"])
    rows.append(["prompts", f"suite {receipt['suite']['name']}, {n_prompts}; sha256 {receipt['suite']['sha256']}"])
    rows.append(["versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)])
    for session in receipt["sessions"]:
        load = f"load average {session['load_before']} before and {session['load_after']} after"
        rows.append(["session", f"{session['started']} to {session['ended']}, {session['n_rows']} runs, {load}"])
    return [Table(["", ""], rows, numbers=False)]


_GLOSSARY = (
    "Arm: a way of decoding. Plain decodes one token at a time; k=4 drafts four tokens in every round; adaptive chooses"
    " before each draft how long it is, by measured costs and acceptance. The control is plain decoding once more.",
    "Speed (tokens/s): tokens after the first one, per second of the time after it, over all runs of the arm. Reading"
    " the prompt is not in it.",
    "Speed-up: for each prompt, the arm's speed over plain decoding's in the same block, that is with the same seed and"
    " within the same few seconds; the median over blocks stands for the prompt, the geometric mean over prompts for"
    " the arm. It is not the ratio of the two speeds in the table, in which prompts with long answers count more.",
    "Interval: 95 %, BCa bootstrap over prompts. It says what other prompts of this kind might have given on this"
    " machine; it knows nothing of other machines. When it covers 1.0 the report says: not distinguishable from 1.0.",
    "Acceptance: accepted over drafted tokens. Tokens per round: 1 + accepted / rounds; a round is one decode of the"
    " model.",
)
