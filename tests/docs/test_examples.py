"""Every command and every Python example in the README and the docs runs, and prints what is shown.

Fences are the source of truth. ``console``: each line that begins with ``$ `` is run by a shell in an empty directory,
shared within a file; the lines after it are its output (none shown: any output), in which ``...`` stands for
anything. A command marked ``# fails with N`` must exit with N. ``python``: a script, unless a comment before the fence
says why it is not run. ``sh`` is not run and needs such a comment. Targets of make are only checked to exist: this test
is part of one of them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from nextn.cli import build_parser
from nextn.options import DraftParams

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOT_RUN = re.compile(r"<!-- not run: .+ -->")
FENCE = re.compile(r"(?P<before>[^\n]*\n)```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE)
RUN = ("console", "python")
SHOWN_ONLY = ("text", "cpp", "c", "json", "")


@dataclass(frozen=True)
class Example:
    """A fence of a page."""

    page: Path
    line: int
    kind: str
    body: str
    before: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def examples(*kinds: str) -> list[Example]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start("body"))
            example = Example(page, line, match["kind"], match["body"], match["before"].strip())
            if not kinds or example.kind in kinds:
                found.append(example)
    return found


def environment() -> dict[str, str]:
    """The commands of this interpreter's environment first, so that `nextn` and `python` are the ones under test."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "PYTHONWARNINGS": "error", "COLUMNS": "120"}


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    """One directory per page: later commands may use files of earlier ones."""
    made: dict[Path, Path] = {}
    return lambda page: made.setdefault(page, tmp_path_factory.mktemp(page.stem))


@pytest.mark.parametrize("example", [e for e in examples("python") if not NOT_RUN.fullmatch(e.before)], ids=str)
def test_python_example(example, tmp_path):
    script = tmp_path / "example.py"
    script.write_text(example.body, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def commands(body: str) -> list[tuple[str, list[str]]]:
    """Commands of a console fence with the output shown under each."""
    found: list[tuple[str, list[str]]] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            assert found, f"output before the first command: {line}"
            found[-1][1].append(line)
    return found


@pytest.mark.parametrize("example", examples("console"), ids=str)
def test_console_example(example, directories):
    for command, shown in commands(example.body):
        if command.startswith("make "):
            check_make(command)
            continue
        expected = int(match[1]) if (match := re.search(r"# fails with (\d+)$", command)) else 0
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=directories(example.page),
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == expected, f"{command}\n{done.stderr}"
        if shown:
            assert_shown("\n".join(shown), done.stderr if expected else done.stdout, command)


def check_make(command: str) -> None:
    """A target of the Makefile, without running it."""
    target = command.split()[1]
    assert re.search(rf"^{re.escape(target)}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE), command


def assert_shown(shown: str, printed: str, command: str) -> None:
    """What is shown is what is printed; ... stands for anything."""
    pattern = ".*".join(re.escape(part) for part in shown.rstrip().split("..."))
    assert re.fullmatch(pattern, printed.rstrip(), re.DOTALL), f"$ {command}\n{printed}\nis not\n{shown}"


@pytest.mark.parametrize("example", examples(), ids=str)
def test_every_fence_is_run_or_says_why_not(example):
    if example.kind in RUN + SHOWN_ONLY:
        return
    assert example.kind == "sh", f"{example}: fences are console, python, sh or plain text"
    assert NOT_RUN.fullmatch(example.before), f"{example}: needs a comment that says why it is not run"


def test_there_is_something_to_run():
    assert len(examples("python")) >= 5
    assert len(examples("console")) >= 8


def option_strings() -> set[str]:
    parser = build_parser()
    commands_of = parser._commands().values()
    return {name for p in (parser, *commands_of) for name in p._option_string_actions}


def test_options_named_in_the_pages_exist():
    """Only pages about the command line: other tools have options of their own."""
    known = option_strings()
    for page in (ROOT / "README.md", ROOT / "docs" / "command-line.md"):
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"`(--?[a-z][a-z-]*)", text))
        named |= {word for line in re.findall(r"\bnextn [a-z].*", text) for word in re.findall(r"\s(--[a-z-]+)", line)}
        assert named
        assert named - known - {"--draft-mx"} == set(), page.name


def test_defaults_in_the_readme_are_those_of_the_code():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"`DraftParams\((\w+)=\w+\)` \| ([^|]+) \|", readme))
    defaults = {field.name: field.default for field in fields(DraftParams)}
    assert shown == {**{name: str(value) for name, value in defaults.items()}, "p_min": "0", "adaptive": "adaptive"}
    assert defaults["p_min"] == 0
    assert defaults["adaptive"] is True


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
