"""A report as a document: sections of paragraphs, tables and figures, written as Markdown or as one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from nextn.bench.suite import DATA

__all__ = ["Document", "Figure", "Paragraph", "Section", "Table", "to_html", "to_markdown"]


@dataclass(frozen=True)
class Paragraph:
    """Plain text; important ones stand out."""

    text: str
    important: bool = False
    kind: str = "paragraph"


@dataclass(frozen=True)
class Table:
    """Cells as text: the first column is a name, the others are figures unless told otherwise."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True
    kind: str = "table"


@dataclass(frozen=True)
class Figure:
    """A plot with a caption that says how to read it."""

    name: str
    caption: str
    draw: Callable[[], str]
    kind: str = "figure"

    @property
    def alt(self) -> str:
        """What stands for the plot where it cannot be seen: the caption's first sentence."""
        return self.caption.split(". ")[0].rstrip(".")

    @cached_property
    def svg(self) -> str:
        """The svg element, drawn when it is first asked for: a page of text does without."""
        return self.draw()


Item = Paragraph | Table | Figure


@dataclass
class Section:
    """A heading and what is under it."""

    title: str
    items: list[Item] = field(default_factory=list)
    level: int = 2


@dataclass
class Document:
    """A report."""

    title: str
    sections: list[Section]

    @property
    def figures(self) -> list[Figure]:
        """All figures in order."""
        return [item for section in self.sections for item in section.items if isinstance(item, Figure)]


def to_markdown(document: Document, figure_folder: str | None = None) -> str:
    """The document as Markdown.

    Args:
        document: The report.
        figure_folder: Where the figures' files are, seen from the Markdown file; None leaves the figures out.
    """
    parts = [f"# {document.title}"]
    for section in document.sections:
        if figure_folder is None and section.items and all(isinstance(item, Figure) for item in section.items):
            continue
        parts.append(f"{'#' * section.level} {section.title}")
        for item in section.items:
            if isinstance(item, Paragraph):
                parts.append(f"**{item.text}**" if item.important else item.text)
            elif isinstance(item, Table):
                parts.append(_markdown_table(item))
            elif figure_folder is not None:
                parts.append(f"![{item.alt}]({figure_folder}/{item.name}.svg)\n\n{item.caption}")
    return "\n\n".join(parts) + "\n"


def to_html(document: Document) -> str:
    """The document as one HTML page with the figures in it; it loads nothing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(DATA), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return templates.get_template("report.html.jinja").render(document=document)


def write_figures(document: Document, folder: Path) -> None:
    """Write each figure as NAME.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    for figure in document.figures:
        (folder / f"{figure.name}.svg").write_text(figure.svg, encoding="utf-8")


def _markdown_table(table: Table) -> str:
    """A table; figures stand to the right."""
    ruler = ["---", *["---:" if table.numbers else "---"] * (len(table.header) - 1)]
    lines = [table.header, ruler, *table.rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
