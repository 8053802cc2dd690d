"""nextn quantize, quantize-matrix, imatrix."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from nextn._cli.models import load_model
from nextn._cli.parser import UsageError
from nextn._cli.talk import Progress, say
from nextn.gguf.report import format_size
from nextn.quantize import Plan, make_plan, run_plan, write_imatrix
from nextn.quantize.collect import collect
from nextn.quantize.matrix import PROMPTS, Row, format_matrix, make_matrix


def run_quantize(args: argparse.Namespace) -> None:
    """Show the plan, and carry it out unless that is all."""
    given = [_read_pair(pair) for pair in args.tensor_type]
    plan = make_plan(args.file, args.type, recipe=args.recipe, tensor_types=given)
    if args.dry_run:
        print(json.dumps(_plan_as_json(plan)) if args.json else _format_plan(plan))
        return
    with Progress("quantizing") as progress:
        run_plan(
            plan,
            args.out,
            imatrix=args.imatrix,
            allow_requantize=args.allow_requantize,
            n_threads=args.threads,
            progress=progress,
        )
    size = Path(args.out).stat().st_size
    if args.json:
        print(json.dumps({**_plan_as_json(plan), "out": args.out, "file_size": size}))
    else:
        print(f"{args.out}: {format_size(size)}, {plan.bits_per_weight:.2f} bits per weight")


def run_matrix(args: argparse.Namespace) -> None:
    """Make the files and print the table."""
    text = _read_text(args.text)
    prompts = [line for line in _read_text(args.prompts).splitlines() if line.strip()] if args.prompts else PROMPTS
    with ExitStack() as shown:
        rows = make_matrix(
            args.file,
            args.folder,
            args.types,
            args.recipe or ["base", "combined"],
            text,
            prompts=prompts,
            imatrix=args.imatrix,
            allow_requantize=args.allow_requantize,
            n_ctx=args.ctx_size,
            n_draft=args.draft_max,
            n_threads=args.threads,
            on_step=_announce(shown),
        )
    print(json.dumps([_row_as_json(row) for row in rows]) if args.json else format_matrix(rows))


def run_imatrix(args: argparse.Namespace) -> None:
    """Make an importance matrix."""
    text = _read_text(args.text)
    with load_model(args.file) as model, Progress("reading") as progress:
        if not model.has_nextn_layer:
            say("the model has no draft head: the matrix covers the trunk alone")
        matrix = collect(
            model,
            text,
            dataset=Path(args.text).name,
            n_ctx=args.ctx_size,
            max_chunks=args.chunks,
            n_threads=args.threads,
            progress=progress,
        )
    write_imatrix(args.out, matrix)
    facts = {"out": args.out, "entries": len(matrix.entries), "chunks": matrix.n_chunk, "chunk_size": matrix.chunk_size}
    if args.json:
        print(json.dumps(facts))
    else:
        print(f"{args.out}: {len(matrix.entries)} weights, {matrix.n_chunk} chunks of {matrix.chunk_size} tokens")


def _announce(shown: ExitStack) -> Callable[[str], Progress]:
    """Each step on a line of its own, with its progress."""

    def announce(step: str) -> Progress:
        shown.close()
        say(step)
        return shown.enter_context(Progress(step))

    return announce


def _read_pair(given: str) -> tuple[str, str]:
    """PATTERN=TYPE as two texts."""
    pattern, equals, kind = given.rpartition("=")
    if not equals or not pattern or not kind:
        raise UsageError(f"--tensor-type takes PATTERN=TYPE, not {given!a}")
    return pattern, kind


def _read_text(path: str) -> str:
    """A text file."""
    try:
        return Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text (byte {error.start})") from None


def _plan_as_json(plan: Plan) -> dict[str, Any]:
    """Everything that is decided."""
    tensors = [
        {"name": t.name, "shape": t.shape, "from": t.source.name, "to": t.target.name, "size": t.new_size}
        for t in plan.tensors
    ]
    return {
        "type": plan.file_type,
        "recipe": plan.recipe.name,
        "size": plan.size,
        "new_size": plan.new_size,
        "bits_per_weight": plan.bits_per_weight,
        "needs_imatrix": plan.needs_imatrix,
        "requantized": plan.requantized,
        "tensors": tensors,
    }


def _format_plan(plan: Plan) -> str:
    """One line per tensor, then the sums."""
    width = max(len(tensor.name) for tensor in plan.tensors)
    lines = []
    for tensor in plan.tensors:
        name = "".join(c if c.isprintable() else "?" for c in tensor.name)
        types = (
            tensor.source.name if tensor.source is tensor.target else f"{tensor.source.name} -> {tensor.target.name}"
        )
        sizes = f"{format_size(tensor.size):>9} -> {format_size(tensor.new_size):>9}"
        lines.append(f"  {name:<{width}}  {types:<16}{sizes}")
    lines.append(f"{plan.file_type}, recipe {plan.recipe.name}: {plan.recipe.description}")
    lines.append(
        f"tensors {format_size(plan.size)} -> {format_size(plan.new_size)}, {plan.bits_per_weight:.2f} bits per weight"
    )
    if plan.needs_imatrix:
        lines.append(f"{len(plan.needs_imatrix)} tensors need an importance matrix (--imatrix)")
    if plan.requantized:
        lines.append(f"{len(plan.requantized)} tensors are quantized already (--allow-requantize)")
    return "\n".join(lines)


def _row_as_json(row: Row) -> dict[str, Any]:
    """One file of a matrix."""
    drafting = row.drafting
    return {
        "name": row.name,
        "path": row.path,
        "size": row.size,
        "perplexity": row.perplexity,
        "draft_n": drafting and drafting.draft_n,
        "draft_n_accepted": drafting and drafting.draft_n_accepted,
        "tokens_per_second": drafting and drafting.tokens_per_second,
    }
