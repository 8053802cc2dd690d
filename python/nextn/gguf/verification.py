"""Is this file safe to open, and good for speculation? Answered from the header, before the engine sees the file.

Reading is bounded (see reader.py), and nothing outside the file is touched. The engine asserts on many of the things
checked here; an assertion ends the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from nextn.errors import ModelFileError
from nextn.gguf.findings import Finding, Report, damage
from nextn.gguf.heads import KNOWN_HEADS, LEGACY_SUFFIX
from nextn.gguf.hyper import check_sizes, read_sizes
from nextn.gguf.inspection import Inspection, describe, read_parts
from nextn.gguf.reader import GgufHeader, TensorInfo
from nextn.gguf.tensors import check_present, check_shapes, check_types
from nextn.gguf.types import TENSOR_TYPES
from nextn.gguf.vocabulary import check_template, check_tokenizer
from nextn.options import check_bool, check_path

__all__ = ["check_loadable", "verify"]

_ORDER = {"error": 0, "warning": 1, "note": 2}
_GOOD_BITS = 8.5  # bits per weight of Q8_0

_HEAD_ADVICE = {
    "none": "generate plainly, or take a file with a draft head; nextn graft-head puts one in",
    "missing": "convert or download the file again, or put the head back with nextn graft-head",
    "incomplete": "convert or download the file again, or put the head back with nextn graft-head",
    "undeclared": "convert the file again with a converter that knows NextN layers",
    "unsupported": "it generates plainly (--no-draft)",
}


def verify(path: str | os.PathLike[str], *, load: bool = False) -> Report:
    """Say whether a model file is sound, and whether its draft head is there and good.

    Args:
        path: A GGUF file; of a model in parts, any of them.
        load: Also load it in a process of its own and draft a few tokens.

    Returns:
        The report; a file that cannot be read at all is a report with one error.
    """
    check_path("path", path)
    check_bool("load", load)
    try:
        headers = read_parts(Path(path))
        found = describe(headers)
    except ModelFileError as error:
        return _unreadable(path, error)
    findings = [*_check_file(headers, found), *_check_head(found)]
    if load and not any(finding.severity == "error" for finding in findings):
        from nextn.gguf.trial import try_loading

        findings += try_loading(path, found)
    findings.sort(key=lambda finding: _ORDER[finding.severity])
    return Report(path=os.fspath(path), files=found.files, head=found.head.state, findings=tuple(findings))


def check_loadable(path: str | os.PathLike[str]) -> None:
    """Raise ModelFileError for a file that the engine should not be given; says nothing about its draft head.

    Args:
        path: A GGUF file; of a model in parts, the first.
    """
    check_path("path", path)
    headers = read_parts(Path(path))
    given = Path(path).name
    if given != headers[0].path.name:
        number = 1 + next(i for i, header in enumerate(headers) if header.path.name == given)
        raise ModelFileError(
            f"{os.fspath(path)}: is part {number} of {len(headers)}; give the first part: {headers[0].path}"
        )
    for finding in _check_file(headers, describe(headers)):
        if finding.severity == "error":
            raise ModelFileError(f"{os.fspath(path)}: {finding.message}; {finding.advice}")


def _unreadable(path: str | os.PathLike[str], error: ModelFileError) -> Report:
    """The report of a file whose header is damaged."""
    finding = damage("unreadable", str(error))
    return Report(path=os.fspath(path), files=(), head=None, findings=(finding,))


def _check_file(headers: Sequence[GgufHeader], found: Inspection) -> Iterator[Finding]:
    """Everything about the file apart from whether its head is there and good."""
    first = headers[0]
    architecture = found.architecture.removesuffix(LEGACY_SUFFIX)
    tensors = {tensor.name: tensor for header in headers for tensor in header.tensors}
    findings = [*check_sizes(first, found.architecture, architecture), *_check_names(headers, tensors)]
    yield from findings
    embedding = tensors.get("token_embd.weight")
    n_rows = embedding.shape[1] if embedding and len(embedding.shape) == 2 else None
    yield from check_present(tensors, architecture)
    yield from check_types(tensors.values(), architecture)
    yield from check_tokenizer(first, n_rows, needed=architecture in KNOWN_HEADS)
    yield from check_template(first)
    if architecture in KNOWN_HEADS and not findings and n_rows is not None and found.n_layer is not None:
        sizes = read_sizes(first, found.architecture, found.n_layer, found.n_layer_nextn)
        yield from check_shapes(tensors, architecture, sizes, n_rows)
    if architecture not in KNOWN_HEADS:
        yield Finding(
            severity="note",
            about="file",
            code="unknown-architecture",
            message=f"the shapes of {ascii(architecture)[:60]} are not known here; the engine checks them",
            advice="--load tries the file in a process of its own",
        )


def _check_names(headers: Sequence[GgufHeader], tensors: dict[str, TensorInfo]) -> Iterator[Finding]:
    """The parts of a model in parts belong together."""
    n_tensors = sum(len(header.tensors) for header in headers)
    if n_tensors == 0:
        yield damage("no-tensors", "the file has no tensors: it holds a vocabulary or metadata only")
    if len(tensors) < n_tensors:
        yield damage("split", "a tensor occurs in several files of the model")
    if len(headers) == 1:
        return
    for i, header in enumerate(headers):
        if header.metadata.get("split.no") != i or header.metadata.get("split.count") != len(headers):
            yield damage("split", f"{header.path.name} does not say that it is part {i + 1} of {len(headers)}")
    wanted = headers[0].metadata.get("split.tensors.count", n_tensors)
    if wanted != n_tensors:
        yield damage("split", f"the files hold {n_tensors:,} tensors together, not {wanted}")


def _check_head(found: Inspection) -> Iterator[Finding]:
    """Whether the head can draft, and drafts well."""
    head = found.head
    if head.state != "complete":
        yield Finding(
            severity="error" if head.state in ("missing", "incomplete") else "warning",
            about="head",
            code=f"head-{head.state}",
            message=_safe(head.problem or "the file has no draft head"),
            advice=_HEAD_ADVICE[head.state],
        )
        return
    low = [name for name in head.types if _bits(name) < _GOOD_BITS]
    if low:
        yield Finding(
            severity="warning",
            about="head",
            code="head-quantized",
            message=f"the draft head is stored in {', '.join(low)}, below Q8_0: that costs acceptance",
            advice="quantize again from the original with nextn quantize --recipe nextn, or use an importance matrix",
        )
    if head.output_type is not None and _bits(head.output_type) < 4.5:
        yield Finding(
            severity="note",
            about="head",
            code="output-quantized",
            message=f"{head.output_tensor}, which turns the head's rows into logits, is {head.output_type}",
            advice="a file with a finer output matrix may accept more",
        )


def _bits(name: str) -> float:
    """Bits per weight of a tensor type."""
    kind = next(kind for kind in TENSOR_TYPES.values() if kind.name == name)
    return 8 * kind.block_bytes / kind.block_size


def _safe(text: str) -> str:
    """Printable and short."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 300 else text[:297] + "..."
