"""Command line of scripts/vendor.py."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from vendoring.layout import Fork
from vendoring.prepare import prepare
from vendoring.run import VendorError
from vendoring.source import check_source

PROJECT = Path(__file__).resolve().parents[2]


def main(argv: list[str] | None = None) -> int:
    """Run one command; an error is one message on stderr and exit code 1."""
    parser = argparse.ArgumentParser(prog="vendor.py")
    parser.add_argument("--root", type=Path, default=PROJECT)
    sub = parser.add_subparsers(dest="command", required=True)
    p = sub.add_parser("prepare")
    p.add_argument("--discard", action="store_true")
    p = sub.add_parser("source")
    p.add_argument("tree", type=Path)
    args = parser.parse_args(argv)
    try:
        if args.command == "source":
            print(check_source(Fork(args.root), args.tree))
            return 0
        print(prepare(Fork(args.root), discard=args.discard))
    except VendorError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
