"""The sizes that a file's metadata declare: whether the engine can compute with them.

The engine checks some of these by assertions, which end the process, and divides by others. Source: llama.cpp's
src/llama-model.cpp (load_hparams), src/models/qwen35.cpp, qwen35moe.cpp, qwen3next.cpp and ggml's assertions on RoPE.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from nextn.gguf.cursor import quote
from nextn.gguf.findings import Finding, damage
from nextn.gguf.heads import EXPERTS, KNOWN_HEADS
from nextn.gguf.reader import GgufHeader, MetadataArray, read_array
from nextn.gguf.types import ValueType

MAX_BLOCKS = 512
_MAX_EXPERTS = 1024
_MAX_SIZE = 1 << 24  # of a width, a number of heads; the product of two still fits into 64 bits

# Every count that the engine reads of an architecture's own keys: kind u32, smallest and largest value.
_RANGES: dict[str, tuple[int, int]] = {
    "block_count": (1, MAX_BLOCKS),
    "nextn_predict_layers": (0, MAX_BLOCKS),
    "context_length": (1, 2**31 - 1),
    "embedding_length": (1, _MAX_SIZE),
    "feed_forward_length": (0, _MAX_SIZE),
    "attention.head_count": (1, _MAX_SIZE),
    "attention.head_count_kv": (1, _MAX_SIZE),
    "attention.key_length": (1, _MAX_SIZE),
    "attention.value_length": (1, _MAX_SIZE),
    "rope.dimension_count": (2, _MAX_SIZE),
    "full_attention_interval": (1, MAX_BLOCKS),
    "ssm.conv_kernel": (2, 64),
    "ssm.inner_size": (1, _MAX_SIZE),
    "ssm.state_size": (1, _MAX_SIZE),
    "ssm.time_step_rank": (1, _MAX_SIZE),
    "ssm.group_count": (1, _MAX_SIZE),
    "expert_count": (0, _MAX_EXPERTS),
    "expert_used_count": (0, _MAX_EXPERTS),
    "expert_feed_forward_length": (1, _MAX_SIZE),
    "expert_shared_feed_forward_length": (1, _MAX_SIZE),
}
_NEEDED = (  # by the three NextN architectures
    "block_count",
    "context_length",
    "embedding_length",
    "attention.head_count",
    "ssm.conv_kernel",
    "ssm.inner_size",
    "ssm.state_size",
    "ssm.time_step_rank",
    "ssm.group_count",
)
# Counts that other architectures give per layer or leave out; for the known ones one number is the rule.
_PER_LAYER = ("feed_forward_length", "attention.head_count", "attention.head_count_kv", "expert_used_count")
_NUMBERS: dict[str, float] = {  # finite, and at least this
    "attention.layer_norm_rms_epsilon": 0.0,
    "rope.freq_base": 1e-3,
}
_ROPE_SCALING = ("none", "linear", "yarn", "longrope")


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a model of a NextN architecture, in elements; see `read_sizes`."""

    n_layer: int
    n_layer_nextn: int
    n_embd: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int
    n_expert: int
    n_ff_exp: int
    n_ff_shexp: int


def check_sizes(header: GgufHeader, stated: str, architecture: str) -> Iterator[Finding]:
    """Look at every size one by one, then at what must hold between them.

    Args:
        header: Of the first file.
        stated: general.architecture, the prefix of the keys.
        architecture: The same without the suffix of older head-only files.
    """
    known = architecture in KNOWN_HEADS
    findings = [
        *_check_counts(header, stated, known),
        *_check_numbers(header, stated),
        *_check_scaling(header, stated),
    ]
    yield from findings
    if not findings:
        yield from _check_experts(header, stated, KNOWN_HEADS.get(architecture))
        if known:
            yield from _check_hybrid(header, stated, architecture)


def read_sizes(header: GgufHeader, stated: str, n_layer: int, n_layer_nextn: int) -> Sizes:
    """The sizes of a file for which `check_sizes` found nothing."""

    def get(name: str, fallback: int = 0) -> int:
        value = header.metadata.get(f"{stated}.{name}", fallback)
        return value if isinstance(value, int) else fallback

    n_embd, n_head = get("embedding_length"), get("attention.head_count")
    return Sizes(
        n_layer=n_layer,
        n_layer_nextn=n_layer_nextn,
        n_embd=n_embd,
        n_head=n_head,
        n_head_kv=get("attention.head_count_kv", n_head),
        head_dim=get("attention.key_length", n_embd // max(1, n_head)),
        n_ff=get("feed_forward_length"),
        n_expert=get("expert_count"),
        n_ff_exp=get("expert_feed_forward_length"),
        n_ff_shexp=get("expert_shared_feed_forward_length"),
    )


def _check_counts(header: GgufHeader, stated: str, known: bool) -> Iterator[Finding]:
    """Each count: there, of the right kind, in its range."""
    for name, (low, high) in _RANGES.items():
        key = f"{stated}.{name}"
        if key not in header.metadata or (name in _PER_LAYER and not known):
            continue
        value = header.metadata[key]
        if name == "block_count" and isinstance(value, int) and not low <= value <= high:
            yield damage("block-count", f"{key} is {value}; the engine takes {low} to {high}")
        elif header.kinds[key] is not ValueType.UINT32:
            kind = header.kinds[key].name.lower()
            yield damage("key-kind", f"metadata {quote(key)} must be one uint32, not {kind}")
        elif not known and name not in ("block_count", "nextn_predict_layers", "expert_count"):
            continue  # what the other sizes mean is each architecture's own business
        elif isinstance(value, int) and not low <= value <= high:
            yield damage("key-range", f"metadata {quote(key)} is {value:,}; possible is {low:,} to {high:,}")
    for name in _NEEDED if known else ():
        if f"{stated}.{name}" not in header.metadata:
            yield damage("key-missing", f"metadata {quote(f'{stated}.{name}')} is missing: the engine needs it")


def _check_numbers(header: GgufHeader, stated: str) -> Iterator[Finding]:
    """Numbers that are no counts."""
    for name, low in _NUMBERS.items():
        key = f"{stated}.{name}"
        value = header.metadata.get(key)
        if value is None:
            continue
        if header.kinds[key] is not ValueType.FLOAT32 or not isinstance(value, float):
            yield damage("key-kind", f"metadata {quote(key)} must be one float32")
        elif not math.isfinite(value) or value < low:
            yield damage("key-range", f"metadata {quote(key)} is {value!r}; it must be finite and at least {low}")


def _check_scaling(header: GgufHeader, stated: str) -> Iterator[Finding]:
    """The kind of RoPE scaling: the engine asserts that it knows it."""
    value = header.metadata.get(f"{stated}.rope.scaling.type", "linear")
    if value not in _ROPE_SCALING:
        shown = quote(value) if isinstance(value, str) else "no text"
        yield damage("rope-scaling", f"{stated}.rope.scaling.type is {shown}, not one of {', '.join(_ROPE_SCALING)}")


def _check_experts(header: GgufHeader, stated: str, kind: str | None) -> Iterator[Finding]:
    """As many experts as are used, and of a mixture at least one."""
    n, used, groups = (
        header.metadata.get(f"{stated}.{name}", 0)
        for name in ("expert_count", "expert_used_count", "expert_group_count")
    )
    if not isinstance(n, int) or not isinstance(used, int) or not isinstance(groups, int):
        return
    if kind == EXPERTS and n == 0:
        yield damage("experts", f"{stated} is a mixture of experts, but {stated}.expert_count is 0 or missing")
    elif n == 0 and (used > 0 or groups > 0):
        yield damage("experts", f"{stated}.expert_count is 0, but experts or groups of them are used")
    elif n > 0 and not 1 <= used <= n:
        yield damage("experts", f"{stated}.expert_used_count is {used}; possible is 1 to {n}, the number of experts")
    elif n > 0 and (groups >= n or (groups > 1 and n % groups)):
        yield damage("experts", f"{stated}.expert_group_count is {groups}, which does not divide {n} experts")
    elif groups > 1:
        n_group = header.metadata.get(f"{stated}.expert_group_used_count", 0)
        if not isinstance(n_group, int) or not 0 < n_group < groups:
            yield damage("experts", f"{stated}.expert_group_used_count must be 1 to {groups - 1}")


def _check_hybrid(header: GgufHeader, stated: str, architecture: str) -> Iterator[Finding]:
    """What must hold between the sizes of a Qwen hybrid: delta-net layers and gated attention layers."""
    get = {name: header.metadata.get(f"{stated}.{name}") for name in _RANGES}
    state, rank, groups, inner = (
        get[f"ssm.{name}"] for name in ("state_size", "time_step_rank", "group_count", "inner_size")
    )
    assert isinstance(state, int) and isinstance(rank, int) and isinstance(groups, int) and isinstance(inner, int)
    if inner != state * rank:
        yield damage(
            "ssm-sizes", f"{stated}.ssm.inner_size is {inner}, not state_size * time_step_rank = {state * rank}"
        )
    if rank % groups:
        yield damage("ssm-sizes", f"{stated}.ssm.time_step_rank, {rank}, is no multiple of group_count, {groups}")
    sizes = read_sizes(header, stated, 1, 0)
    value_length = header.metadata.get(f"{stated}.attention.value_length", sizes.head_dim)
    if value_length != sizes.head_dim:
        yield damage(
            "head-sizes", f"{stated}.attention.value_length is {value_length}, not key_length {sizes.head_dim}"
        )
    if sizes.n_head % sizes.n_head_kv:
        yield damage(
            "head-sizes",
            f"{stated}.attention.head_count, {sizes.n_head}, is no multiple of head_count_kv, {sizes.n_head_kv}",
        )
    n_rot = header.metadata.get(f"{stated}.rope.dimension_count", sizes.head_dim)
    if isinstance(n_rot, int) and (n_rot % 2 or n_rot > sizes.head_dim):
        yield damage("rope", f"{stated}.rope.dimension_count is {n_rot}; it must be even and at most {sizes.head_dim}")
    if architecture != "qwen3next":
        yield from _check_sections(header, stated, sizes.head_dim)


def _check_sections(header: GgufHeader, stated: str, head_dim: int) -> Iterator[Finding]:
    """RoPE sections: four counts of pairs, not all of them 0, that fit into a head."""
    key = f"{stated}.rope.dimension_sections"
    value = header.metadata.get(key)
    if not isinstance(value, MetadataArray):
        yield damage("rope", f"metadata {quote(key)} must be an array of four int32")
        return
    if value.type is not ValueType.INT32 or value.count != 4:
        yield damage("rope", f"metadata {quote(key)} must be four int32, not {value.count} {value.type.name.lower()}")
        return
    sections = [int(n) for n in read_array(header, key)]
    if min(sections) < 0 or sum(sections) > head_dim or not any(sections[:3]):
        yield damage(
            "rope", f"metadata {quote(key)} is {sections}: the counts must not be negative and fit a head of {head_dim}"
        )
