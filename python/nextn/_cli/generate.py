"""nextn generate: one prompt, one answer."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from nextn._cli.models import (
    draft_if_possible,
    messages_for,
    open_models,
    open_speculator,
    read_draft,
    read_prompt,
)
from nextn._cli.parser import UsageError
from nextn._cli.sampling import chat_options, generation_options
from nextn._cli.talk import say, summary
from nextn.speculator import Speculator
from nextn.stats import Chunk, FinishReason, Stats

Ending = tuple[Stats, FinishReason | None]


def run(args: argparse.Namespace) -> None:
    """Answer the prompt, or continue it."""
    for name in ("system_prompt", "chat_template_file", "chat_template_kwargs"):
        if args.raw and getattr(args, name) is not None:
            raise UsageError(f"--{name.replace('_', '-')} belongs to a chat, --raw leaves the chat template out")
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
    if args.raw:
        result = speculator.generate(prompt, **generation_options(args))
    else:
        result = speculator.chat(messages_for(prompt, args.system_prompt), **chat_options(args))
    print(json.dumps(result.to_dict(), ensure_ascii=False))
    return result.stats, result.finish_reason


def _print_stream(speculator: Speculator, prompt: str, args: argparse.Namespace) -> Ending:
    """Print the text as it comes, and a newline if it does not end with one."""
    chunk, last = None, ""
    try:
        for chunk in _stream(speculator, prompt, args):
            if chunk.reasoning_content:
                print(chunk.reasoning_content, end="", file=sys.stderr, flush=True)
            print(chunk.text, end="", flush=True)
            last = chunk.text[-1:] or last
    finally:
        if chunk is not None and last != "\n":
            print(flush=True)
    assert chunk is not None  # a stream has at least the chunk of the first token
    return chunk.stats, chunk.finish_reason


def _stream(speculator: Speculator, prompt: str, args: argparse.Namespace) -> Iterator[Chunk]:
    """The chunks of the answer or of the continued text."""
    if args.raw:
        return speculator.stream(prompt, **generation_options(args))
    return speculator.stream_chat(messages_for(prompt, args.system_prompt), **chat_options(args))
