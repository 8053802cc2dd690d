"""Which tensors a draft head needs, and whether a file has them all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

HeadState = Literal["complete", "none", "missing", "incomplete", "undeclared", "unsupported"]

# Architectures whose draft head the engine can run, and whether their feed-forward is a mixture of experts.
DENSE, EXPERTS = "dense", "experts"
KNOWN_HEADS: dict[str, str] = {"qwen35": DENSE, "qwen35moe": EXPERTS, "qwen3next": EXPERTS}

# Older head-only files carry this behind the architecture's name.
LEGACY_SUFFIX = "_mtp"

# One entry per thing the block needs; alternatives (fused or separate matrices) stand in one entry.
# Source: the tensors that llama.cpp's src/models/qwen35.cpp, qwen35moe.cpp and qwen3next.cpp load for the NextN block.
_COMMON: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("nextn.eh_proj.weight",),),
    (("nextn.enorm.weight",),),
    (("nextn.hnorm.weight",),),
    (("attn_norm.weight",),),
    (("attn_q.weight", "attn_k.weight", "attn_v.weight"), ("attn_qkv.weight",)),
    (("attn_q_norm.weight",),),
    (("attn_k_norm.weight",),),
    (("attn_output.weight",),),
    (("post_attention_norm.weight",),),
)
_FEED_FORWARD: dict[str, tuple[tuple[tuple[str, ...], ...], ...]] = {
    DENSE: ((("ffn_gate.weight",),), (("ffn_up.weight",),), (("ffn_down.weight",),)),
    EXPERTS: (
        (("ffn_gate_inp.weight",),),
        (("ffn_gate_exps.weight", "ffn_up_exps.weight"), ("ffn_gate_up_exps.weight",)),
        (("ffn_down_exps.weight",),),
        (("ffn_gate_inp_shexp.weight",),),
        (("ffn_gate_shexp.weight",),),
        (("ffn_up_shexp.weight",),),
        (("ffn_down_shexp.weight",),),
    ),
}


@dataclass(frozen=True, kw_only=True)
class HeadCheck:
    """Whether the head can draft.

    Args:
        state: "complete": it can. "none": the file has none. "missing": declared, but not one of its tensors is there.
            "incomplete": some tensors are there. "undeclared": tensors without the key that declares them.
            "unsupported": of an architecture or a form that the engine does not run.
        problem: What is wrong, None when nothing is.
        missing: Names of the tensors that are not there.
    """

    state: HeadState
    problem: str | None = None
    missing: tuple[str, ...] = ()


def check_head(architecture: str, n_layer: int, n_layer_nextn: int, names: Iterable[str]) -> HeadCheck:
    """Judge the draft head of a file.

    Args:
        architecture: Of the file, without the suffix of older head-only files.
        n_layer: Number of trunk layers: the head is the block of this number.
        n_layer_nextn: Number of NextN layers that the file declares.
        names: Names of all its tensors.

    Returns:
        The judgement.
    """
    prefix = f"blk.{n_layer}."
    names = set(names)
    if n_layer_nextn == 0:
        if not any(".nextn." in name for name in names):
            return HeadCheck(state="none")
        problem = f"{architecture}.nextn_predict_layers does not declare the NextN tensors, so the engine ignores them"
        return HeadCheck(state="undeclared", problem=problem)
    feed_forward = KNOWN_HEADS.get(architecture)
    if feed_forward is None:
        problem = f"nextn does not run the draft head of {architecture}, only of {', '.join(KNOWN_HEADS)}"
        return HeadCheck(state="unsupported", problem=problem)
    if n_layer_nextn > 1:
        problem = f"{n_layer_nextn} NextN layers are declared, only one is supported"
        return HeadCheck(state="unsupported", problem=problem)
    here = {name[len(prefix) :] for name in names if name.startswith(prefix)}
    if not here:
        problem = f"a NextN layer is declared, but block {n_layer} has no tensor (lost in conversion or quantization?)"
        return HeadCheck(state="missing", problem=problem)
    missing = tuple(prefix + name for name in _missing(_COMMON + _FEED_FORWARD[feed_forward], here))
    if missing:
        return HeadCheck(state="incomplete", problem=f"missing: {', '.join(missing)}", missing=missing)
    return HeadCheck(state="complete")


def _missing(needs: tuple[tuple[tuple[str, ...], ...], ...], here: set[str]) -> list[str]:
    """The names that are not there; of alternatives, those of the one that comes closest."""
    lost: list[str] = []
    for alternatives in needs:
        choices = [[name for name in names if name not in here] for names in alternatives]
        closest = min(choices, key=len)
        lost += closest
    return lost
