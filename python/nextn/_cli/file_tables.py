"""The tables of the commands about files: verify, extract-head, graft-head, quantize, quantize-matrix, imatrix."""

from __future__ import annotations

from collections.abc import Callable

from nextn._cli import files, quantize
from nextn._cli.parser import Commands, Parser, add_threads, text, whole
from nextn.quantize import DEFAULT_RECIPE, recipe_names


def add_file_commands(commands: Commands[Parser], add_output: Callable[[Parser], None]) -> None:
    """Add them all; add_output adds the options that every command has."""
    for add in (_add_verify, _add_extract_head, _add_graft_head, _add_quantize, _add_matrix, _add_imatrix):
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


def _add_quantize(commands: Commands[Parser]) -> Parser:
    """Table of nextn quantize."""
    parser = commands.add_parser(
        "quantize",
        help="write a quantized model whose draft head stays good",
        description="Write a quantized copy of a model. A recipe keeps more bits where speculation needs them. "
        "The same file and options give the same bytes.",
    )
    parser.set_defaults(run=quantize.run_quantize)
    parser.add_argument("file", metavar="IN", help="the model, F32, F16 or BF16; of one in parts, the first part")
    parser.add_argument("out", metavar="OUT", help="the file to write")
    parser.add_argument("type", metavar="TYPE", help="type of the file, for example Q4_K_M")
    parser.add_argument(
        "--recipe",
        choices=recipe_names(),
        default=DEFAULT_RECIPE,
        help="which tensors keep more bits (default: %(default)s)",
    )
    parser.add_argument(
        "--tensor-type",
        action="append",
        type=text,
        default=[],
        metavar="PATTERN=TYPE",
        help="type of the tensors in whose names this regular expression is found; may be repeated, the first counts",
    )
    parser.add_argument("--dry-run", action="store_true", help="print types and sizes, write nothing")
    _add_quantizer(parser)
    return parser


def _add_matrix(commands: Commands[Parser]) -> Parser:
    """Table of nextn quantize-matrix."""
    parser = commands.add_parser(
        "quantize-matrix",
        help="make several quantizations and compare them",
        description="Quantize a model to several types with several recipes, and print a Markdown table with size, "
        "perplexity, acceptance of drafts, and speed of each. Measure speeds on an idle machine.",
    )
    parser.set_defaults(run=quantize.run_matrix)
    parser.add_argument("file", metavar="IN", help="the model, F32, F16 or BF16")
    parser.add_argument("folder", metavar="FOLDER", help="where the files go: NAME-TYPE-RECIPE.gguf")
    parser.add_argument("types", nargs="+", metavar="TYPE", help="types of the files")
    parser.add_argument("--text", required=True, metavar="FILE", help="text that the perplexity is measured on")
    parser.add_argument("--prompts", metavar="FILE", help="prompts to answer, one a line (default: eight short ones)")
    parser.add_argument(
        "--recipe", action="append", choices=recipe_names(), help="may be repeated (default: base and combined)"
    )
    parser.add_argument(
        "-c", "--ctx-size", type=whole(32), default=512, metavar="N", help="tokens per chunk of the text"
    )
    parser.add_argument(
        "--draft-max", type=whole(1), default=3, metavar="K", help="length of the drafts (default: %(default)s)"
    )
    _add_quantizer(parser)
    return parser


def _add_imatrix(commands: Commands[Parser]) -> Parser:
    """Table of nextn imatrix."""
    parser = commands.add_parser(
        "imatrix",
        help="make an importance matrix that covers the draft head",
        description="Let a model and its draft head read a text, and write for each weight the mean squares of what it "
        "was multiplied with, in llama.cpp's form.",
    )
    parser.set_defaults(run=quantize.run_imatrix)
    parser.add_argument("file", metavar="FILE", help="the model, best in F16 or F32")
    parser.add_argument("text", metavar="TEXT", help="file with text of the kind that the model will write")
    parser.add_argument("out", metavar="OUT", help="the file to write, for --imatrix")
    parser.add_argument(
        "-c", "--ctx-size", type=whole(16), default=512, metavar="N", help="tokens per chunk of the text"
    )
    parser.add_argument("--chunks", type=whole(1), metavar="N", help="most chunks to read (default: all)")
    add_threads(parser)
    return parser


def _add_quantizer(parser: Parser) -> None:
    """What every quantization takes."""
    parser.add_argument("--imatrix", metavar="FILE", help="importance matrix, as nextn imatrix makes it")
    parser.add_argument(
        "--allow-requantize", action="store_true", help="quantize tensors again that are quantized already"
    )
    add_threads(parser)
