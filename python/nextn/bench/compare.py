"""Reports over several receipts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from nextn.bench import plots
from nextn.bench.document import Document, Figure, Item, Paragraph, Section, Table
from nextn.bench.plan import CONTROL, PLAIN
from nextn.bench.receipt import Receipt
from nextn.bench.report import label_of, make_report, report_sections, show_estimate, show_number
from nextn.bench.summary import Row, Summary, speedup, summarise

__all__ = ["make_document"]


def make_document(receipts: Sequence[Receipt], names: Sequence[str]) -> Document:
    """The report of one receipt, or a comparison of several followed by the report of each.

    Args:
        receipts: At least one.
        names: What each is called, for example by its file; shown when models alone do not tell them apart.
    """
    if len(receipts) == 1:
        return make_report(receipts[0])
    labels = [label_of(receipt) for receipt in receipts]
    if len(set(labels)) < len(labels):
        labels = list(names)
    summaries = [summarise(receipt) for receipt in receipts]
    sections = [Section("Comparison", _comparison(receipts, summaries, labels))]
    for i, (receipt, summary, label) in enumerate(zip(receipts, summaries, labels, strict=True), start=1):
        sections.append(Section(label))
        parts = report_sections(receipt, summary, label, level=3)
        sections += parts if i == len(receipts) else parts[:-1]  # how to read it is said once, at the end
    return Document(f"Benchmarks of {', '.join(labels)}", sections)


def _comparison(receipts: Sequence[Receipt], summaries: Sequence[Summary], labels: Sequence[str]) -> list[Item]:
    """All arms of all receipts, and each receipt against the first."""
    header = ["receipt", "arm", "tokens/s", "speed-up over plain", "acceptance", f"speed over {labels[0]}"]
    rows: list[list[str]] = []
    speeds: dict[str, list[float | None]] = {}
    first = {arm: _rows(receipts[0], arm) for arm in _arm_names(receipts[0])}
    for n, (receipt, summary, label) in enumerate(zip(receipts, summaries, labels, strict=True)):
        for arm in summary["arms"]:
            if arm["arm"] == CONTROL:
                continue
            speeds.setdefault(arm["arm"], [None] * len(receipts))[n] = arm["tokens_per_second"]
            ratio = None
            if n and _same_prompts(receipt, receipts[0]):
                ratio = speedup(_rows(receipt, arm["arm"]), first.get(arm["arm"], []))
            rows.append(
                [
                    label,
                    arm["arm"],
                    show_number(arm["tokens_per_second"]),
                    show_estimate(arm["speedup"]) if arm["arm"] != PLAIN else "1",
                    show_estimate(arm["acceptance"], percent=True),
                    show_estimate(ratio.to_dict() if ratio else None),
                ]
            )
    note = (
        "A receipt is the file of one run of the benchmark; each has its report below, and the last section explains"
        " the words. Receipts were made at different times, so unlike the arms within a receipt they are not protected"
        " from a machine that was slower or busier at one of those times. The last column pairs prompts, seeds and"
        " repeats that both have; other models write other texts."
    )
    few = {name: values for name, values in speeds.items() if name in (PLAIN, "adaptive")} or speeds
    caption = "Speed by receipt, of plain decoding and of drafting with the adaptive length; longer bars are faster."
    return [
        Figure("comparison", caption, partial(plots.plot_comparison, labels, few)),
        Paragraph(note),
        Table(header, rows),
    ]


def _rows(receipt: Receipt, arm: str) -> list[Row]:
    """The rows of an arm on the suite's chat prompts."""
    return [r for r in receipt["rows"] if r["arm"] == arm and r["mode"] == "chat" and r["n_context"] is None]


def _arm_names(receipt: Receipt) -> list[str]:
    """The names of the arms."""
    return [arm["name"] for arm in receipt["arms"]]


def _same_prompts(one: Receipt, other: Receipt) -> bool:
    """Whether prompts with the same id are the same."""
    texts = {prompt["id"]: prompt["prompt"] for prompt in other["suite"]["prompts"]}
    return all(texts.get(prompt["id"], prompt["prompt"]) == prompt["prompt"] for prompt in one["suite"]["prompts"])
