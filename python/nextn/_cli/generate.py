"""nextn generate: one prompt, one answer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from nextn._cli.models import (
    choose_draft,
    generation_options,
    messages_for,
    open_models,
    open_speculator,
    read_prompt,
)
from nextn._cli.parser import UsageError
from nextn._cli.talk import say, summary
from nextn.speculator import Speculator
from nextn.stats import Chunk, Stats


def run(args: argparse.Namespace) -> None:
    """Answer the prompt, or continue it."""
    if args.raw and args.system_prompt is not None:
        raise UsageError("--system-prompt belongs to a chat, --raw leaves the chat template out")
    prompt = read_prompt(args)
    with open_models(args) as (model, head):
        draft = choose_draft(args, model, head)
        with open_speculator(model, head, draft, args) as speculator:
            if args.json:
                stats = _print_json(speculator, prompt, args)
            else:
                stats = _print_stream(speculator, prompt, args)
    say(summary(stats, drafting=draft is not None))


def _print_json(speculator: Speculator, prompt: str, args: argparse.Namespace) -> Stats:
    """Print one object when everything is done."""
    options = generation_options(args)
    if args.raw:
        result = speculator.generate(prompt, **options)
    else:
        result = speculator.chat(messages_for(prompt, args.system_prompt), **options)
    print(json.dumps(result.to_dict(), ensure_ascii=False))
    return result.stats


def _print_stream(speculator: Speculator, prompt: str, args: argparse.Namespace) -> Stats:
    """Print the text as it comes, and a newline if it does not end with one."""
    stats, last = None, ""
    try:
        for chunk in _stream(speculator, prompt, args):
            print(chunk.text, end="", flush=True)
            stats, last = chunk.stats, chunk.text[-1:] or last
    finally:
        if last != "\n":
            print(flush=True)
    assert stats is not None  # a stream has at least the chunk of the first token
    return stats


def _stream(speculator: Speculator, prompt: str, args: argparse.Namespace) -> Iterator[Chunk]:
    """The chunks of the answer or of the continued text."""
    options = generation_options(args)
    if args.raw:
        return speculator.stream(prompt, **options)
    return speculator.stream_chat(messages_for(prompt, args.system_prompt), **options)
