"""Sizes of the demo model and its chat format: what the trainer and the GGUF export share."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
UNUSED_PREFIX = "<|unused_"
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes of a dense qwen35 model with one NextN layer. A checkpoint carries them as a dict."""

    vocab_size: int = 3072
    n_embd: int = 256
    n_layer: int = 8
    n_ff: int = 512
    full_attention_interval: int = 4
    # full attention
    n_head: int = 4
    n_head_kv: int = 2
    head_dim: int = 64
    rope_dim: int = 16
    rope_sections: tuple[int, ...] = (3, 3, 2, 0)
    rope_base: float = 10000.0
    # gated delta net
    n_key_heads: int = 4
    n_value_heads: int = 4
    state_size: int = 64
    conv_kernel: int = 4
    chunk: int = 32
    eps: float = 1e-6
    context_length: int = 2048

    def is_full(self, layer: int) -> bool:
        """Does this trunk layer have full attention? Every fourth does, the others are delta nets."""
        return (layer + 1) % self.full_attention_interval == 0

    def to_dict(self) -> dict[str, Any]:
        """The form that checkpoints carry."""
        return asdict(self)
