"""Running a benchmark: warm up, run the blocks, keep a valid receipt at every moment."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nextn.bench.machine import load_average
from nextn.bench.plan import Arm, BenchOptions, Block, make_blocks
from nextn.bench.receipt import (
    Receipt,
    check_same_run,
    drop_unfinished_blocks,
    load_receipt,
    new_receipt,
    now,
    save_receipt,
)
from nextn.bench.runner import Request, Runner
from nextn.bench.suite import Message, Suite, with_history

__all__ = ["Progress", "run_bench"]

Progress = Callable[[int, int], None]
"""Called after each row with the rows that are done and the rows in all."""

_SECONDS_BETWEEN_SAVES = 5.0


def run_bench(
    runner: Runner,
    suite: Suite,
    arms: Sequence[Arm],
    options: BenchOptions,
    path: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: Progress = lambda done, total: None,
) -> Receipt:
    """Run all blocks and write the receipt.

    Whatever ends it early, an interrupt or an error, the rows that are complete are in the file.

    Args:
        runner: What generates, made for these arms.
        suite: The prompts.
        arms: The arms; each block runs all of them.
        options: How often, how long, which sweeps.
        path: The receipt.
        resume: Continue the receipt that is there, if there is one.
        progress: Told about each row.

    Returns:
        The receipt.

    Raises:
        ReceiptError: With resume: the file is no receipt, or one of another model, engine, machine or plan.
        FileExistsError: Without resume: the file is there.
        NextnError: A generation failed.
    """
    blocks = make_blocks(suite, arms, options)
    receipt = new_receipt(runner.describe(), suite, arms, options)
    if Path(path).exists():
        if not resume:
            raise FileExistsError(17, "there is a file already; --resume continues it, or name another", str(path))
        old = load_receipt(path)
        check_same_run(old, receipt, str(path))
        receipt = old
    done = drop_unfinished_blocks(receipt, blocks)
    left = [block for block in blocks if block.key not in done]
    if left or not receipt["finished"]:
        _run_session(runner, receipt, left, options, path, progress)
    return receipt


def _run_session(
    runner: Runner,
    receipt: Receipt,
    blocks: Sequence[Block],
    options: BenchOptions,
    path: str | os.PathLike[str],
    progress: Progress,
) -> None:
    """Run what is left, and write the receipt now and then and at the end, whatever the end is."""
    rows = receipt["rows"]
    n_before, n_all = len(rows), len(rows) + sum(len(block.arms) for block in blocks)
    session = {"started": now(), "ended": now(), "n_rows": 0, "load_before": load_average(), "load_after": None}
    receipt["finished"] = False
    receipt["sessions"].append(session)

    def save() -> None:
        session.update(ended=now(), n_rows=len(rows) - n_before, load_after=load_average())
        save_receipt(path, receipt)

    save()  # a place that cannot be written is known before the hours, not after
    saved = time.monotonic()
    try:
        if blocks:
            _warm_up(runner, blocks[0], options)
        for block in blocks:
            request = _make_request(runner, block, options)
            for arm in block.arms:
                rows.append(_row(block, arm, runner.run(arm, request).to_dict()))
                progress(len(rows), n_all)
            if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                save()
                saved = time.monotonic()
        receipt["finished"] = True
    finally:
        save()


def _warm_up(runner: Runner, block: Block, options: BenchOptions) -> None:
    """Let every arm answer once before anything is kept: first pages of the file, first graphs, first estimates."""
    request = _make_request(runner, block, options)
    for arm in block.arms:
        runner.run(arm, request)


def _make_request(runner: Runner, block: Block, options: BenchOptions) -> Request:
    """What the arms of a block are asked."""
    text, messages = None, None
    if block.mode == "raw":
        text = block.prompt.prompt
    else:
        messages = make_messages(block, runner.count_tokens)
    return Request(
        messages=messages,
        text=text,
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        seed=block.seed,
        ignore_eos=block.mode == "raw",  # a model trained on chats ends a bare task at once, with nothing to measure
    )


def make_messages(block: Block, count_tokens: Callable[[list[Message]], int]) -> list[Message]:
    """The conversation of a block."""
    if block.n_context is not None:
        return with_history(block.prompt.prompt, block.n_context, count_tokens)
    return [{"role": "user", "content": block.prompt.prompt}]


def _row(block: Block, arm: Arm, measured: dict[str, Any]) -> dict[str, Any]:
    """A row of the receipt."""
    return {
        "arm": arm.name,
        "prompt": block.prompt.id,
        "seed": block.seed,
        "repeat": block.repeat,
        "mode": block.mode,
        "n_context": block.n_context,
        **measured,
    }
