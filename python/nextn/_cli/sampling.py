"""The options of one generation: their table, and what they become."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from typing import Any, cast

from nextn._cli.parser import Parser, UsageError, number, text, whole
from nextn.options import ChatOptions, GenerateOptions

# Option, type, name in Python, what the default does, help. Names and order are llama.cpp's.
_STEPS: tuple[tuple[str, Callable[[str], Any], str, str], ...] = (
    ("--top-k", whole(0), "top_k", "keep the N most probable tokens; 0 keeps all"),
    ("--typical", number(0, 1), "typical_p", "keep the tokens nearest to the typical surprise, N of the probability"),
    ("--top-p", number(0, 1), "top_p", "keep the most probable tokens that have N of the probability together"),
    ("--min-p", number(0, 1), "min_p", "keep tokens with at least N times the most probable one's probability"),
    ("--repeat-penalty", number(0.001, 1000), "repeat_penalty", "divide the logits of tokens that were there by N"),
    ("--frequency-penalty", number(-1000, 1000), "frequency_penalty", "subtract N for each time a token was there"),
    ("--presence-penalty", number(-1000, 1000), "presence_penalty", "subtract N once if a token was there"),
    ("--repeat-last-n", whole(0, also=-1), "repeat_last_n", "how many tokens back penalties look; -1: all"),
)


def add_sampling(parser: Parser, *, n_predict: int) -> None:
    """Table: how long, and how tokens are chosen."""
    group = parser.add_argument_group("sampling")
    shown = "until the end of the answer or of the context" if n_predict < 0 else str(n_predict)
    group.add_argument("-n", "--n-predict", type=whole(1, also=-1), default=n_predict, metavar="N",
                       help=f"most tokens to generate, -1 for no limit (default: {shown})")  # fmt: skip
    group.add_argument("--temp", type=number(0), default=0.0, metavar="T",
                       help="temperature; 0 takes the likeliest token (default: 0)")  # fmt: skip
    group.add_argument("-s", "--seed", type=whole(0, 2**64 - 1, also=-1), default=-1, metavar="N",
                       help="seed for --temp (default: random)")  # fmt: skip
    for option, kind, name, help_text in _STEPS:
        group.add_argument(option, dest=name, type=kind, metavar="N", help=help_text)
    group.add_argument("-l", "--logit-bias", action="append", type=_bias, default=[], metavar="ID(+|-)BIAS",
                       help="add to a token's logit, for example 15043+1 or 15043-1; ID-inf bans it")  # fmt: skip
    group.add_argument("--grammar", type=text, metavar="GBNF", help="the text must conform to this grammar")
    group.add_argument("--grammar-file", metavar="FILE", help="the same, from a file")
    group.add_argument("-j", "--json-schema", type=_object, metavar="SCHEMA",
                       help="the text must be JSON that fits this schema; {} takes any JSON")  # fmt: skip
    group.add_argument("--accept", choices=("auto", "ratio", "match"), metavar="RULE",
                       help="how drafts are accepted with --temp: ratio draws drafts where that pays, match gives the "
                       "text that comes without drafts (default: auto, which is ratio, or match under a "
                       "grammar)")  # fmt: skip
    group.add_argument("--ignore-eos", action="store_true", help="go on behind the end of the answer")
    group.add_argument("--stop", action="append", type=text, default=[], metavar="TEXT",
                       help="end before this text; may be repeated")  # fmt: skip


def add_template(parser: Parser) -> None:
    """Table: how a conversation becomes a prompt."""
    group = parser.add_argument_group("chat template")
    group.add_argument("--chat-template-file", metavar="FILE", help="template (Jinja) to use instead of the model's")
    group.add_argument("--chat-template-kwargs", type=_object, default=None, metavar="JSON",
                       help="""variables for the template, for example '{"enable_thinking": false}'""")  # fmt: skip


def generation_options(args: argparse.Namespace) -> GenerateOptions:
    """What the options become, without what was left as it is."""
    options: dict[str, Any] = {
        "max_tokens": None if args.n_predict < 0 else args.n_predict,
        "temperature": args.temp,
        "seed": None if args.seed < 0 else args.seed,
        "stop": args.stop,
    }
    for name in (*(name for _, _, name, _ in _STEPS), "json_schema", "accept"):
        if getattr(args, name) is not None:
            options[name] = getattr(args, name)
    if args.logit_bias:
        options["logit_bias"] = dict(args.logit_bias)
    if args.ignore_eos:
        options["ignore_eos"] = True
    grammar = _read_grammar(args)
    if grammar is not None:
        options["grammar"] = grammar
    return cast(GenerateOptions, options)


def chat_options(args: argparse.Namespace) -> ChatOptions:
    """The same for a conversation."""
    options = cast(ChatOptions, generation_options(args))
    if args.chat_template_kwargs is not None:
        options["chat_template_kwargs"] = args.chat_template_kwargs
    return options


def _read_grammar(args: argparse.Namespace) -> str | None:
    """The grammar from its option or its file; it excludes a schema."""
    given = [name for name in ("grammar", "grammar_file", "json_schema") if getattr(args, name) is not None]
    if len(given) > 1:
        names = " and ".join("--" + name.replace("_", "-") for name in given)
        raise UsageError(f"{names} exclude each other")
    if args.grammar_file is None:
        return args.grammar  # type: ignore[no-any-return]
    with open(args.grammar_file, encoding="utf-8") as file:
        return file.read()


def _bias(given: str) -> tuple[int, float | bool]:
    """Type of --logit-bias."""
    match = re.fullmatch(r"(\d{1,9})([+-])(inf|\d+(?:\.\d+)?)", given)
    if match is None or match[2] + match[3] == "+inf":
        raise argparse.ArgumentTypeError(f"must be a token id, + or -, and a number, as in 15043-1, not {given!a}")
    return int(match[1]), False if match[3] == "inf" else float(match[2] + match[3])


def _object(given: str) -> dict[str, Any]:
    """Type of an option that takes a JSON object."""
    try:
        value = json.loads(given)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object, not {given!a}")
    return value
