"""The tensors of a file: types that the engine can compute with, and the shapes of the NextN block.

Source: the tensors that llama.cpp's src/models/qwen35.cpp, qwen35moe.cpp and qwen3next.cpp load, and the operations
they go through. The engine compares the shapes of the trunk itself and says so; it does not compare types.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from nextn.gguf.cursor import quote
from nextn.gguf.findings import Finding, damage
from nextn.gguf.heads import DENSE, KNOWN_HEADS
from nextn.gguf.hyper import Sizes
from nextn.gguf.reader import TensorInfo

# No kernel multiplies a matrix of these types.
_NO_MATRIX = ("I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K")
# Two-dimensional, but used element by element.
_ELEMENTWISE = ("ssm_conv1d.weight",)


def check_types(tensors: Iterable[TensorInfo], architecture: str) -> Iterator[Finding]:
    """Vectors that are added or multiplied element by element must be F32, matrices of a type that has a kernel."""
    if architecture not in KNOWN_HEADS:
        return
    for tensor in tensors:
        elementwise = len(tensor.shape) < 2 or tensor.name.endswith(_ELEMENTWISE)
        if tensor.name.endswith("ffn_gate_inp_shexp.weight"):
            elementwise = False  # a vector that a matrix product reads
        if elementwise and tensor.type.name != "F32":
            yield damage(
                "tensor-type", f"tensor {quote(tensor.name)} is {tensor.type.name}; the engine needs F32 there"
            )
        elif not elementwise and tensor.type.name in _NO_MATRIX:
            yield damage("tensor-type", f"tensor {quote(tensor.name)} is {tensor.type.name}: not the type of a matrix")


def check_shapes(tensors: Mapping[str, TensorInfo], architecture: str, sizes: Sizes, n_vocab: int) -> Iterator[Finding]:
    """The shapes of embedding, output and NextN block."""
    for name, wanted in _expected(architecture, sizes, n_vocab).items():
        tensor = tensors.get(name)
        if tensor is not None and _trim(tensor.shape) != _trim(wanted):
            yield damage(
                "tensor-shape", f"tensor {quote(name)} has the shape {list(tensor.shape)}; the sizes say {list(wanted)}"
            )


def check_present(tensors: Mapping[str, TensorInfo], architecture: str) -> Iterator[Finding]:
    """What every model of a NextN architecture needs, a head-only file too."""
    if architecture not in KNOWN_HEADS:
        return
    for name in ("token_embd.weight", "output_norm.weight"):
        if name not in tensors:
            yield damage("tensor-missing", f"tensor {name} is missing")


def _expected(architecture: str, sizes: Sizes, n_vocab: int) -> dict[str, tuple[int, ...]]:
    """Shapes by name, contiguous dimension first."""
    e, d = sizes.n_embd, sizes.head_dim
    vocab: tuple[int, ...] = (e, n_vocab)
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": vocab,
        "output_norm.weight": (e,),
        "output.weight": vocab,
    }
    if sizes.n_layer_nextn == 0:
        return shapes
    block: dict[str, tuple[int, ...]] = {
        "nextn.eh_proj.weight": (2 * e, e),
        "nextn.enorm.weight": (e,),
        "nextn.hnorm.weight": (e,),
        "nextn.embed_tokens.weight": vocab,
        "nextn.shared_head_head.weight": vocab,
        "nextn.shared_head_norm.weight": (e,),
        "attn_norm.weight": (e,),
        "post_attention_norm.weight": (e,),
        "attn_q.weight": (e, 2 * d * sizes.n_head),
        "attn_k.weight": (e, d * sizes.n_head_kv),
        "attn_v.weight": (e, d * sizes.n_head_kv),
        "attn_output.weight": (d * sizes.n_head, e),
        "attn_q_norm.weight": (d,),
        "attn_k_norm.weight": (d,),
    }
    if KNOWN_HEADS[architecture] == DENSE:
        block |= _gated("", e, sizes.n_ff)
    else:
        n, ff = sizes.n_expert, sizes.n_ff_exp
        block |= {"ffn_gate_inp.weight": (e, n), "ffn_gate_inp_shexp.weight": (e,)}
        if ff:  # absent in older files, whose experts the engine measures by the tensors
            block |= {"ffn_gate_exps.weight": (e, ff, n), "ffn_up_exps.weight": (e, ff, n)}
            block |= {"ffn_down_exps.weight": (ff, e, n), "ffn_gate_up_exps.weight": (e, 2 * ff, n)}
        if sizes.n_ff_shexp:
            block |= _gated("_shexp", e, sizes.n_ff_shexp)
    return shapes | {f"blk.{sizes.n_layer}.{name}": shape for name, shape in block.items()}


def _gated(suffix: str, n_embd: int, n_ff: int) -> dict[str, tuple[int, ...]]:
    """The three matrices of a gated feed-forward."""
    shapes: dict[str, tuple[int, ...]] = {f"ffn_{name}{suffix}.weight": (n_embd, n_ff) for name in ("gate", "up")}
    return shapes | {f"ffn_down{suffix}.weight": (n_ff, n_embd)}


def _trim(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without trailing ones, which the format may or may not write."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape
