#!/usr/bin/env python3
"""Make a bigger model that computes the same function, to measure what speculation gains.

    python scripts/inflate_gguf.py python/nextn/models/nextn-demo-q8_0.gguf OUT.gguf --groups 8

A draft step of a tiny model costs a large part of a target step. The added
layers cost as much as any other, but their output projections (of attention,
delta net and feed-forward) are zero, so the residual stream passes through
unchanged. A target step then costs many times a draft step, while every token,
and so the acceptance, stays that of the trained model.

A group is one period of the layer pattern (for qwen35 three delta nets and one
full attention). Groups go between the trained layers and the NextN layer.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from pathlib import Path

import gguf
import numpy as np
from numpy.typing import NDArray

ZERO = (
    "attn_output.weight",
    "ssm_out.weight",
    "ffn_down.weight",
    "ffn_down_exps.weight",
    "ffn_down_shexp.weight",
)


def integer(reader: gguf.GGUFReader, key: str, default: int | None = None) -> int:
    """One whole number of the metadata."""
    if key not in reader.fields:
        if default is None:
            raise ValueError(f"the file has no {key}: not a model with a repeating pattern of layers")
        return default
    return int(reader.fields[key].contents())


def copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter, block_count_key: str, added: int) -> None:
    """All fields as they are, with the new number of blocks."""
    for name, field in reader.fields.items():
        # the reader shows the header as GGUF.* fields; the writer makes header and architecture itself
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value, kind = field.contents(), field.types[0]
        if name == block_count_key:
            value += added
        sub_type = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, kind, sub_type=sub_type)


def inert_copy(name: str, tensor: gguf.ReaderTensor, rng: np.random.Generator) -> NDArray[np.generic]:
    """Data of a new layer's tensor: zero for output projections, random for other matrices, a copy for vectors."""
    a = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    if name in ZERO:
        a = np.zeros_like(a)
    elif a.ndim > 1:
        a = (rng.standard_normal(a.shape) * a.std()).astype(np.float32)
    return gguf.quants.quantize(a, tensor.tensor_type)


def inflate(source: Path, out: Path, groups: int = 8, seed: int = 0) -> tuple[int, int]:
    """Write a model with more trunk layers that computes what `source` computes.

    Args:
        source: A hybrid model (qwen35, qwen35moe, qwen3next), with or without a NextN layer.
        out: The file to write.
        groups: Number of periods of the layer pattern to add.
        seed: Of the added random weights.

    Returns:
        Number of trunk layers before and after.
    """
    if groups < 1:
        raise ValueError(f"groups is {groups}; it must be at least 1")
    if out.resolve() == source.resolve():
        raise ValueError(f"{out} is the model to read; write to another file")
    reader = gguf.GGUFReader(source)
    arch = reader.fields["general.architecture"].contents()
    period = integer(reader, f"{arch}.full_attention_interval")
    trunk = integer(reader, f"{arch}.block_count") - integer(reader, f"{arch}.nextn_predict_layers", 0)
    if trunk % period:
        raise ValueError(f"{trunk} trunk layers are not a multiple of the layer pattern's period, {period}")
    added = groups * period
    writer = gguf.GGUFWriter(str(out), arch)
    copy_metadata(reader, writer, f"{arch}.block_count", added)
    layers: dict[int, list[tuple[str, gguf.ReaderTensor]]] = defaultdict(list)
    for tensor in reader.tensors:
        name = tensor.name
        if block := re.fullmatch(r"blk\.(\d+)\.(.*)", name):
            layer, rest = int(block[1]), block[2]
            layers[layer].append((rest, tensor))
            name = f"blk.{layer if layer < trunk else layer + added}.{rest}"
        writer.add_tensor(name, np.array(tensor.data), raw_dtype=tensor.tensor_type)
    rng = np.random.default_rng(seed)
    for layer in range(trunk, trunk + added):
        for rest, tensor in layers[trunk - period + layer % period]:
            writer.add_tensor(f"blk.{layer}.{rest}", inert_copy(rest, tensor, rng), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return trunk, trunk + added


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    ap = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    ap.add_argument("source", type=Path, help="the model to read")
    ap.add_argument("out", type=Path, help="the file to write")
    ap.add_argument("--groups", type=int, default=8, help="periods of the layer pattern to add (default: %(default)s)")
    ap.add_argument("--seed", type=int, default=0, help="of the random weights (default: %(default)s)")
    args = ap.parse_args(argv)
    before, after = inflate(args.source, args.out, args.groups, args.seed)
    print(f"{args.out}: {before} -> {after} trunk layers")


if __name__ == "__main__":
    main()
