"""nextn verify, extract-head, graft-head: model files checked, taken apart and put together."""

from __future__ import annotations

import argparse
import json
import os

from nextn._cli.talk import Progress, say
from nextn.bundled import bundled_model
from nextn.gguf import extract_head, format_report, graft_head, verify
from nextn.gguf.report import format_size


def run_verify(args: argparse.Namespace) -> int:
    """Print what is wrong with a file; the exit code says how bad it is."""
    path = args.file
    if path is None:
        path = bundled_model()
        say("no FILE: this is the small demo model that comes with nextn")
    report = verify(path, load=args.load)
    print(json.dumps(report.to_dict(), ensure_ascii=False) if args.json else format_report(report))
    return report.exit_code


def run_extract_head(args: argparse.Namespace) -> None:
    """Write a head-only file."""
    with Progress("writing") as progress:
        extract_head(args.file, args.out, progress=progress)
    _tell(args)


def run_graft_head(args: argparse.Namespace) -> None:
    """Write a model with the head of another file."""
    with Progress("writing") as progress:
        graft_head(args.file, args.head, args.out, progress=progress)
    _tell(args)


def _tell(args: argparse.Namespace) -> None:
    """Say what was written."""
    size = os.path.getsize(args.out)
    print(json.dumps({"out": args.out, "size": size}) if args.json else f"{args.out}: {format_size(size)}")
