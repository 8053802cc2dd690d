"""Command line of scripts/vendor.py. It holds no logic: each command is one function of another module."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vendoring.bump import bump, finish_bump
from vendoring.cache import Cache
from vendoring.check import check
from vendoring.export import export
from vendoring.layout import Fork
from vendoring.prepare import prepare
from vendoring.run import VendorError
from vendoring.source import check_source
from vendoring.stats import stats
from vendoring.workcopy import make_working_copy

PROJECT = Path(__file__).resolve().parents[2]

ENVIRONMENT = """environment:
  NEXTN_CACHE_DIR       where prepared trees are kept (default: the folder nextn in XDG_CACHE_HOME or ~/.cache)
  NEXTN_LLAMA_ARCHIVE   a copy of the pinned archive, used instead of a download; its hash is checked
  NEXTN_LLAMA_SOURCE    (read by CMake) a working copy to build instead of the prepared tree
"""


def build_parser() -> argparse.ArgumentParser:
    """The options of all commands."""
    parser = argparse.ArgumentParser(
        prog="vendor.py",
        description="Prepare and maintain the patched llama.cpp of vendor/llama.cpp.",
        epilog=ENVIRONMENT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--root", type=Path, default=PROJECT, metavar="DIR", help="the project (default: this one)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = commands.add_parser("prepare", help="make the tree to build from and print its path")
    one.add_argument("--dest", type=Path, metavar="DIR", help="make a working copy for development there instead")
    one.add_argument("--discard", action="store_true", help="throw away changes made by hand in the cache's tree")

    one = commands.add_parser("check", help="prove that pin, overlay and series are in order")

    one = commands.add_parser("export", help="write the commits of a working copy back as patches and overlay")
    one.add_argument("tree", type=Path, nargs="?", metavar="DIR", help="the working copy (default: the cache's tree)")
    one.add_argument("--force", action="store_true", help="overwrite newer changes in vendor/llama.cpp")

    one = commands.add_parser("bump", help="move the pin to another version")
    one.add_argument("version", metavar="VERSION")
    one.add_argument("--archive", type=Path, metavar="FILE", help="a copy of that version, instead of a download")
    one.add_argument("--dest", type=Path, metavar="DIR", help="where to make the working copy (default: in the cache)")
    one.add_argument("--finish", type=Path, metavar="DIR", help="write back a working copy that was repaired")

    commands.add_parser("stats", help="count the lines of patches and overlay")

    one = commands.add_parser("source", help="check a working copy that is to be built (used by CMake)")
    one.add_argument("tree", type=Path, metavar="DIR")
    return parser


def run_command(args: argparse.Namespace) -> int:
    """Do what the arguments say, print the result and return the exit code."""
    fork = Fork(args.root.resolve())
    match args.command:
        case "prepare" if args.dest:
            print(make_working_copy(fork, args.dest.absolute()))
        case "prepare":
            print(prepare(fork, discard=args.discard))
        case "source":
            print(check_source(fork, args.tree))
        case "export":
            changes = export(fork, args.tree or Cache.of(fork.pin()).tree(fork.root).source, force=args.force)
            print("\n".join(changes) or "nothing to change")
        case "bump" if args.finish:
            print("\n".join(finish_bump(fork, args.version, args.finish.absolute())))
        case "bump":
            dest = args.dest.absolute() if args.dest else None
            print("\n".join(bump(fork, args.version, archive=args.archive, dest=dest)))
        case "stats":
            print(stats(fork))
        case "check":
            problems = check(fork)
            print("\n".join(problems) or f"vendor/llama.cpp: in order, {len(fork.series())} patches")
            return 1 if problems else 0
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run one command; an error is one message on stderr and exit code 1."""
    try:
        return run_command(build_parser().parse_args(argv))
    except VendorError as error:
        message = str(error)
    except (OSError, UnicodeError) as error:
        message = f"{type(error).__name__}: {error}"
    except KeyboardInterrupt:
        message = "interrupted; nothing half-done will be used"
    print(f"error: {message}", file=sys.stderr)
    return 1
