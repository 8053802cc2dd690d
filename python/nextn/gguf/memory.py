"""How much memory a model will take at a given context, with and without drafting: an estimate from the header.

Weights, the KV cache of the attention layers, the states of the recurrent layers, of which drafting keeps one
more per drafted token to roll back to, the KV cache of the draft head, and the rows of the output matrix that it scores
besides the first ones. The engine's work space comes on top.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nextn.errors import ModelFileError
from nextn.gguf.inspection import describe, read_parts
from nextn.gguf.reader import TensorInfo
from nextn.gguf.types import TENSOR_TYPES

__all__ = ["MemoryEstimate", "estimate_memory"]

_F32_BYTES = 4
_CTX_STEP = 256  # the engine rounds a context up to a multiple of it
# Of overlay/src/llama-nextn-coverage.cpp: a vocabulary up to the first size is scored as a whole; of a larger one so
# many rows are copied for tokens of the text, and for special tokens.
_WHOLE_VOCAB, _TEXT_ROWS, _SPECIAL_ROWS = 32768, 4096, 256


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes, for one sequence.

    Args:
        n_ctx: Tokens that fit.
        n_draft: Longest draft.
        type_k, type_v: Types of the KV caches.
        weights: All tensors.
        kv_cache: Of the trunk's attention layers.
        states: Of its recurrent layers.
        draft_states: More of these, to roll back to.
        draft_kv_cache: Of the draft head.
        draft_shortlist: Of it, too: rows of the output matrix, copied beside it; a list of one's own ids takes more.
    """

    n_ctx: int
    n_draft: int
    type_k: str
    type_v: str
    weights: int
    kv_cache: int
    states: int
    draft_states: int
    draft_kv_cache: int
    draft_shortlist: int

    @property
    def plain(self) -> int:
        """Everything that plain decoding needs."""
        return self.weights + self.kv_cache + self.states

    @property
    def drafting(self) -> int:
        """Everything that decoding with drafts needs."""
        return self.plain + self.draft_states + self.draft_kv_cache + self.draft_shortlist


def estimate_memory(
    path: str | os.PathLike[str], n_ctx: int, n_draft: int, *, type_k: str = "f16", type_v: str = "f16"
) -> MemoryEstimate:
    """Estimate what a model of a NextN architecture, or another with plain attention, will take.

    Args:
        path: The model; of one in parts, any of them.
        n_ctx: Tokens that shall fit.
        n_draft: Longest draft in tokens.
        type_k: Type of the K cache, as for a Context.
        type_v: Type of the V cache.

    Raises:
        ValueError: A type that there is not.
        ModelFileError: The file is missing, damaged or no model, or does not say how large its attention is.
    """
    headers = read_parts(Path(path))
    found, metadata = describe(headers), headers[0].metadata

    def get(name: str, fallback: int = 0) -> int:
        value = metadata.get(f"{found.architecture}.{name}", fallback)
        return value if isinstance(value, int) else fallback

    n_head = get("attention.head_count")
    if n_head == 0 or found.n_embd is None:
        raise ModelFileError(f"{path}: does not say how large its attention is, so its memory cannot be estimated")
    head_dim = found.n_embd // n_head
    n_head_kv = get("attention.head_count_kv", n_head)
    row = n_head_kv * get("attention.key_length", head_dim) * _bytes_per_element("type_k", type_k)
    row += n_head_kv * get("attention.value_length", head_dim) * _bytes_per_element("type_v", type_v)
    per_layer = round(-(-n_ctx // _CTX_STEP) * _CTX_STEP * row)
    inner, state = get("ssm.inner_size"), get("ssm.state_size")
    convolved = (get("ssm.conv_kernel", 1) - 1) * (inner + 2 * get("ssm.group_count") * state)
    states = found.n_layer_recurrent * (convolved + state * inner) * _F32_BYTES
    drafts = found.head.state == "complete"
    tensors = [tensor for header in headers for tensor in header.tensors]
    output = next((tensor for tensor in tensors if tensor.name == found.head.output_tensor), None)
    return MemoryEstimate(
        n_ctx=n_ctx,
        n_draft=n_draft,
        type_k=type_k,
        type_v=type_v,
        weights=sum(tensor.size for tensor in tensors),
        kv_cache=found.n_layer_attention * per_layer,
        states=states,
        draft_states=n_draft * states if drafts else 0,
        draft_kv_cache=per_layer if drafts else 0,
        draft_shortlist=_shortlist(output) if drafts and output else 0,
    )


def _bytes_per_element(argument: str, name: str) -> float:
    """Bytes that one element of a type takes, its share of the block's scales among them."""
    for kind in TENSOR_TYPES.values():
        if kind.name == name.upper():
            return kind.block_bytes / kind.block_size
    raise ValueError(f"{argument} must be a type such as 'f16' or 'q8_0', not {name!r}")


def _shortlist(output: TensorInfo) -> int:
    """Bytes of copied rows, and of a table with an entry for each token."""
    n_vocab = output.shape[-1]
    if n_vocab <= _WHOLE_VOCAB:
        return 0
    return (_TEXT_ROWS + _SPECIAL_ROWS) * (output.size // n_vocab) + 4 * n_vocab
