"""nextn inspect: what is in a model file."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from nextn._cli.talk import say
from nextn.bundled import bundled_model
from nextn.gguf import format_inspection, inspect
from nextn.gguf.memory import MemoryEstimate, estimate_memory
from nextn.gguf.report import format_size
from nextn.options import DraftParams


def run(args: argparse.Namespace) -> None:
    """Print the description of the file."""
    path = args.file
    if path is None:
        path = bundled_model()
        say("no FILE: this is the small demo model that comes with nextn")
    found = inspect(path)
    memory = None
    if args.ctx_size is not None:
        memory = estimate_memory(
            path,
            args.ctx_size or found.n_ctx_train or 0,
            DraftParams().n_max,
            type_k=args.cache_type_k,
            type_v=args.cache_type_v,
        )
    if args.json:
        extra = (
            {} if memory is None else {"memory": {**asdict(memory), "plain": memory.plain, "drafting": memory.drafting}}
        )
        print(json.dumps({**asdict(found), **extra}, ensure_ascii=False))
    else:
        print(format_inspection(found) + ("" if memory is None else "\n\n" + _format_memory(memory)))


def _format_memory(memory: MemoryEstimate) -> str:
    """What it will take, in three lines."""
    kinds = dict.fromkeys((memory.type_k, memory.type_v))  # one name when both are the same
    cache = " and ".join(kind.upper() for kind in kinds)
    rows = (
        (
            "plain",
            memory.plain,
            (("weights", memory.weights), (f"KV cache ({cache})", memory.kv_cache), ("states", memory.states)),
        ),
        (
            f"drafts of {memory.n_draft}",
            memory.drafting,
            (
                ("states to roll back to", memory.draft_states),
                ("the head's KV cache", memory.draft_kv_cache),
                ("its shortlist", memory.draft_shortlist),
            ),
        ),
    )
    lines = [f"  memory at {memory.n_ctx:,} tokens, without the engine's work space"]
    for i, (label, total, parts) in enumerate(rows):
        shown = ", ".join(f"{name} {format_size(size)}" for name, size in parts)
        lines.append(f"  {label:<14}{format_size(total):>9}  {'and ' if i else ''}{shown}")
    return "\n".join(lines)
