"""nextn inspect: what is in a model file."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from nextn._cli.talk import say
from nextn.bundled import bundled_model
from nextn.gguf import format_inspection, inspect


def run(args: argparse.Namespace) -> None:
    """Print the description of the file."""
    path = args.file
    if path is None:
        path = bundled_model()
        say("no FILE: this is the small demo model that comes with nextn")
    found = inspect(path)
    print(json.dumps(asdict(found), ensure_ascii=False) if args.json else format_inspection(found))
