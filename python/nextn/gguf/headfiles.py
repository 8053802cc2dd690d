"""Take the draft head out of a model file, and put one into a file that lacks it."""

from __future__ import annotations

import os
from pathlib import Path

from nextn.errors import ModelFileError, NoNextnLayerError
from nextn.gguf.atomic import same_file
from nextn.gguf.cursor import show_path
from nextn.gguf.heads import LEGACY_SUFFIX
from nextn.gguf.inspection import Inspection, describe, read_parts
from nextn.gguf.reader import GgufHeader, MetadataArray, read_array
from nextn.gguf.types import ValueType
from nextn.gguf.verification import check_loadable
from nextn.gguf.writer import Progress, copied_metadata, copied_tensors, encode, write_gguf
from nextn.options import check_path, check_progress

__all__ = ["extract_head", "graft_head"]

# Tensors outside the block that a draft head computes with.
_SHARED = ("token_embd.weight", "output_norm.weight", "output.weight")
# What a file says about its own division or form, not about the model.
_OF_THE_FILE = ("split.", "general.alignment")
# Keys of the architecture in which a model and its head-only file may differ.
_OWN_COUNTS = ("block_count", "nextn_predict_layers")


def extract_head(
    path: str | os.PathLike[str], out: str | os.PathLike[str], *, progress: Progress | None = None
) -> None:
    """Write a file that holds only the draft head of a model: Speculator takes it as draft_model.

    It has the model's metadata and vocabulary, the tensors of the NextN block, and the embedding, norm and output
    matrix that the head shares with the model.

    Args:
        path: The model; of one in parts, the first part.
        out: The file to write; an existing one is replaced.
        progress: Called with the share that is written, 0 to 1.

    Raises:
        NoNextnLayerError: The model has no complete draft head.
        ModelFileError: The file is missing or damaged.
        ValueError: out is path.
        OSError: out cannot be written.
    """
    _check_arguments(progress, path=path, out=out)
    headers, found = _open(path, out)
    if found.head.state != "complete":
        raise NoNextnLayerError(f"{show_path(Path(path))}: {found.head.problem or 'the file has no draft head'}")
    prefix = f"blk.{found.n_layer}."
    tensors = [
        tensor for header in headers for tensor in copied_tensors(header, lambda name: _is_of_head(name, prefix))
    ]
    write_gguf(out, _kept_metadata(headers[0]), tensors, progress=progress)


def graft_head(
    path: str | os.PathLike[str],
    head: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> None:
    """Write a model with a draft head, from a model that lacks it and a file that has it.

    Args:
        path: The model without a draft head; of one in parts, the first part.
        head: A head-only file, in the engine's form or the older one, or a whole model with a head.
        out: The file to write, in one part; an existing one is replaced.
        progress: Called with the share that is written, 0 to 1.

    Raises:
        NoNextnLayerError: The head file has no complete draft head.
        ModelFileError: A file is missing or damaged, the model has a head already, or the two do not belong together:
            other architecture, sizes or vocabulary.
        ValueError: out is one of the two.
        OSError: out cannot be written.
    """
    _check_arguments(progress, path=path, head=head, out=out)
    headers, found = _open(path, out)
    head_headers, head_found = _open(head, out)
    if head_found.head.state != "complete":
        raise NoNextnLayerError(f"{show_path(Path(head))}: {head_found.head.problem or 'the file has no draft head'}")
    _check_fit(path, headers[0], found, head, head_headers[0], head_found)
    architecture, n_layer = found.architecture, found.n_layer
    assert n_layer is not None
    metadata = _kept_metadata(headers[0])
    metadata[f"{architecture}.block_count"] = encode(ValueType.UINT32, n_layer + 1)
    metadata[f"{architecture}.nextn_predict_layers"] = encode(ValueType.UINT32, 1)
    block = f"blk.{n_layer}."
    tensors = [t for header in headers for t in copied_tensors(header, lambda name: not name.startswith(block))]
    tensors += [
        tensor
        for header in head_headers
        for tensor in copied_tensors(header, lambda name: name.startswith(f"blk.{head_found.n_layer}."))
    ]
    write_gguf(out, metadata, tensors, progress=progress)


def _check_arguments(progress: object, **paths: object) -> None:
    """Refuse wrong types before anything is read."""
    for name, path in paths.items():
        check_path(name, path)
    check_progress(progress)


def _open(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> tuple[list[GgufHeader], Inspection]:
    """Headers and description of a sound file that is not the one to be written."""
    check_loadable(path)
    headers = read_parts(Path(path))
    for header in headers:
        if same_file(header.path, out):
            raise ValueError(f"the file to write, {show_path(Path(out))}, is one of those to read; choose another name")
    return headers, describe(headers)


def _is_of_head(name: str, prefix: str) -> bool:
    """Whether a tensor belongs into a head-only file."""
    return name.startswith(prefix) or name in _SHARED


def _kept_metadata(header: GgufHeader) -> dict[str, bytes]:
    """Everything that is about the model."""
    return copied_metadata(header, [key for key in header.metadata if not key.startswith(_OF_THE_FILE)])


def _check_fit(
    path: str | os.PathLike[str],
    model: GgufHeader,
    found: Inspection,
    head_path: str | os.PathLike[str],
    head: GgufHeader,
    head_found: Inspection,
) -> None:
    """Refuse a head that is not of this model."""
    shown, shown_head = show_path(Path(path)), show_path(Path(head_path))
    if found.kind == "draft head":
        raise ModelFileError(f"{shown} holds only a draft head itself; give the model first, then the head file")
    if found.head.state in ("complete", "incomplete", "undeclared"):
        raise ModelFileError(
            f"{shown} has tensors of a draft head already ({found.head.state}); there is nothing to put in"
        )
    name = head_found.architecture.removesuffix(LEGACY_SUFFIX)
    if name != found.architecture:
        raise ModelFileError(f"{shown_head} is a head of {name}, {shown} is a {found.architecture}")
    if head_found.n_layer != found.n_layer:
        raise ModelFileError(
            f"{shown_head} is the head of a model of {head_found.n_layer} layers, {shown} has {found.n_layer}"
        )
    differing = _differing_sizes(model, found.architecture, head, head_found.architecture)
    if differing:
        raise ModelFileError(f"{shown_head} does not fit {shown}: {'; '.join(differing)}")
    if not _same_array(model, head, "tokenizer.ggml.tokens"):
        raise ModelFileError(f"{shown_head} does not fit {shown}: their vocabularies differ")


def _differing_sizes(model: GgufHeader, prefix: str, head: GgufHeader, head_prefix: str) -> list[str]:
    """Sizes that both files give and that are not the same."""
    differing = []
    for key, value in head.metadata.items():
        name = key.removeprefix(f"{head_prefix}.")
        other = model.metadata.get(f"{prefix}.{name}")
        if name == key or name in _OWN_COUNTS or other is None:
            continue
        if isinstance(value, MetadataArray) and isinstance(other, MetadataArray):
            if list(read_array(head, key)) != list(read_array(model, f"{prefix}.{name}")):
                differing.append(f"other {name}")
        elif value != other:
            differing.append(f"{name} is {value}, not {other}")
    return differing


def _same_array(left: GgufHeader, right: GgufHeader, key: str) -> bool:
    """Whether two files have the same array under a key."""
    if not isinstance(left.metadata.get(key), MetadataArray) or not isinstance(right.metadata.get(key), MetadataArray):
        return left.metadata.get(key) == right.metadata.get(key)
    return copied_metadata(left, [key]) == copied_metadata(right, [key])
