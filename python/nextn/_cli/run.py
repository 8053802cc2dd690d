"""Running a command: every way it can end becomes an exit code and at most one line on standard error."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Sequence

from nextn._cli.errors import describe
from nextn._cli.parser import Parser, UsageError
from nextn._cli.talk import complain

OK, ERROR, USAGE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141


def run(parser: Parser, argv: Sequence[str] | None) -> int:
    """Parse the arguments, run the command, and return the exit code."""
    debug = os.environ.get("NEXTN_DEBUG", "") not in ("", "0")
    try:
        try:
            args = parser.parse(argv)
            if args.command is None:
                parser.print_help(sys.stderr)
                return USAGE
            debug = debug or args.debug
            _prepare_streams(verbose=args.verbose)
            return args.run(args) or OK
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except SystemExit as ended:  # --help and --version
        return ended.code if isinstance(ended.code, int) else ERROR
    except KeyboardInterrupt:
        complain("interrupted", error=False)
        return INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return BROKEN_PIPE
    except UsageError as error:
        complain(str(error))
        return USAGE
    except Exception as error:
        if debug:
            traceback.print_exc()
        complain(describe(error))
        _forget_stdout()
        return USAGE if isinstance(error, ValueError) else ERROR


def _prepare_streams(*, verbose: bool) -> None:
    """Write what a terminal cannot show as replacement characters, and the engine's log where it is wanted."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="replace")
    if verbose:
        logging.basicConfig(level=logging.DEBUG, format="%(message)s", stream=sys.stderr)


def _forget_stdout() -> None:
    """Let Python's own flush at exit go nowhere when standard output cannot be written."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
