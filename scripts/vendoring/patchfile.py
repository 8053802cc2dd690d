"""Read a patch file: its message, the files it touches, how many lines it changes."""

from __future__ import annotations

import re
from dataclasses import dataclass

HUNK = re.compile(r"@@ -(?P<line>\d+)(?:,(?P<old>\d+))? \+\d+(?:,(?P<new>\d+))? @@")


@dataclass(frozen=True)
class Hunk:
    """One hunk.

    Attributes:
        path: the file it belongs to.
        number: its place among the hunks of that file, from 1.
        line: first line of the old file.
        changed: number of added plus removed lines.
    """

    path: str
    number: int
    line: int
    changed: int


@dataclass(frozen=True)
class Patch:
    """One patch of the series.

    Attributes:
        name: file name.
        subject: first line of its message, without [PATCH].
        body: the rest of the message.
        files: paths it touches.
        added: paths it creates.
        hunks: its hunks, in order.
    """

    name: str
    subject: str
    body: str
    files: tuple[str, ...]
    added: tuple[str, ...]
    hunks: tuple[Hunk, ...]

    @property
    def changed(self) -> int:
        """Number of added plus removed lines."""
        return sum(hunk.changed for hunk in self.hunks)

    def labeled(self, label: str) -> str:
        """The text behind `label:` at the start of a line, to the next label or blank line; empty without one."""
        match = re.search(rf"^{re.escape(label)}:[ \t]*(.*(?:\n(?![A-Z][a-z ]+:|\n|$).*)*)", self.body, re.MULTILINE)
        return " ".join(match[1].split()) if match else ""


def parse_patch(name: str, content: bytes) -> Patch:
    """Take a patch as written by `git format-patch` apart."""
    import email.header  # here, because no build needs it and it takes longer to load than all the rest
    import email.parser

    text = content.decode("utf-8", "replace")
    head, mark, diff = text.partition("\ndiff --git ")
    mail = email.parser.Parser().parsestr(head.partition("\n")[2] if head.startswith("From ") else head)
    subject = str(email.header.make_header(email.header.decode_header(mail.get("Subject", ""))))
    subject = re.sub(r"^\[PATCH[^]]*\] ", "", " ".join(subject.split()))
    body = str(mail.get_payload()).partition("\n---\n")[0].strip()
    files, added, hunks = parse_diff(mark[1:] + diff)
    return Patch(name=name, subject=subject, body=body, files=files, added=added, hunks=hunks)


def parse_diff(diff: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[Hunk, ...]]:
    """Files, created files and hunks of a diff. Line counts of the hunk headers tell content from markers."""
    files: list[str] = []
    added: list[str] = []
    hunks: list[Hunk] = []
    lines = diff.split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if line.startswith("diff --git "):
            files.append(line.rpartition(" b/")[2])
        elif line.startswith("new file mode "):
            added.append(files[-1])
        elif files and (match := HUNK.match(line)):
            length, changed = hunk_length(lines[at:], int(match["old"] or 1), int(match["new"] or 1))
            number = 1 + sum(hunk.path == files[-1] for hunk in hunks)
            hunks.append(Hunk(files[-1], number, int(match["line"]), changed))
            at += length
    return tuple(files), tuple(added), tuple(hunks)


def hunk_length(lines: list[str], old: int, new: int) -> tuple[int, int]:
    """How many lines belong to a hunk with that many old and new lines, and how many of them are changes."""
    changed = 0
    for at, line in enumerate(lines):
        if old <= 0 and new <= 0:
            return at, changed
        kind = line[:1]
        old -= kind in (" ", "-", "")
        new -= kind in (" ", "+", "")
        changed += kind in ("+", "-")
    return len(lines), changed
