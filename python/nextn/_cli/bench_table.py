"""The table of nextn bench and nextn bench report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nextn._cli import bench
from nextn._cli.parser import Commands, Parser, number, text, whole
from nextn.options import DraftParams

AddOptions = Callable[[Parser], None]


def add_bench(commands: Commands[Parser], add_shared: Sequence[AddOptions], add_output: AddOptions) -> None:
    """Table of nextn bench; the functions add options that other commands have as well."""
    parser = commands.add_parser(
        "bench",
        help="measure speed and acceptance, with intervals and a receipt",
        description="Run a suite of prompts plainly and with drafts of several lengths, in turn, and write everything "
        "that was measured into a receipt, from which reports are made (nextn bench report). Needs nextn[bench].",
    )
    parser.set_defaults(run=bench.run)
    kinds = parser.add_subparsers(
        dest="what", metavar="[report]", parser_class=Parser, help="report: make a report of receipts"
    )
    add_output(_add_report(kinds))
    group = parser.add_argument_group("what is run")
    group.add_argument("-o", "--output", default="receipt.json", metavar="FILE", help="receipt (default: %(default)s)")
    group.add_argument("--resume", action="store_true", help="go on with the receipt that is there")
    group.add_argument("--suite", metavar="FILE", help="prompts as JSON lines (default: 50 that come with nextn)")
    group.add_argument("--prompts", type=whole(1), metavar="N", help="only so many prompts, of each topic alike")
    group.add_argument(
        "--topic", action="append", default=[], metavar="T", help="only prompts of this topic; repeatable"
    )
    group.add_argument(
        "--k", type=bench.lengths, metavar="K", help="fixed draft lengths: 1-8, 1,2,4, none (default: 4)"
    )
    group.add_argument(
        "--draft-max",
        type=whole(1, 16),
        metavar="K",
        help=f"bound of the adaptive length (default: {DraftParams().n_max})",
    )
    group.add_argument("--no-adaptive", dest="adaptive", action="store_false", help="leave the adaptive arm out")
    group.add_argument(
        "--no-control",
        dest="control",
        action="store_false",
        help="leave out the control: plain decoding against itself",
    )
    group.add_argument(
        "--draft-p-min", type=number(0, 1), metavar="P", help="fixed lengths: end a draft where the head is less sure"
    )
    group.add_argument(
        "--draft-vocab", type=text, metavar="V", help="tokens that the head scores, as for nextn generate"
    )
    group.add_argument(
        "-n",
        "--n-predict",
        type=whole(2),
        default=128,
        metavar="N",
        help="most tokens of an answer (default: %(default)s)",
    )
    group.add_argument("--temp", type=number(0), default=0.0, metavar="T", help="temperature (default: 0, greedy)")
    group.add_argument("--seeds", type=bench.numbers, default=[1], metavar="S", help="seeds: 1-3 or 1,7 (default: 1)")
    group.add_argument(
        "--repeats", type=whole(1, 1000), default=1, metavar="N", help="runs of each prompt and seed (default: 1)"
    )
    group.add_argument("--raw", action="store_true", help="also without the chat template")
    group.add_argument(
        "--contexts", type=bench.numbers, default=[], metavar="N", help="also after conversations of N tokens: 256,1024"
    )
    group.add_argument(
        "--sweep-prompts",
        type=whole(1),
        default=12,
        metavar="N",
        help="prompts for --raw and --contexts (default: %(default)s)",
    )
    group.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="URL",
        help="measure a llama-server; NAME=URL, repeated, compares servers",
    )
    for add in add_shared:
        add(parser)


def _add_report(kinds: Commands[Parser]) -> Parser:
    """Table of nextn bench report."""
    parser = kinds.add_parser(
        "report",
        help="make a report of receipts",
        description="Compute every figure again from the rows of one or several receipts, and print a report.",
    )
    parser.set_defaults(run=bench.report)
    parser.add_argument("receipts", nargs="+", metavar="RECEIPT", help="receipts of nextn bench; several are compared")
    parser.add_argument("--html", metavar="FILE", help="write one HTML page with plots")
    parser.add_argument("--markdown", metavar="FILE", help="write Markdown, and plots into a folder beside it")
    return parser
