"""The argument parser: llama.cpp's option names, values with their ranges, errors in one line with the nearest name."""

from __future__ import annotations

import argparse
import difflib
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from nextn._cli.version import version_text

Commands = argparse._SubParsersAction  # the class has no public name

FLASH_ATTENTION = ("on", "off", "auto")
CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


class UsageError(Exception):
    """The arguments do not fit together; the text says how."""


class Parser(argparse.ArgumentParser):
    """A parser that never guesses, and answers a wrong option with one line and the nearest right one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """The arguments; whatever does not fit is a UsageError."""
        found, unknown = self.parse_known_args(argv)
        if unknown:
            raise UsageError(self._describe_unknown(found, unknown))
        return found

    def error(self, message: str) -> NoReturn:
        """Turn argparse's message into a UsageError instead of printing the usage and exiting."""
        raise UsageError(f"{self._with_nearest_command(message)} ({self.prog} --help lists what there is)")

    def _describe_unknown(self, found: argparse.Namespace, unknown: list[str]) -> str:
        """Say which argument is too much, and which one may have been meant."""
        command = self._commands().get(getattr(found, "command", None) or "", self)
        option = next((arg.split("=")[0] for arg in unknown if arg.startswith("-") and arg != "-"), None)
        if option is None:
            return f"unexpected argument {unknown[0]!a}; a text with spaces needs quotes"
        near = _nearest(option, command._option_string_actions)
        hint = f"did you mean {near}?" if near else f"{command.prog} --help lists the options"
        return f"unknown option {option!a}; {hint}"

    def _with_nearest_command(self, message: str) -> str:
        """Replace argparse's words about an unknown command."""
        words = message.split("'")
        if not message.startswith("argument COMMAND: invalid choice"):
            return message
        near = _nearest(words[1], self._commands())
        return f"unknown command {words[1]!a}" + (f"; did you mean {near}?" if near else "")

    def _commands(self) -> dict[str, Parser]:
        """The parsers of the commands by name."""
        actions = (action for action in self._actions if isinstance(action, Commands))
        return dict(next(actions).choices) if self._subparsers else {}


class ShowVersion(argparse.Action):
    """Print the version and exit; the engine is asked only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:  # noqa: A002
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, *_: object) -> NoReturn:
        print(version_text())
        sys.exit(0)


def whole(low: int, high: int | None = None, *, also: int | None = None) -> Callable[[str], int]:
    """Type of an option that takes a whole number within low..high, or one value beside that with its own meaning."""
    allowed = f"a whole number >= {low}" if high is None else f"a whole number from {low} to {high}"
    if also is not None:
        allowed = f"{also} or {allowed}"

    def parse(given: str) -> int:
        value: int | None
        try:
            value = int(given)
        except ValueError:
            value = None
        if value is None or (value != also and (value < low or (high is not None and value > high))):
            raise argparse.ArgumentTypeError(f"must be {allowed}, not {given!a}")
        return value

    return parse


def number(low: float, high: float = math.inf) -> Callable[[str], float]:
    """Type of an option that takes a finite number within low..high."""
    allowed = f"a number >= {low:g}" if high == math.inf else f"a number from {low:g} to {high:g}"

    def parse(given: str) -> float:
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and low <= value <= high):
            raise argparse.ArgumentTypeError(f"must be {allowed}, not {given!a}")
        return value

    return parse


def text(given: str) -> str:
    """Type of an argument that takes text: what the shell passed must be UTF-8."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("must be UTF-8 text") from None
    return given


def commas(given: str) -> list[str]:
    """Type of an option that takes a list with commas."""
    return given.split(",")


def _nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like this one; of equals, one with as many dashes."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def add_cache_types(table: argparse._ActionsContainer) -> None:
    """The options -ctk and -ctv of a command, or of a group of its options."""
    for option, name in (("-ctk", "k"), ("-ctv", "v")):
        table.add_argument(
            option,
            f"--cache-type-{name}",
            choices=CACHE_TYPES,
            default="f16",
            metavar="TYPE",
            help=f"type of the {name.upper()} cache: {', '.join(CACHE_TYPES)} (default: %(default)s)",
        )


def add_threads(table: argparse._ActionsContainer) -> None:
    """The option -t of a command, or of a group of its options."""
    table.add_argument("-t", "--threads", type=whole(1, 512), metavar="N", help="threads (default: physical cores)")
