"""Several quantizations of one model side by side: size, perplexity, acceptance, speed, as a Markdown table."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nextn.gguf.report import format_size
from nextn.gguf.writer import Progress
from nextn.model import Model
from nextn.quantize.measure import Drafting, measure_drafting, perplexity
from nextn.quantize.run import quantize

__all__ = ["PROMPTS", "Row", "format_matrix", "make_matrix"]

# What is asked when nobody says what to ask.
PROMPTS = (
    "Write a Python function that multiplies each number in a list by 6.",
    "What is 17 + 25?",
    "What is the capital of France?",
    "How do I sort a list in Python?",
    "Write a Python function to count how often each word occurs in a text.",
    "A box holds 12 eggs. How many eggs are in 7 boxes?",
    "Which planet is closest to the sun?",
    "How do I loop over a list with an index in Python?",
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One quantization.

    Args:
        name: Type and recipe, or "source" for the file itself.
        path: The file.
        size: Its bytes.
        perplexity: On the text that was given.
        drafting: None for a model without a draft head.
    """

    name: str
    path: str
    size: int
    perplexity: float
    drafting: Drafting | None


def make_matrix(
    path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    types: Sequence[str],
    recipes: Sequence[str],
    text: str,
    *,
    prompts: Sequence[str] = PROMPTS,
    imatrix: str | os.PathLike[str] | None = None,
    allow_requantize: bool = False,
    n_ctx: int = 512,
    n_draft: int = 3,
    n_threads: int | None = None,
    on_step: Callable[[str], Progress | None] = lambda _: None,
) -> list[Row]:
    """Quantize a model to every type with every recipe and measure each file, the source first.

    Args:
        path: The model.
        folder: Where the files go: NAME-TYPE-RECIPE.gguf.
        types: File types.
        recipes: Names of recipes.
        text: What the perplexity is measured on; it should not be what an importance matrix was made from.
        prompts: What is answered to measure acceptance and speed.
        imatrix: An importance matrix for all of them.
        allow_requantize: As for quantize().
        n_ctx: Tokens per chunk of the text.
        n_draft: Length of the drafts.
        n_threads: Threads; None takes the physical cores this process may use.
        on_step: Called with the name of each step; may give a progress callback for it.

    Returns:
        One row per file.
    """

    def measure(name: str, file: Path) -> Row:
        progress = on_step(f"{name}: perplexity")
        with Model(file) as model:
            value = perplexity(model, text, n_ctx=n_ctx, n_threads=n_threads, progress=progress)
            on_step(f"{name}: drafting")
            drafting = None
            if model.has_nextn_layer:
                drafting = measure_drafting(model, prompts, n_draft=n_draft, n_threads=n_threads)
        return Row(name=name, path=str(file), size=file.stat().st_size, perplexity=value, drafting=drafting)

    source = Path(path)
    rows = [measure("source", source)]
    for kind in types:
        for recipe in recipes:
            out = Path(folder) / f"{source.stem}-{kind}-{recipe}.gguf"
            progress = on_step(f"{kind} {recipe}: quantizing")
            quantize(
                source,
                out,
                kind,
                recipe=recipe,
                imatrix=imatrix,
                allow_requantize=allow_requantize,
                n_threads=n_threads,
                progress=progress,
            )
            rows.append(measure(f"{kind} {recipe}", out))
    return rows


def format_matrix(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, without a final newline."""
    lines = ["| file | size | perplexity | accepted / drafted | acceptance | tokens/s |", "| --- " * 6 + "|"]
    for row in rows:
        drafting = row.drafting
        counts, rate, speed = "none", "-", "-"
        if drafting is not None:
            counts = f"{drafting.draft_n_accepted} / {drafting.draft_n}"
            rate = "-" if drafting.acceptance_rate is None else f"{drafting.acceptance_rate:.1%}"
            speed = "-" if drafting.tokens_per_second is None else f"{drafting.tokens_per_second:.0f}"
        lines.append(f"| {row.name} | {format_size(row.size)} | {row.perplexity:.4f} | {counts} | {rate} | {speed} |")
    return "\n".join(lines)
