"""The tables of the command line: commands, options, help. What a command does is in nextn/_cli, one file each."""

from __future__ import annotations

from collections.abc import Sequence

from nextn._cli import chat, demo, doctor, generate, inspect, serve
from nextn._cli.bench_table import add_bench
from nextn._cli.file_tables import add_file_commands
from nextn._cli.parser import (
    FLASH_ATTENTION,
    Commands,
    Parser,
    ShowVersion,
    add_cache_types,
    add_threads,
    commas,
    number,
    text,
    whole,
)
from nextn._cli.run import run
from nextn._cli.sampling import add_sampling, add_template
from nextn.options import DraftParams

__all__ = ["build_parser", "main"]

_DRAFT = DraftParams()


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: The arguments after the program's name; None takes those of the process.

    Returns:
        The exit code: 0, 1 for an error, 2 for wrong usage, 130 for an interrupt, 141 for a closed pipe; for nextn
        verify 1 and 2 say what is wrong with the file.
    """
    return run(build_parser(), argv)


def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="nextn",
        description="Run GGUF models with speculation by their own NextN (MTP) draft head.",
        epilog="nextn COMMAND --help lists the options of a command.",
    )
    parser.add_argument("--version", action=ShowVersion, help="print version, engine and source stamp")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    _add_generate(commands)
    _add_chat(commands)
    _add_serve(commands)
    _add_inspect(commands)
    _add_demo(commands)
    _add_doctor(commands)
    add_file_commands(commands, _add_output)
    add_bench(commands, (_add_model, _add_context, _add_output), _add_output)
    return parser


def _add_generate(commands: Commands[Parser]) -> None:
    """Table of nextn generate."""
    parser = commands.add_parser(
        "generate",
        help="answer a prompt, or continue a text",
        description="Answer a prompt through the model's chat template, or continue a text (--raw). "
        "The text goes to standard output, everything else to standard error.",
    )
    parser.set_defaults(run=generate.run)
    parser.add_argument("prompt", nargs="?", type=text, metavar="PROMPT", help="the prompt; - reads standard input")
    parser.add_argument("-f", "--file", metavar="FILE", help="read the prompt from a file")
    parser.add_argument("-sys", "--system-prompt", type=text, metavar="TEXT", help="system message before the prompt")
    parser.add_argument("--raw", action="store_true", help="continue the text as it is, without the chat template")
    _add_model(parser)
    _add_rpc(parser)
    _add_drafting(parser)
    add_sampling(parser, n_predict=-1)
    add_template(parser)
    _add_context(parser)
    _add_output(parser)


def _add_chat(commands: Commands[Parser]) -> None:
    """Table of nextn chat."""
    parser = commands.add_parser(
        "chat",
        help="talk at the terminal",
        description="Talk with a model: a line is a message, /help lists the commands. When standard input is no "
        "terminal, each of its lines is answered.",
    )
    parser.set_defaults(run=chat.run)
    parser.add_argument("-sys", "--system-prompt", type=text, metavar="TEXT", help="system message before everything")
    parser.add_argument(
        "--show-stats",
        action="store_true",
        help="show acceptance and speed while an answer comes, and after it (also: /stats)",
    )
    parser.add_argument(
        "--show-accepted", action="store_true", help="show accepted drafted tokens in green, on a terminal"
    )
    _add_model(parser)
    _add_rpc(parser)
    _add_drafting(parser)
    add_sampling(parser, n_predict=-1)
    add_template(parser)
    _add_context(parser)
    _add_output(parser)


def _add_serve(commands: Commands[Parser]) -> None:
    """Table of nextn serve."""
    parser = commands.add_parser(
        "serve",
        help="serve a model with OpenAI's API",
        description="Start the patched llama-server, which drafts with the model's own head, and stop it in order at "
        "Ctrl-C or SIGTERM. -v shows its log.",
    )
    parser.set_defaults(run=serve.run)
    parser.add_argument("extra", nargs="*", metavar="-- ARGS", help="further arguments of llama-server")
    group = parser.add_argument_group("server")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    group.add_argument(
        "--port", type=whole(0, 65535), default=8080, metavar="N", help="0 takes a free one (default: %(default)s)"
    )
    group.add_argument(
        "--api-key", metavar="KEY", help="key that clients must send; better set LLAMA_API_KEY: arguments are public"
    )
    group.add_argument(
        "-np", "--parallel", type=whole(1, 256), default=1, metavar="N", help="requests at a time (default: 1)"
    )
    group.add_argument(
        "--timeout", type=number(1), default=600.0, metavar="S", help="longest wait for the model to load in seconds"
    )
    group.add_argument(
        "--grace", type=number(0), default=10.0, metavar="S", help="at the end, longest wait for running requests"
    )
    _add_model(parser)
    _add_rpc(parser)
    _add_drafting(parser)
    group = parser.add_argument_group("context")
    group.add_argument("-c", "--ctx-size", type=whole(0), metavar="N", help="tokens that fit in each request")
    add_threads(group)
    _add_output(parser)


def _add_inspect(commands: Commands[Parser]) -> None:
    """Table of nextn inspect."""
    parser = commands.add_parser(
        "inspect",
        help="say what is in a model file",
        description="Say what is in a GGUF file: architecture, layers, draft head, sizes and types of the parts, "
        "tokenizer. Reads the header only; of a model in parts, any part may be named.",
    )
    parser.set_defaults(run=inspect.run)
    parser.add_argument("file", nargs="?", metavar="FILE", help="the GGUF file (default: the bundled demo model)")
    parser.add_argument(
        "-c", "--ctx-size", type=whole(0), metavar="N", help="also estimate the memory for N tokens; 0: as trained"
    )
    add_cache_types(parser)
    _add_output(parser)


def _add_demo(commands: Commands[Parser]) -> None:
    """Table of nextn demo."""
    parser = commands.add_parser(
        "demo",
        help="run prompts plain and speculative, and compare",
        description="Run each prompt plain and speculative, check that both texts are the same, and print both "
        "statistics side by side: medians of several runs in turn, after one to warm up.",
    )
    parser.set_defaults(run=demo.run)
    parser.add_argument("prompts", nargs="*", type=text, metavar="PROMPT", help="one or more prompts (default: one)")
    parser.add_argument(
        "--repeats", type=whole(1, 1000), default=5, metavar="N", help="timed runs of each kind (default: %(default)s)"
    )
    _add_model(parser)
    _add_drafting(parser, may_be_off=False)
    add_sampling(parser, n_predict=128)
    _add_context(parser)
    _add_output(parser)


def _add_doctor(commands: Commands[Parser]) -> None:
    """Table of nextn doctor."""
    parser = commands.add_parser(
        "doctor",
        help="say what was built, what a file is, and what would make it faster",
        description="Say what was built (backends, CPU features, llama.cpp's commit), what this machine is, what a "
        "model file holds, and what would make it faster. Nothing is loaded.",
    )
    parser.set_defaults(run=doctor.run)
    _add_model(parser)
    _add_output(parser)


def _add_model(parser: Parser) -> None:
    """Which model, and how it is loaded."""
    group = parser.add_argument_group("model")
    group.add_argument("-m", "--model", metavar="FILE", help="GGUF file (default: the bundled demo model)")
    group.add_argument(
        "-hf",
        "--hf-repo",
        type=text,
        metavar="USER/REPO[:QUANT]",
        help="fetch the model from a Hugging Face hub, once (default: Q4_K_M, or the only model there)",
    )
    group.add_argument("-hff", "--hf-file", type=text, metavar="FILE", help="with -hf: the file, or a glob, to fetch")
    group.add_argument("-md", "--model-draft", metavar="FILE", help="file with the draft head, if the model has none")
    group.add_argument(
        "-ngl",
        "--n-gpu-layers",
        type=whole(0, also=-1),
        default=-1,
        metavar="N",
        help="layers on the GPU (default: -1, all)",
    )
    group.add_argument("--no-mmap", action="store_true", help="read the file instead of mapping it")
    group.add_argument("--mlock", action="store_true", help="keep the model from being swapped out")


def _add_rpc(parser: Parser) -> None:
    """Workers on other machines."""
    parser.add_argument_group("other machines").add_argument(
        "--rpc",
        type=commas,
        metavar="HOST:PORT,...",
        help="run layers on these workers (ggml-rpc-server). There is no authentication: trusted networks only",
    )


def _add_drafting(parser: Parser, *, may_be_off: bool = True) -> None:
    """How the head drafts."""
    group = parser.add_argument_group("drafting")
    if may_be_off:
        group.add_argument("--no-draft", action="store_true", help="decode plainly, one token at a time")
    group.add_argument(
        "--draft-max", type=whole(0), metavar="K", help=f"longest draft in tokens (default: {_DRAFT.n_max})"
    )
    group.add_argument(
        "--draft-p-min",
        type=number(0, 1),
        metavar="P",
        help=f"stop a draft where the head is less sure than this (default: {_DRAFT.p_min:g})",
    )
    group.add_argument(
        "--no-adaptive",
        action="store_true",
        help="draft as long as --draft-max and --draft-p-min say, not as long as it pays by measured costs",
    )
    group.add_argument(
        "--draft-min",
        type=whole(0),
        metavar="K",
        help=f"with --no-adaptive: throw shorter drafts away (default: {_DRAFT.n_min})",
    )
    group.add_argument(
        "--draft-vocab",
        type=text,
        metavar="V",
        help="tokens that the head scores: auto, full, the first V ids, or a file with one id per line "
        f"(default: {_DRAFT.vocab})",
    )
    group.add_argument(
        "--exact", action="store_true", help="stop where speculation could differ in one bit from plain decoding"
    )


def _add_context(parser: Parser) -> None:
    """Sizes, threads, caches."""
    group = parser.add_argument_group("context")
    group.add_argument(
        "-c",
        "--ctx-size",
        type=whole(0),
        metavar="N",
        help="tokens that fit, prompt and answer together; 0: as the model was trained (default: that, at most 8192)",
    )
    group.add_argument(
        "-b",
        "--batch-size",
        type=whole(1),
        default=2048,
        metavar="N",
        help="tokens per prompt decode (default: %(default)s)",
    )
    group.add_argument(
        "-ub",
        "--ubatch-size",
        type=whole(1),
        default=512,
        metavar="N",
        help="tokens computed at once (default: %(default)s)",
    )
    add_threads(group)
    group.add_argument(
        "-tb", "--threads-batch", type=whole(1, 512), metavar="N", help="threads for more than one token"
    )
    group.add_argument("-fa", "--flash-attn", choices=FLASH_ATTENTION, default="auto", help="flash attention")
    add_cache_types(group)


def _add_output(parser: Parser) -> None:
    """What is printed."""
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print one JSON object")
    group.add_argument("-v", "--verbose", action="store_true", help="show the engine's log on standard error")
    group.add_argument("--debug", action="store_true", help="show the traceback of an error (or set NEXTN_DEBUG=1)")
