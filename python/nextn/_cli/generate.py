"""nextn generate: one prompt, one answer."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from nextn._cli.models import (
    draft_if_possible,
    generation_options,
    messages_for,
    open_models,
    open_speculator,
    read_draft,
    read_prompt,
)
from nextn._cli.parser import UsageError
from nextn._cli.talk import say, summary
from nextn.speculator import Speculator
from nextn.stats import Chunk, FinishReason, Stats

Ending = tuple[Stats, FinishReason | None]


def run(args: argparse.Namespace) -> None:
    """Answer the prompt, or continue it."""
    if args.raw and args.system_prompt is not None:
        raise UsageError("--system-prompt belongs to a chat, --raw leaves the chat template out")
    draft, prompt = read_draft(args), read_prompt(args)
    with open_models(args) as (model, head):
        draft = draft_if_possible(draft, model, head)
        with open_speculator(model, head, draft, args) as speculator:
            show = _print_json if args.json else _print_stream
            stats, finish_reason = show(speculator, prompt, args)
    limit = None
    if finish_reason == "length":
        limit = "-n" if stats.completion_tokens == args.n_predict else "a full context (-c)"
    say(summary(stats, drafting=draft is not None, limit=limit))


def _print_json(speculator: Speculator, prompt: str, args: argparse.Namespace) -> Ending:
    """Print one object when everything is done."""
    options = generation_options(args)
    if args.raw:
        result = speculator.generate(prompt, **options)
    else:
        result = speculator.chat(messages_for(prompt, args.system_prompt), **options)
    print(json.dumps(result.to_dict(), ensure_ascii=False))
    return result.stats, result.finish_reason


def _print_stream(speculator: Speculator, prompt: str, args: argparse.Namespace) -> Ending:
    """Print the text as it comes, and a newline if it does not end with one."""
    chunk, last = None, ""
    try:
        for chunk in _stream(speculator, prompt, args):
            print(chunk.text, end="", flush=True)
            last = chunk.text[-1:] or last
    finally:
        if chunk is not None and last != "\n":
            print(flush=True)
    assert chunk is not None  # a stream has at least the chunk of the first token
    return chunk.stats, chunk.finish_reason


def _stream(speculator: Speculator, prompt: str, args: argparse.Namespace) -> Iterator[Chunk]:
    """The chunks of the answer or of the continued text."""
    options = generation_options(args)
    if args.raw:
        return speculator.stream(prompt, **options)
    return speculator.stream_chat(messages_for(prompt, args.system_prompt), **options)
