"""Sizes of models: the `Shape` class and named presets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .vocab import SPECIAL_TOKENS

ARCHITECTURES = ("qwen35", "qwen35moe", "qwen3next")
HEAD_TENSORS = ("shared_head_norm", "shared_head_head", "embed_tokens")  # optional tensors of the NextN block


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a model; the names follow llama.cpp's metadata. Lengths are counts of elements."""

    arch: str = "qwen35"
    n_embd: int = 64
    n_layer: int = 4  # trunk only
    full_attention_interval: int = 4
    n_ff: int = 128
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 32
    n_rot: int = 8
    rope_base: float = 10000.0
    key_heads: int = 2
    value_heads: int = 4
    state_size: int = 16
    conv_kernel: int = 4
    n_expert: int = 0
    n_expert_used: int = 0
    n_ff_exp: int = 0
    n_ff_shexp: int = 0
    n_vocab: int = 512
    n_ctx: int = 4096
    tied: bool = True  # the LM head is the token embedding
    head_tensors: tuple[str, ...] = ("shared_head_norm",)
    agreement: float = 0.0  # 0: drafts are never right; 0.92: about a third of first drafts, 0.97: half (untied only)

    def __post_init__(self) -> None:
        problems = {
            f"arch must be one of {ARCHITECTURES}": self.arch not in ARCHITECTURES,
            "n_head must be a multiple of n_head_kv": self.n_head % self.n_head_kv != 0,
            "value_heads must be a multiple of key_heads": self.value_heads % self.key_heads != 0,
            "n_rot must be even, at least 6 and at most head_dim": self.n_rot % 2 != 0
            or not 6 <= self.n_rot <= self.head_dim,
            f"{self.arch} needs 1 <= n_expert_used <= n_expert and n_ff_exp, n_ff_shexp >= 1": self.is_moe
            and not (1 <= self.n_expert_used <= self.n_expert and self.n_ff_exp >= 1 and self.n_ff_shexp >= 1),
            f"qwen35 is dense: n_expert must be 0, got {self.n_expert}": not self.is_moe and self.n_expert != 0,
            f"n_vocab must be at least {256 + len(SPECIAL_TOKENS)}, got {self.n_vocab}": self.n_vocab
            < 256 + len(SPECIAL_TOKENS),
            f"agreement must be at least 0 and below 1, got {self.agreement}": not 0 <= self.agreement < 1,
            "agreement needs an untied model (tied=False)": self.agreement > 0 and self.tied,
            f"head_tensors must be among {HEAD_TENSORS}": not set(self.head_tensors) <= set(HEAD_TENSORS),
        }
        for text, wrong in problems.items():
            if wrong:
                raise ValueError(text)

    @property
    def is_moe(self) -> bool:
        """Whether the feed-forward is a mixture of experts."""
        return self.arch != "qwen35"

    @property
    def rope_sections(self) -> list[int]:
        """Pairs turned by each of the three interleaved position axes; together they cover every pair."""
        pairs = self.n_rot // 2
        return [(pairs + 2) // 3, (pairs + 1) // 3, pairs // 3, 0]


_MOE: dict[str, Any] = {"arch": "qwen35moe", "n_expert": 8, "n_expert_used": 2, "n_ff_exp": 32, "n_ff_shexp": 64}
_ODD: dict[str, Any] = {"n_embd": 96, "n_layer": 5, "n_ff": 160, "n_head": 8, "n_head_kv": 1, "head_dim": 36}
_ODD |= {"n_rot": 12, "key_heads": 3, "value_heads": 6, "conv_kernel": 3, "n_vocab": 509}
_BIG: dict[str, Any] = {"n_vocab": 248320, "n_ctx": 262144, "rope_base": 1e7, "head_dim": 256, "n_rot": 64}
_BIG |= {"state_size": 128}
PRESETS: dict[str, Shape] = {
    "tiny-dense": Shape(),
    "tiny-moe": Shape(**_MOE),
    "tiny-next": Shape(**{**_MOE, "arch": "qwen3next"}),
    # rows that are no multiple of 8, one KV head, three key heads, a trunk that ends with a delta net
    "odd": Shape(**_ODD),
    "odd-moe": Shape(**{**_ODD, **_MOE, "n_expert": 7, "n_expert_used": 3}),
    # rows of 256 columns, as K-quants want them
    "wide": Shape(n_embd=256, n_ff=512, head_dim=64, n_rot=16, key_heads=4, state_size=64, n_vocab=2048),
    "shape-0.8b": Shape(
        n_embd=1024,
        n_layer=24,
        n_ff=3584,
        n_head=8,
        n_head_kv=2,
        key_heads=16,
        value_heads=16,
        **_BIG,
    ),
    "shape-35b-a3b-8l": Shape(
        arch="qwen35moe",
        n_embd=2048,
        n_layer=8,
        n_head=16,
        n_head_kv=2,
        key_heads=16,
        value_heads=32,
        n_expert=256,
        n_expert_used=8,
        n_ff_exp=512,
        n_ff_shexp=512,
        tied=False,
        **_BIG,
    ),
}
