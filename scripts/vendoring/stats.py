"""How much of llama.cpp is changed, and how much beside it is ours."""

from __future__ import annotations

from vendoring.check import MAX_PATCH, MAX_QUEUE, listed_patches
from vendoring.layout import Fork
from vendoring.patchfile import parse_patch


def stats(fork: Fork) -> str:
    """Two tables: patches with their changed lines, overlay files with their lines."""
    patches = [parse_patch(name, fork.patch(name)) for name in listed_patches(fork)]
    rows = [(patch.changed, f"{patch.name}  ({', '.join(patch.files)})") for patch in patches]
    text = table(f"patches: changed lines (at most {MAX_PATCH} each, {MAX_QUEUE} in all)", rows)
    own = [(file.content.count(b"\n"), file.path) for file in fork.overlay_files()]
    return text + "\n\n" + table("overlay: lines", own)


def table(title: str, rows: list[tuple[int, str]]) -> str:
    """A title, one line per row, and the sum."""
    rows = [*rows, (sum(count for count, _ in rows), f"total of {len(rows)}")]
    return "\n".join([title, *(f"{count:7}  {name}" for count, name in rows)])
