"""What is in a model file: architecture, layers, draft head, sizes and types of its parts, tokenizer."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nextn.errors import ModelFileError
from nextn.gguf.heads import KNOWN_HEADS, LEGACY_SUFFIX, HeadState, check_head
from nextn.gguf.reader import GgufHeader, MetadataArray, MetadataValue, TensorInfo, read_header
from nextn.gguf.types import FILE_TYPES
from nextn.options import check_path

PART_ORDER = (
    "embedding",
    "attention",
    "delta net",
    "recurrent",
    "feed-forward",
    "experts",
    "NextN head",
    "output",
    "other",
)

_BLOCK = re.compile(r"blk\.(\d{1,9})\.(.+)", re.ASCII)
_SPLIT_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.ASCII | re.DOTALL)
_MAX_FILES = 1000


@dataclass(frozen=True, kw_only=True)
class Part:
    """A group of tensors.

    Args:
        name: One of `PART_ORDER`.
        n_tensors: Number of tensors.
        n_params: Number of weights.
        size: Bytes in the file.
        types: Bytes per tensor type, largest first.
    """

    name: str
    n_tensors: int
    n_params: int
    size: int
    types: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Head:
    """The draft head (NextN layer) of a file.

    Args:
        state: See `nextn.gguf.heads.HeadCheck`; only "complete" can draft.
        problem: What is wrong, None when nothing is.
        missing: Names of tensors that are not there.
        block: Number of its block, None when there is none.
        n_params: Number of its own weights.
        size: Bytes of its own tensors.
        types: Bytes per tensor type, largest first.
        output_tensor: Name of the matrix that turns its hidden rows into logits; most heads use the model's.
        output_type: Type of that matrix: it takes most of the time of a draft step.
    """

    state: HeadState
    problem: str | None
    missing: tuple[str, ...]
    block: int | None
    n_params: int
    size: int
    types: dict[str, int]
    output_tensor: str | None
    output_type: str | None


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """The vocabulary of a file.

    Args:
        model: Kind of tokenizer, for example "gpt2" (byte-level BPE).
        pre: Name of its pre-tokenizer.
        n_tokens: Number of tokens.
        chat_template: Whether the file has a chat template.
    """

    model: str | None
    pre: str | None
    n_tokens: int | None
    chat_template: bool


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What is in a model file. Counts are None when the file does not say.

    Args:
        files: The file, or all parts of a model in parts.
        size: Bytes on disk.
        version: Version of the GGUF format.
        name: The model's name.
        architecture: For example "qwen35".
        kind: "model", or "draft head" for a file that holds only the head.
        file_type: Quantization that most of the file is in, as declared.
        n_params: Number of weights.
        n_layer: Layers of the trunk.
        n_layer_nextn: NextN layers that the file declares.
        n_layer_attention: Trunk layers with full attention.
        n_layer_recurrent: Trunk layers with a recurrent state (gated delta net).
        n_embd: Width of a hidden row.
        n_ctx_train: Context length in tokens that the model was trained for.
        n_expert: Experts per layer; 0 for a dense model.
        n_expert_used: Experts per token; 0 for a dense model.
        head: The draft head.
        tokenizer: The vocabulary.
        parts: Groups of tensors.
    """

    files: tuple[str, ...]
    size: int
    version: int
    name: str | None
    architecture: str
    kind: Literal["model", "draft head"]
    file_type: str | None
    n_params: int
    n_layer: int | None
    n_layer_nextn: int
    n_layer_attention: int
    n_layer_recurrent: int
    n_embd: int | None
    n_ctx_train: int | None
    n_expert: int
    n_expert_used: int
    head: Head
    tokenizer: Tokenizer
    parts: tuple[Part, ...]


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Say what is in a model file, from its header alone.

    Args:
        path: A GGUF file; of a model in parts, any of them.

    Returns:
        The description.

    Raises:
        ModelFileError: The file, or one of its parts, is missing, damaged, or no model.
    """
    check_path("path", path)
    return describe(read_parts(Path(path)))


def describe(headers: Sequence[GgufHeader]) -> Inspection:
    """The description of a model whose headers are read; see `inspect`."""
    keys = _Keys(headers[0])
    tensors = [tensor for header in headers for tensor in header.tensors]
    stated = keys.text("general.architecture")
    if stated is None:
        raise ModelFileError(f"{headers[0].path} is no model: it has no general.architecture")
    architecture = stated.removesuffix(LEGACY_SUFFIX)
    n_layer, n_layer_nextn = _count_layers(keys, stated, tensors)
    head_only = n_layer_nextn > 0 and not any(tensor.name == "blk.0.attn_norm.weight" for tensor in tensors)
    groups = _group(tensors, architecture, n_layer)
    recurrent = _blocks_with(tensors, "ssm_", n_layer)
    file_type = keys.integer("general.file_type")
    return Inspection(
        files=tuple(str(header.path) for header in headers),
        size=sum(header.size for header in headers),
        version=headers[0].version,
        name=keys.text("general.name"),
        architecture=stated,
        kind="draft head" if head_only and architecture in KNOWN_HEADS else "model",
        file_type=None if file_type is None else FILE_TYPES.get(file_type, f"number {file_type}"),
        n_params=sum(tensor.n_params for tensor in tensors),
        n_layer=n_layer,
        n_layer_nextn=n_layer_nextn,
        n_layer_attention=len(_blocks_with(tensors, "attn_", n_layer) - recurrent),
        n_layer_recurrent=len(recurrent),
        n_embd=keys.integer(f"{stated}.embedding_length"),
        n_ctx_train=keys.integer(f"{stated}.context_length"),
        n_expert=keys.integer(f"{stated}.expert_count") or 0,
        n_expert_used=keys.integer(f"{stated}.expert_used_count") or 0,
        head=_describe_head(architecture, n_layer, n_layer_nextn, tensors, groups.get("NextN head", [])),
        tokenizer=_describe_tokenizer(keys),
        parts=tuple(_describe_part(name, groups[name]) for name in PART_ORDER if name in groups),
    )


class _Keys:
    """Metadata by key, with an error when a value is of the wrong kind."""

    def __init__(self, header: GgufHeader) -> None:
        self.path = header.path
        self.values: Mapping[str, MetadataValue] = header.metadata

    def integer(self, key: str) -> int | None:
        """A whole number that is not negative, None when the key is absent."""
        value = self.values.get(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            return value
        raise ModelFileError(f"{self.path}: metadata {key!a} must be a whole number, not {_shown(value)}")

    def text(self, key: str) -> str | None:
        """A text, None when the key is absent."""
        value = self.values.get(key)
        if value is None or isinstance(value, str):
            return value
        raise ModelFileError(f"{self.path}: metadata {key!a} must be a text, not {_shown(value)}")


def _shown(value: MetadataValue) -> str:
    """A value of the wrong kind, for an error."""
    return "an array" if isinstance(value, MetadataArray) else ascii(value)[:60]


def read_parts(path: Path) -> list[GgufHeader]:
    """The header of the file, or of every file of a model in parts."""
    header = read_header(path)
    n_files = _Keys(header).integer("split.count") or 1
    if n_files == 1:
        return [header]
    match = _SPLIT_NAME.fullmatch(path.name)
    if match is None or n_files > _MAX_FILES or int(match[3]) != n_files:
        raise ModelFileError(
            f"{path}: is one of {n_files:,} files of a model, but not named like it; the engine finds the others by "
            f"their names: NAME-00001-of-{n_files:05d}.gguf"
        )
    parts = [path.with_name(f"{match[1]}-{i + 1:05d}-of-{match[3]}.gguf") for i in range(n_files)]
    for i, part in enumerate(parts):
        if not part.exists():
            raise ModelFileError(
                f"{path}: part {i + 1} of {n_files} is missing: {part}; put all parts into one directory"
            )
    return [read_header(part) for part in parts]


def _count_layers(keys: _Keys, architecture: str, tensors: Iterable[TensorInfo]) -> tuple[int | None, int]:
    """Number of trunk layers, and of NextN layers that the file declares."""
    n_nextn = keys.integer(f"{architecture}.nextn_predict_layers") or 0
    n_blocks = keys.integer(f"{architecture}.block_count")
    if architecture.endswith(LEGACY_SUFFIX):  # these go by the number in the tensors' names
        heads = _blocks_with(tensors, "nextn.", None)
        return (min(heads), 1) if heads else (n_blocks, 0)
    if n_blocks is None:
        return None, n_nextn
    if n_nextn >= max(n_blocks, 1):
        raise ModelFileError(
            f"{keys.path}: {architecture}.nextn_predict_layers is {n_nextn:,} of {n_blocks:,} blocks: "
            "no trunk layer is left"
        )
    return n_blocks - n_nextn, n_nextn


def _blocks_with(tensors: Iterable[TensorInfo], prefix: str, n_layer: int | None) -> set[int]:
    """Numbers of the trunk blocks that have a tensor whose name begins with the prefix."""
    return {
        int(match[1])
        for tensor in tensors
        if (match := _BLOCK.fullmatch(tensor.name))
        and match[2].startswith(prefix)
        and (n_layer is None or int(match[1]) < n_layer)
    }


def _group(tensors: list[TensorInfo], architecture: str, n_layer: int | None) -> dict[str, list[TensorInfo]]:
    """Sort the tensors into parts."""
    recurrent = _blocks_with(tensors, "ssm_", n_layer)
    groups: dict[str, list[TensorInfo]] = {}
    for tensor in tensors:
        match = _BLOCK.fullmatch(tensor.name)
        if match is None:
            name = _part_outside_blocks(tensor.name)
        elif ".nextn." in tensor.name or (n_layer is not None and int(match[1]) >= n_layer):
            name = "NextN head"
        else:
            name = _part_in_block(match[2])
            if name == "attention" and int(match[1]) in recurrent:
                name = "delta net" if architecture in KNOWN_HEADS else "recurrent"
        groups.setdefault(name, []).append(tensor)
    return groups


def _part_outside_blocks(name: str) -> str:
    """Part of a tensor that belongs to no block."""
    if name.startswith("token_embd"):
        return "embedding"
    return "output" if name.startswith("output") else "other"


def _part_in_block(name: str) -> str:
    """Part of a tensor of a trunk block, from the rest of its name."""
    if re.match(r"ffn_.*(_exps|_shexp|_inp)\b", name):
        return "experts"
    if name.startswith(("ffn_", "post_attention_norm", "post_ffw_norm")):
        return "feed-forward"
    return "attention" if name.startswith(("attn_", "ssm_", "post_attn")) else "other"


def _sizes(tensors: Iterable[TensorInfo]) -> dict[str, int]:
    """Bytes per tensor type, largest first."""
    sizes: dict[str, int] = {}
    for tensor in tensors:
        sizes[tensor.type.name] = sizes.get(tensor.type.name, 0) + tensor.size
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def _describe_part(name: str, tensors: list[TensorInfo]) -> Part:
    """Sum up one group."""
    return Part(
        name=name,
        n_tensors=len(tensors),
        n_params=sum(tensor.n_params for tensor in tensors),
        size=sum(tensor.size for tensor in tensors),
        types=_sizes(tensors),
    )


def _describe_head(
    architecture: str, n_layer: int | None, n_layer_nextn: int, tensors: list[TensorInfo], own: list[TensorInfo]
) -> Head:
    """Describe the draft head."""
    types = {tensor.name: tensor.type.name for tensor in tensors}
    check = check_head(architecture, n_layer or 0, n_layer_nextn, types)
    candidates = (f"blk.{n_layer}.nextn.shared_head_head.weight", "output.weight", "token_embd.weight")
    output = next((name for name in candidates if own and name in types), None)
    return Head(
        state=check.state,
        problem=check.problem,
        missing=check.missing,
        block=n_layer if own else None,
        n_params=sum(tensor.n_params for tensor in own),
        size=sum(tensor.size for tensor in own),
        types=_sizes(own),
        output_tensor=output,
        output_type=types[output] if output else None,
    )


def _describe_tokenizer(keys: _Keys) -> Tokenizer:
    """Describe the vocabulary."""
    tokens = keys.values.get("tokenizer.ggml.tokens")
    return Tokenizer(
        model=keys.text("tokenizer.ggml.model"),
        pre=keys.text("tokenizer.ggml.pre"),
        n_tokens=tokens.count if isinstance(tokens, MetadataArray) else None,
        chat_template=keys.text("tokenizer.chat_template") is not None,
    )
