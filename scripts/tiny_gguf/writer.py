"""Draw the numbers, pack them and write the file."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as GgmlType

from .layout import Tensor, tensors
from .shapes import Shape
from .vocab import CHAT_TEMPLATE, SPECIAL_TOKENS, synthetic_vocab

TYPES = {"f32": GgmlType.F32, "f16": GgmlType.F16, "bf16": GgmlType.BF16, "q8_0": GgmlType.Q8_0, "q4_0": GgmlType.Q4_0}
FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
}
PARTS = ("full", "trunk", "head", "legacy-head")
SPAN = 32  # columns per quantization block, and the unit by which rows are rotated
BLOCK_ELEMENTS = 1 << 20  # distinct random numbers in a matrix, at most
VOCAB_ELEMENTS = 1 << 23  # the same for matrices with a row per token: 2**18 distinct rows


def uniform(seed: int, name: str, shape: tuple[int, ...], std: float, mean: float) -> npt.NDArray[np.float32]:
    """Uniform numbers from raw PCG64 output, the one stream that NumPy promises never to change."""
    key = int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:16], "little")
    n = math.prod(shape)
    raw = np.random.PCG64(key).random_raw((n + 3) // 4).astype("<u8").view("<u2")[:n]
    values = raw.astype(np.float32)
    values -= np.float32(32767.5)
    values *= np.float32(std * math.sqrt(12) / 65536)
    values += np.float32(mean)
    return values.reshape(shape)


def _pack(values: npt.NDArray[np.float32], kind: GgmlType) -> npt.NDArray[np.uint8]:
    """The bytes of a matrix in a GGML type, one row of the result for each row."""
    packed = values if kind == GgmlType.F32 else gguf.quants.quantize(values, kind)
    return np.ascontiguousarray(packed).view(np.uint8).reshape(values.shape[0], -1)


def _matrix_bytes(t: Tensor, kind: GgmlType, seed: int, special_scale: float) -> Iterator[npt.NDArray[np.uint8]]:
    """A tensor's bytes in pieces.

    Drawing and quantizing billions of numbers takes minutes, so a large matrix repeats its first rows with their
    blocks of 32 columns rotated. Rows stay distinct and as good as independent; rotating packed bytes is a copy.
    """
    cols = t.shape[-1]
    rows = math.prod(t.shape) // cols
    if t.exact is not None:
        yield _pack(t.exact.reshape(rows, cols), kind)
        return
    by_token = t.role in ("embd", "output")
    last = len(SPECIAL_TOKENS) if t.role == "output" else 0
    distinct = min(rows, max(1, (VOCAB_ELEMENTS if by_token else BLOCK_ELEMENTS) // cols))
    if cols % SPAN or t.diagonal:
        distinct = rows
    values = uniform(seed, t.name, (distinct, cols), t.std, t.mean)
    if t.diagonal:
        np.fill_diagonal(values, values.diagonal() + np.float32(t.diagonal))
    base = _pack(values, kind)
    spans = base.reshape(distinct, max(1, cols // SPAN), -1)
    for start in range(0, rows - last, distinct):
        tile = np.roll(spans, start // distinct, axis=1) if start else spans
        yield tile[: rows - last - start].reshape(-1, base.shape[1])
    if last:  # rows of control tokens: weak, so that a random model does not end its turn by chance
        yield _pack(uniform(seed, t.name + ":special", (last, cols), t.std * special_scale, t.mean), kind)


def _kind(t: Tensor, body: str, output: str, embd: str) -> GgmlType:
    if t.role == "plain":
        return GgmlType.F32
    kind = TYPES[{"body": body, "output": output, "embd": embd}[t.role]]
    block = gguf.GGML_QUANT_SIZES[kind][0]
    return kind if t.shape[-1] % block == 0 else GgmlType.F16


def _add_metadata(w: gguf.GGUFWriter, s: Shape, part: str, weight_type: str) -> None:
    w.add_name("nextn random model")
    w.add_file_type(FILE_TYPES[weight_type])
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    w.add_context_length(s.n_ctx)
    w.add_embedding_length(s.n_embd)
    w.add_block_count(s.n_layer + (part != "trunk"))
    if part != "trunk":
        w.add_nextn_predict_layers(1)
    w.add_feed_forward_length(s.n_ff)
    w.add_head_count(s.n_head)
    w.add_head_count_kv(s.n_head_kv)
    w.add_key_length(s.head_dim)
    w.add_value_length(s.head_dim)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_rope_freq_base(s.rope_base)
    w.add_rope_dimension_count(s.n_rot)
    if s.arch != "qwen3next":
        w.add_rope_dimension_sections(s.rope_sections)
    w.add_ssm_conv_kernel(s.conv_kernel)
    w.add_ssm_state_size(s.state_size)
    w.add_ssm_group_count(s.key_heads)
    w.add_ssm_time_step_rank(s.value_heads)
    w.add_ssm_inner_size(s.state_size * s.value_heads)
    w.add_full_attention_interval(s.full_attention_interval)
    if s.is_moe:
        w.add_expert_count(s.n_expert)
        w.add_expert_used_count(s.n_expert_used)
        w.add_expert_feed_forward_length(s.n_ff_exp)
        w.add_expert_shared_feed_forward_length(s.n_ff_shexp)


def _add_vocab(w: gguf.GGUFWriter, s: Shape) -> None:
    vocab = synthetic_vocab(s.n_vocab)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen35")
    w.add_token_list(vocab.tokens)
    w.add_token_types(vocab.types)
    w.add_token_merges(vocab.merges)
    w.add_eos_token_id(vocab.tokens.index("<|im_end|>"))
    w.add_bos_token_id(vocab.tokens.index("<|endoftext|>"))
    w.add_pad_token_id(vocab.tokens.index("<|endoftext|>"))
    w.add_add_bos_token(False)
    w.add_chat_template(CHAT_TEMPLATE)


def _write_tensors(w: gguf.GGUFWriter, todo: list[tuple[Tensor, GgmlType]], seed: int, special_scale: float) -> None:
    """Write the headers, then the data piece by piece: GGUFWriter itself would want each tensor whole."""
    for t, kind in todo:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        w.add_tensor_info(t.name, t.shape, np.dtype(np.float32), math.prod(t.shape) // block * size, kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    assert w.fout is not None
    out = w.fout[0]
    out.write(bytes(-out.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))
    for t, kind in todo:
        for piece in _matrix_bytes(t, kind, seed, special_scale):
            np.ascontiguousarray(piece).tofile(out)
        out.write(bytes(-out.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))


def make(
    path: str | os.PathLike[str],
    shape: Shape,
    *,
    seed: int = 0,
    weight_type: str = "f32",
    output_type: str | None = None,
    embd_type: str | None = None,
    part: str = "full",
    special_scale: float = 0.2,
) -> Path:
    """Write one model file; the file appears complete or not at all.

    Args:
        path: where to write; an existing file is replaced.
        shape: sizes, for example one of `PRESETS` or `dataclasses.replace(PRESETS["tiny-moe"], tied=False)`.
        seed: any integer.
        weight_type: type of the matrices, a key of `TYPES`. Norms, routers and other small tensors stay F32, and
            rows that are no multiple of the type's block become F16, as llama.cpp's quantizer does it.
        output_type: type of the LM head (also of a tied embedding); default `weight_type`.
        embd_type: type of an untied embedding; default `weight_type`.
        part: "full"; "trunk" (no NextN block); "head" (embedding, LM head and NextN block only); "legacy-head" (the
            same under the older architecture name with "_mtp").
        special_scale: size of the LM head's rows of control tokens; 0.2 makes a random model never end its turn.

    Returns:
        The path. Raises ValueError for a wrong argument.
    """
    output_type = weight_type if output_type is None else output_type
    embd_type = weight_type if embd_type is None else embd_type
    for name, value, allowed in (
        ("weight_type", weight_type, TYPES),
        ("output_type", output_type, TYPES),
        ("embd_type", embd_type, TYPES),
        ("part", part, PARTS),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    target = Path(path)
    temp = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    arch = shape.arch + ("_mtp" if part == "legacy-head" else "")
    todo = [(t, _kind(t, weight_type, output_type, embd_type)) for t in tensors(shape, part)]
    writer = gguf.GGUFWriter(temp, arch)
    try:
        _add_metadata(writer, shape, part, weight_type)
        _add_vocab(writer, shape)
        _write_tensors(writer, todo, seed, special_scale)
        writer.close()
        os.replace(temp, target)
    finally:
        writer.close()
        temp.unlink(missing_ok=True)
    return target
