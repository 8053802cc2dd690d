"""A random vision encoder with its projector, for `llama-server --mmproj`."""

from __future__ import annotations

import os
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

from .writer import uniform

# Sizes of the encoder: nobody looks at its pictures, so the least that its graph computes.
N_EMBD = 32
N_FF = 64
PATCH = 8  # pixels on a side
MERGE = 2  # patches on a side that become one token
TOKEN_PIXELS = PATCH * MERGE
IMAGE = 64  # pixels on a side for which there are learned positions; they are scaled to other images


def _tensors(n_out: int, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Tensors of one encoder layer and the projector, by name."""

    def matrix(name: str, *shape: int) -> npt.NDArray[np.float32]:
        return uniform(seed, name, shape, float(np.prod(shape[1:])) ** -0.5, 0.0)

    found = {name: matrix(name, N_EMBD, 3, PATCH, PATCH) for name in ("v.patch_embd.weight", "v.patch_embd.weight.1")}
    found["v.patch_embd.bias"] = np.zeros(N_EMBD, np.float32)
    found["v.position_embd.weight"] = matrix("v.position_embd.weight", (IMAGE // PATCH) ** 2, N_EMBD)
    n_merged = N_EMBD * MERGE**2
    for name, n_rows, n_cols in (
        ("v.blk.0.attn_qkv", 3 * N_EMBD, N_EMBD),
        ("v.blk.0.attn_out", N_EMBD, N_EMBD),
        ("v.blk.0.ffn_up", N_FF, N_EMBD),
        ("v.blk.0.ffn_down", N_EMBD, N_FF),
        ("mm.0", n_merged, n_merged),
        ("mm.2", n_out, n_merged),
    ):
        found[f"{name}.weight"] = matrix(f"{name}.weight", n_rows, n_cols)
        found[f"{name}.bias"] = np.zeros(n_rows, np.float32)
    for name in ("v.blk.0.ln1", "v.blk.0.ln2", "v.post_ln"):
        found[f"{name}.weight"] = np.ones(N_EMBD, np.float32)
        found[f"{name}.bias"] = np.zeros(N_EMBD, np.float32)
    return found


def make_projector(path: str | os.PathLike[str], n_embd: int, *, seed: int = 0) -> Path:
    """Write a projector of the kind that Qwen3.5's files have: its images take places of a grid (M-RoPE).

    Args:
        path: where to write; an existing file is replaced.
        n_embd: width of the model that the images are for.
        seed: any integer.

    Returns:
        The path. An image of w × h pixels becomes w // 16 × h // 16 tokens, of at least 8 in all.
    """
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type(gguf.GGUFType.MMPROJ)
    writer.add_name("nextn random projector")
    writer.add_clip_projector_type("qwen3vl_merger")
    writer.add_clip_has_vision_encoder(True)
    writer.add_vision_embedding_length(N_EMBD)
    writer.add_vision_feed_forward_length(N_FF)
    writer.add_vision_block_count(1)
    writer.add_vision_head_count(2)
    writer.add_vision_projection_dim(n_embd)
    writer.add_vision_attention_layernorm_eps(1e-6)
    writer.add_vision_image_size(IMAGE)
    writer.add_vision_patch_size(PATCH)
    writer.add_vision_spatial_merge_size(MERGE)
    writer.add_vision_image_mean([0.5] * 3)
    writer.add_vision_image_std([0.5] * 3)
    writer.add_vision_use_gelu(True)
    for name, values in _tensors(n_embd, seed).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(path)
