"""The process that quantizes: ``python -m nextn.quantize.worker`` reads one job from standard input, as JSON.

The engine may end it, a user may; and it ends when the process that started it does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

from nextn import _core
from nextn.errors import NextnError
from nextn.quantize.imatrix import read_imatrix


def _end_with_parent() -> None:
    """Standard input closes when the process at its other end is gone."""
    sys.stdin.buffer.read()
    os._exit(1)


def _run(job: dict[str, Any]) -> dict[str, Any]:
    """Quantize, and say how it went."""
    entries = read_imatrix(job["imatrix"]).entries if job["imatrix"] else {}
    try:
        _core.quantize(
            os.fsencode(job["path_in"]),
            os.fsencode(job["path_out"]),
            file_type=job["file_type"],
            n_threads=job["n_threads"],
            overrides=[(pattern, kind) for pattern, kind in job["overrides"]],
            imatrix={name: entry.importance() for name, entry in entries.items()},
            metadata=job["metadata"],
            allow_requantize=job["allow_requantize"],
        )
    except (NextnError, RuntimeError, ValueError) as error:
        return {"error": str(error)}
    return {}


if __name__ == "__main__":
    job = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    print(json.dumps(_run(job)), flush=True)
    os._exit(0)  # the thread waits in a read, and nothing is left to do
