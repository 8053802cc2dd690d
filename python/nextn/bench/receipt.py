"""Receipts: one JSON file with everything that a benchmark measured, from which every figure can be computed again.

A name that ends with .gz means the same, compressed: a tenth of the size, as rows resemble each other.

The schema is data/receipt.schema.json; a receipt is checked against it when it is written and when it is read.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

from nextn.bench.machine import machine_facts, version_facts
from nextn.bench.plan import Arm, BenchOptions, Block
from nextn.bench.suite import DATA, Suite
from nextn.errors import NextnError
from nextn.gguf.atomic import new_file

__all__ = ["FORMAT", "Receipt", "ReceiptError", "load_receipt", "new_receipt", "now", "save_receipt"]

FORMAT = "nextn-bench-receipt/1"

_GZIP = b"\x1f\x8b"
_MOST_BYTES = 1 << 30  # of a compressed receipt; millions of rows

Receipt = dict[str, Any]
"""A receipt as JSON knows it."""

_MUST_AGREE = ("options", "arms", "suite", "model", "draft_model", "engine", "server", "context", "machine")


class ReceiptError(NextnError):
    """A file is no receipt, or not one of this run."""


def new_receipt(facts: dict[str, Any], suite: Suite, arms: Sequence[Arm], options: BenchOptions) -> Receipt:
    """A receipt without rows.

    Args:
        facts: What the runner describes itself by.
        suite: The prompts; they go into the receipt.
        arms: The arms.
        options: The options.
    """
    prompts = [asdict(prompt) for prompt in suite.prompts]
    return {
        "format": FORMAT,
        "finished": False,
        **facts,
        "machine": machine_facts(),
        "versions": version_facts(),
        "options": options.to_dict(),
        "arms": [asdict(arm) for arm in arms],
        "suite": {"name": suite.name, "sha256": suite.sha256, "prompts": prompts},
        "sessions": [],
        "rows": [],
    }


def save_receipt(path: str | os.PathLike[str], receipt: Receipt) -> None:
    """Write a receipt, whole or not at all.

    Raises:
        ReceiptError: The receipt does not follow the schema.
        OSError: It cannot be written.
    """
    check_receipt(receipt, str(path))
    data = _dump(receipt).encode()
    if os.fspath(path).endswith(".gz"):
        data = gzip.compress(data, mtime=0)  # without the time: the same receipt gives the same bytes
    with new_file(path) as part:
        part.write_bytes(data)


def load_receipt(path: str | os.PathLike[str]) -> Receipt:
    """Read a receipt.

    Raises:
        ReceiptError: The file is none; says what is wrong with it.
        OSError: It cannot be read.
    """
    data = Path(path).read_bytes()
    try:
        if data.startswith(_GZIP):
            data = _unpack(data)
        receipt = json.loads(data)
    except (ValueError, RecursionError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ReceiptError(f"{path} is no receipt of nextn bench: no JSON ({error})") from None
    check_receipt(receipt, str(path))
    return dict(receipt)


def check_receipt(receipt: object, name: str) -> None:
    """Refuse what does not follow the schema.

    Raises:
        ReceiptError: Names the first place that differs.
    """
    if not isinstance(receipt, dict) or receipt.get("format") != FORMAT:
        found = receipt.get("format") if isinstance(receipt, dict) else None
        raise ReceiptError(f"{name} is no receipt of nextn bench: its format is {found!r}, not {FORMAT!r}")
    error = next(_validator().iter_errors(receipt), None)
    if error is not None:
        place = "/".join(str(step) for step in error.absolute_path) or "the receipt"
        raise ReceiptError(f"{name} is a damaged receipt: {place}: {error.message[:200]}")
    prompts = {prompt["id"] for prompt in receipt["suite"]["prompts"]}
    arms = {arm["name"] for arm in receipt["arms"]}
    for i, row in enumerate(receipt["rows"]):
        if row["prompt"] not in prompts or row["arm"] not in arms:
            raise ReceiptError(f"{name} is a damaged receipt: rows/{i} names a prompt or an arm that it does not list")


def check_same_run(old: Receipt, new: Receipt, name: str) -> None:
    """Refuse to continue a receipt with another model, engine, machine or plan.

    Raises:
        ReceiptError: Names what differs.
    """
    for part in _MUST_AGREE:
        if old[part] != new[part]:
            raise ReceiptError(
                f"{name} cannot be continued: {_difference(part, old[part], new[part])}; a new file takes new rows"
            )


def drop_unfinished_blocks(receipt: Receipt, blocks: Sequence[Block]) -> set[tuple[Any, ...]]:
    """Take out the rows of blocks that not all arms have run, for arms are compared within a block.

    Returns:
        The keys of the blocks that are done.
    """
    n_rows: dict[tuple[Any, ...], int] = {}
    for row in receipt["rows"]:
        n_rows[block_key(row)] = n_rows.get(block_key(row), 0) + 1
    done = {block.key for block in blocks if n_rows.get(block.key) == len(block.arms)}
    receipt["rows"] = [row for row in receipt["rows"] if block_key(row) in done]
    return done


def block_key(row: dict[str, Any]) -> tuple[Any, ...]:
    """The block that a row belongs to."""
    return (row["prompt"], row["seed"], row["repeat"], row["mode"], row["n_context"])


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@cache
def _validator() -> Any:
    """The schema's validator."""
    from jsonschema import Draft202012Validator

    return Draft202012Validator(json.loads((DATA / "receipt.schema.json").read_text(encoding="utf-8")))


def _unpack(data: bytes) -> bytes:
    """What was compressed, if it is not absurdly long."""
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        unpacked = file.read(_MOST_BYTES)
        if file.read(1):
            raise ValueError(f"it unpacks to more than {_MOST_BYTES >> 20} MiB")
    return unpacked


def _dump(receipt: Receipt) -> str:
    """JSON with one line per row, so that two receipts can be compared by eye and by diff."""
    rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in receipt["rows"])
    rest = json.dumps({**receipt, "rows": []}, ensure_ascii=False, indent=1)
    assert rest.endswith('"rows": []\n}')  # the last key
    return f"{rest[: -len('[]' + chr(10) + '}')]}[\n{rows}\n ]\n}}\n"


def _difference(part: str, old: Any, new: Any) -> str:
    """The first entry that differs, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                return _difference(f"{part}.{key}", old.get(key), new.get(key))
    return f"its {part} is {_short(old)}, now it is {_short(new)}"


def _short(value: Any) -> str:
    """A value for a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
