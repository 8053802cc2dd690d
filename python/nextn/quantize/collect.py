"""Make an importance matrix from a text, for the trunk and for the NextN block.

Upstream's collector runs the trunk alone, so a draft head has no entries and is quantized blindly. Here the target
reads the text in chunks, and after each the head reads the same tokens next to the target's hidden rows, as it does
behind a prompt; then once more next to its own rows, as it does in the later steps of a draft.
"""

from __future__ import annotations

import numpy as np

from nextn import _core
from nextn.context import Context, FloatArray
from nextn.errors import NextnError
from nextn.gguf.writer import Progress
from nextn.model import Model
from nextn.options import check_int
from nextn.quantize.imatrix import Entry, ImportanceMatrix

__all__ = ["collect"]

_SEQ_ID = 0
_DEPTH = 2  # steps of a draft whose inputs are collected
_FEWEST_TOKENS = 16


def collect(
    model: Model,
    text: str,
    *,
    dataset: str = "",
    n_ctx: int = 512,
    max_chunks: int | None = None,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> ImportanceMatrix:
    """Collect what the weights of a model are multiplied with while it reads a text.

    Args:
        model: The model, best in F16 or F32; its draft head is covered when it has one.
        text: A text of the kind that the model will write.
        dataset: A name for the text, which the file keeps.
        n_ctx: Tokens per chunk; chunks do not see each other.
        max_chunks: Most chunks to read, None for all.
        n_threads: Threads; None takes the physical cores this process may use.
        progress: Called with the share of the chunks that are read, 0 to 1.

    Returns:
        The importance matrix.

    Raises:
        NextnError: The text is too short.
        ValueError: A wrong argument.
    """
    check_int("n_ctx", n_ctx, _FEWEST_TOKENS, 2**31 - 1)
    chunks = _chunks(model, text, n_ctx)[
        : None if max_chunks is None else check_int("max_chunks", max_chunks, 1, 2**31)
    ]
    found = _core.Imatrix()

    def make(**kind: bool) -> Context:
        return Context(model, n_ctx=n_ctx, n_batch=n_ctx, n_threads=n_threads, imatrix=found, **kind)  # type: ignore[arg-type]

    ctx_tgt, ctx_dft = make(), make(nextn_draft=True) if model.has_nextn_layer else None
    try:
        for i, tokens in enumerate(chunks):
            ctx_tgt.seq_rm(_SEQ_ID, -1, -1)
            ctx_tgt.decode(tokens, outputs="none")
            if ctx_dft is not None:
                _read_with_head(ctx_dft, tokens, ctx_tgt.hidden())
            if progress:
                progress((i + 1) / len(chunks))
    finally:
        ctx_tgt.close()
        if ctx_dft is not None:
            ctx_dft.close()
    entries = {name: Entry(sums=sums, counts=counts) for name, (sums, counts) in found.entries().items()}
    return ImportanceMatrix(entries=entries, datasets=(dataset or "text",), n_chunk=len(chunks), chunk_size=n_ctx)


def _read_with_head(ctx_dft: Context, tokens: list[int], hidden: FloatArray) -> None:
    """Let the head read each token next to the row before it [n_tokens, n_embd], then next to its own rows."""
    for _ in range(_DEPTH):
        before = np.zeros_like(hidden)
        before[1:] = hidden[:-1]
        ctx_dft.seq_rm(_SEQ_ID, -1, -1)
        ctx_dft.decode(tokens, hidden=before, outputs="none")
        hidden = ctx_dft.hidden()


def _chunks(model: Model, text: str, n_ctx: int) -> list[list[int]]:
    """The text's tokens in pieces of n_ctx; a shorter rest counts only when it is all there is."""
    tokens = model.tokenize(text, parse_special=True)
    if len(tokens) < _FEWEST_TOKENS:
        raise NextnError(f"the text has {len(tokens)} tokens; at least {_FEWEST_TOKENS} are needed")
    if len(tokens) < n_ctx:
        return [tokens]
    return [tokens[start : start + n_ctx] for start in range(0, len(tokens) - n_ctx + 1, n_ctx)]
