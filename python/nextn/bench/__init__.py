"""Benchmarks whose figures can be checked: prompts as data, arms in turn, receipts with every row, reports from rows.

suite.py has the prompts, plan.py the order, run.py the loop, statistics.py the intervals, summary.py the figures,
receipt.py the file, report.py and plots.py what people read. Needs the extra: pip install "nextn[bench]".
"""

from __future__ import annotations

from importlib.util import find_spec

from nextn.errors import MissingExtraError

_NEEDED = ("scipy", "matplotlib", "rich", "jsonschema", "jinja2", "httpx")
_missing = [name for name in _NEEDED if find_spec(name) is None]
if _missing:
    raise MissingExtraError("nextn bench", "bench", _missing)

from nextn.bench.local import LocalRunner  # noqa: E402
from nextn.bench.plan import Arm, BenchOptions, make_arms, make_blocks, make_server_arms  # noqa: E402
from nextn.bench.receipt import Receipt, ReceiptError, load_receipt, save_receipt  # noqa: E402
from nextn.bench.run import run_bench  # noqa: E402
from nextn.bench.suite import Prompt, Suite, load_suite  # noqa: E402
from nextn.bench.summary import Summary, summarise  # noqa: E402

__all__ = [
    "Arm",
    "BenchOptions",
    "LocalRunner",
    "Prompt",
    "Receipt",
    "ReceiptError",
    "Suite",
    "Summary",
    "load_receipt",
    "load_suite",
    "make_arms",
    "make_blocks",
    "make_server_arms",
    "run_bench",
    "save_receipt",
    "summarise",
]
