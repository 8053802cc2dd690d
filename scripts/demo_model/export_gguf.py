"""Write trained weights as a GGUF file: architecture `qwen35` with one NextN layer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

from .config import CHAT_TEMPLATE, SPECIAL_TOKENS, UNUSED_PREFIX, Config

ARCHITECTURE = "qwen35"
TYPES = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}

# names in the PyTorch model: names in the file
TOP = {"embed.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}
LAYER = {
    "attn_norm.weight": "attn_norm.weight",
    "ffn_norm.weight": "post_attention_norm.weight",
    "ffn.gate.weight": "ffn_gate.weight",
    "ffn.up.weight": "ffn_up.weight",
    "ffn.down.weight": "ffn_down.weight",
}
FULL_ATTENTION = {
    "attn.q.weight": "attn_q.weight",
    "attn.k.weight": "attn_k.weight",
    "attn.v.weight": "attn_v.weight",
    "attn.q_norm.weight": "attn_q_norm.weight",
    "attn.k_norm.weight": "attn_k_norm.weight",
    "attn.out.weight": "attn_output.weight",
}
DELTA_NET = {
    "attn.qkv.weight": "attn_qkv.weight",
    "attn.gate.weight": "attn_gate.weight",
    "attn.alpha.weight": "ssm_alpha.weight",
    "attn.beta.weight": "ssm_beta.weight",
    "attn.conv": "ssm_conv1d.weight",
    "attn.a_log": "ssm_a",
    "attn.dt_bias": "ssm_dt.bias",
    "attn.norm.weight": "ssm_norm.weight",
    "attn.out.weight": "ssm_out.weight",
}
NEXTN = {
    "enorm.weight": "nextn.enorm.weight",
    "hnorm.weight": "nextn.hnorm.weight",
    "eh_proj.weight": "nextn.eh_proj.weight",
    "head_norm.weight": "nextn.shared_head_norm.weight",
}


def tensor_names(cfg: Config) -> dict[str, str]:
    """Every tensor: its name in the PyTorch model and its name in the file."""
    names = dict(TOP)
    for il in range(cfg.n_layer):
        table = LAYER | (FULL_ATTENTION if cfg.is_full(il) else DELTA_NET)
        names |= {f"layers.{il}.{ours}": f"blk.{il}.{theirs}" for ours, theirs in table.items()}
    head = cfg.n_layer
    names |= {f"nextn.{ours}": f"blk.{head}.{theirs}" for ours, theirs in NEXTN.items()}
    table = LAYER | FULL_ATTENTION
    return names | {f"nextn.layer.{ours}": f"blk.{head}.{theirs}" for ours, theirs in table.items()}


def add_metadata(writer: gguf.GGUFWriter, cfg: Config, file_type: gguf.LlamaFileType) -> None:
    """Name, license and sizes."""
    writer.add_name("nextn demo")
    writer.add_description("Tiny chat model with a NextN head, the offline demo and test fixture of nextn")
    writer.add_license("apache-2.0")
    writer.add_file_type(file_type)
    writer.add_context_length(cfg.context_length)
    writer.add_embedding_length(cfg.n_embd)
    writer.add_block_count(cfg.n_layer + 1)
    writer.add_feed_forward_length(cfg.n_ff)
    writer.add_head_count(cfg.n_head)
    writer.add_head_count_kv(cfg.n_head_kv)
    writer.add_key_length(cfg.head_dim)
    writer.add_value_length(cfg.head_dim)
    writer.add_layer_norm_rms_eps(cfg.eps)
    writer.add_rope_freq_base(cfg.rope_base)
    writer.add_rope_dimension_count(cfg.rope_dim)
    writer.add_rope_dimension_sections(list(cfg.rope_sections))
    writer.add_ssm_conv_kernel(cfg.conv_kernel)
    writer.add_ssm_state_size(cfg.state_size)
    writer.add_ssm_group_count(cfg.n_key_heads)
    writer.add_ssm_time_step_rank(cfg.n_value_heads)
    writer.add_ssm_inner_size(cfg.state_size * cfg.n_value_heads)
    writer.add_uint32(f"{ARCHITECTURE}.full_attention_interval", cfg.full_attention_interval)
    writer.add_uint32(f"{ARCHITECTURE}.nextn_predict_layers", 1)


def token_type(text: str) -> gguf.TokenType:
    """Kind of a vocabulary entry."""
    if text in SPECIAL_TOKENS:
        return gguf.TokenType.CONTROL
    return gguf.TokenType.UNUSED if text.startswith(UNUSED_PREFIX) else gguf.TokenType.NORMAL


def add_tokenizer(writer: gguf.GGUFWriter, path: Path, vocab_size: int) -> None:
    """Vocabulary and merges of a tokenizer.json, and the chat template."""
    data = json.loads(path.read_text(encoding="utf-8"))
    ids = data["model"]["vocab"] | {a["content"]: a["id"] for a in data["added_tokens"]}
    if sorted(ids.values()) != list(range(vocab_size)):
        raise ValueError(f"{path} has {len(ids)} tokens, the model has {vocab_size}")
    tokens = sorted(ids, key=ids.__getitem__)
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen35")
    writer.add_token_list(tokens)
    writer.add_token_types([token_type(t) for t in tokens])
    writer.add_token_merges(merges)
    writer.add_eos_token_id(ids["<|im_end|>"])
    writer.add_bos_token_id(ids["<|endoftext|>"])
    writer.add_pad_token_id(ids["<|endoftext|>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def add_tensor(
    writer: gguf.GGUFWriter, ours: str, theirs: str, value: NDArray[np.float32], kind: gguf.GGMLQuantizationType
) -> None:
    """One tensor; vectors and the delta nets' small matrices stay in F32."""
    if ours.endswith("a_log"):
        value = -np.exp(value)
    if value.ndim == 1 or ours.endswith(("conv", "alpha.weight", "beta.weight")):
        kind = gguf.GGMLQuantizationType.F32
    if kind == gguf.GGMLQuantizationType.F32:
        writer.add_tensor(theirs, value, raw_dtype=kind)
    else:
        writer.add_tensor(theirs, gguf.quants.quantize(value, kind), raw_dtype=kind)


def export(
    out: Path, cfg: Config, weights: Mapping[str, NDArray[np.float32]], tokenizer: Path, *, weight_type: str
) -> None:
    """Write one GGUF file.

    Args:
        out: The file to write.
        cfg: Sizes of the model.
        weights: Each tensor under its name in the PyTorch model.
        tokenizer: The tokenizer.json that the model was trained with.
        weight_type: Type of the matrices, one of TYPES.
    """
    names = tensor_names(cfg)
    if weights.keys() != names.keys():
        raise ValueError(f"not the weights of this model: {sorted(weights.keys() ^ names.keys())}")
    kind, file_type = TYPES[weight_type]
    writer = gguf.GGUFWriter(str(out), ARCHITECTURE)
    add_metadata(writer, cfg, file_type)
    add_tokenizer(writer, tokenizer, cfg.vocab_size)
    for ours, theirs in sorted(names.items(), key=lambda pair: pair[1]):
        add_tensor(writer, ours, theirs, weights[ours], kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
