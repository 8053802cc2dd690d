"""The tables of the commands about files: verify, extract-head, graft-head."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from nextn._cli import files
from nextn._cli.parser import Parser

Commands = argparse._SubParsersAction  # the class has no public name


def add_file_commands(commands: Commands[Parser], add_output: Callable[[Parser], None]) -> None:
    """Add them all; add_output adds the options that every command has."""
    for add in (_add_verify, _add_extract_head, _add_graft_head):
        add_output(add(commands))


def _add_verify(commands: Commands[Parser]) -> Parser:
    """Table of nextn verify."""
    parser = commands.add_parser(
        "verify",
        help="check a model file and its draft head",
        description="Say whether a GGUF file is sound, and whether its draft head is there and good, from its header "
        "alone. Exit code 0: good; 1: no draft head, or a poor one; 2: damaged.",
    )
    parser.set_defaults(run=files.run_verify)
    parser.add_argument("file", nargs="?", metavar="FILE", help="the GGUF file (default: the bundled demo model)")
    parser.add_argument("--load", action="store_true", help="also load it in a process of its own and draft with it")
    return parser


def _add_extract_head(commands: Commands[Parser]) -> Parser:
    """Table of nextn extract-head."""
    parser = commands.add_parser(
        "extract-head",
        help="write the draft head of a model as a file of its own",
        description="Write a file that holds only the draft head of a model, for -md.",
    )
    parser.set_defaults(run=files.run_extract_head)
    parser.add_argument("file", metavar="FILE", help="the model; of one in parts, the first part")
    parser.add_argument("out", metavar="OUT", help="the file to write")
    return parser


def _add_graft_head(commands: Commands[Parser]) -> Parser:
    """Table of nextn graft-head."""
    parser = commands.add_parser(
        "graft-head",
        help="put a draft head into a model that lacks it",
        description="Write a model with a draft head, from a model without one and a file that has it: a head-only "
        "file, or another quantization of the same model.",
    )
    parser.set_defaults(run=files.run_graft_head)
    parser.add_argument("file", metavar="FILE", help="the model without a draft head; of one in parts, the first part")
    parser.add_argument("head", metavar="HEAD", help="the file with the draft head")
    parser.add_argument("out", metavar="OUT", help="the file to write")
    return parser
