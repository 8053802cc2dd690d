"""Whether the contexts of a server can fit into this machine's memory."""

from __future__ import annotations

from pathlib import Path

from nextn import _core
from nextn.errors import ModelFileError, ServerError
from nextn.gguf.memory import estimate_memory

__all__ = ["refuse_too_large"]

_GIB = 1 << 30


def refuse_too_large(model: Path, n_ctx: int, n_parallel: int) -> None:
    """Say at once that contexts cannot fit, where the system would end the server, or another process, for it.

    What is counted are the caches of plain decoding in the smallest types, which is less than any server takes. On a
    machine with a GPU, which may hold them, nothing is refused.

    Raises:
        ServerError: They need more than is available.
    """
    engine = _core.engine_info()
    available = engine["memory_available"]
    if available < 0 or any(device["type"] != "cpu" for device in engine["devices"]):
        return
    try:
        found = estimate_memory(model, n_ctx * n_parallel, 0, type_k="q4_0", type_v="q4_0")
    except ModelFileError:
        return  # the server says what is wrong with it
    needed = found.kv_cache + n_parallel * found.states
    if needed > available:
        raise ServerError(
            f"n_ctx={n_ctx} and n_parallel={n_parallel} need at least {needed / _GIB:.1f} GiB, "
            f"{available / _GIB:.1f} GiB are available: a smaller n_ctx or fewer slots need less"
        )
