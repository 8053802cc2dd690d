"""Importance matrices as files: for each weight the mean square of what it is multiplied with, column by column.

The form is that of llama.cpp's llama-imatrix (tools/imatrix, common/imatrix-loader): a GGUF file with the tensors
``NAME.in_sum2`` [n_col, n_matrix] and ``NAME.counts`` [1, n_matrix], both F32, for each weight NAME.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nextn.errors import ModelFileError
from nextn.gguf.cursor import open_file
from nextn.gguf.reader import MetadataArray, TensorInfo, read_array, read_header
from nextn.gguf.types import TENSOR_TYPES, ValueType
from nextn.gguf.writer import TensorToWrite, encode, write_gguf
from nextn.options import check_path

__all__ = ["Entry", "ImportanceMatrix", "read_imatrix", "write_imatrix"]

_SUMS, _COUNTS = ".in_sum2", ".counts"
_F32 = TENSOR_TYPES[0]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one weight was multiplied with.

    Args:
        sums: Sum of the squares, float64 [n_matrix, n_col]; a mixture of experts has a matrix for each expert.
        counts: Number of rows that were summed, int64 [n_matrix].
    """

    sums: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]

    def importance(self) -> npt.NDArray[np.float32]:
        """Mean squares, float32 [n_matrix * n_col]; 1 for an expert that never met a row."""
        counts = self.counts[:, None]
        means = np.where(counts > 0, self.sums / np.maximum(counts, 1), 1.0)
        return means.astype(np.float32).ravel()


@dataclass(frozen=True, kw_only=True)
class ImportanceMatrix:
    """The content of a file.

    Args:
        entries: By the weight's name.
        datasets: Names of the texts.
        n_chunk: Number of chunks of them.
        chunk_size: Tokens per chunk.
    """

    entries: Mapping[str, Entry]
    datasets: tuple[str, ...] = field(default=())
    n_chunk: int = 0
    chunk_size: int = 0


def write_imatrix(path: str | os.PathLike[str], matrix: ImportanceMatrix) -> None:
    """Write a file that llama-quantize reads as well; it appears complete or not at all."""
    check_path("path", path)
    if not isinstance(matrix, ImportanceMatrix):
        raise TypeError(f"matrix must be an ImportanceMatrix, not {type(matrix).__name__}")
    metadata = {
        "general.type": encode(ValueType.STRING, "imatrix"),
        "imatrix.datasets": encode(ValueType.ARRAY, matrix.datasets),
        "imatrix.chunk_count": encode(ValueType.UINT32, matrix.n_chunk),
        "imatrix.chunk_size": encode(ValueType.UINT32, matrix.chunk_size),
    }
    tensors = []
    for name, entry in sorted(matrix.entries.items()):
        tensors += [_tensor(name + _SUMS, entry.sums), _tensor(name + _COUNTS, entry.counts[:, None])]
    write_gguf(path, metadata, tensors)


def read_imatrix(path: str | os.PathLike[str]) -> ImportanceMatrix:
    """Read a file.

    Raises:
        ModelFileError: It is missing, damaged, or no importance matrix; says what is wrong.
    """
    header = read_header(path)
    if header.metadata.get("general.type") != "imatrix":
        raise ModelFileError(
            f"{path}: is no importance matrix (general.type is not 'imatrix'); nextn imatrix makes one"
        )
    tensors = {tensor.name: tensor for tensor in header.tensors}
    entries = {}
    for name in tensors:
        if name.endswith(_SUMS):
            base = name.removesuffix(_SUMS)
            if base + _COUNTS not in tensors:
                raise ModelFileError(f"{path}: has sums but no counts for {base!a}")
            entries[base] = _entry(header.path, base, tensors[name], tensors[base + _COUNTS])
    if not entries:
        raise ModelFileError(f"{path}: the importance matrix is empty")
    datasets = header.metadata.get("imatrix.datasets")
    is_list = isinstance(datasets, MetadataArray) and datasets.type is ValueType.STRING
    numbers = [header.metadata.get(f"imatrix.chunk_{name}") for name in ("count", "size")]
    n_chunk, chunk_size = (value if isinstance(value, int) else 0 for value in numbers)
    return ImportanceMatrix(
        entries=entries,
        datasets=tuple(str(text) for text in read_array(header, "imatrix.datasets")) if is_list else (),
        n_chunk=n_chunk,
        chunk_size=chunk_size,
    )


def _tensor(name: str, values: npt.NDArray[np.float64] | npt.NDArray[np.int64]) -> TensorToWrite:
    """A matrix as an F32 tensor."""
    data = values.astype("<f4").tobytes()
    return TensorToWrite(name=name, shape=values.shape[::-1], type=_F32, data=data, size=len(data))


def _entry(path: Path, name: str, sums: TensorInfo, counts: TensorInfo) -> Entry:
    """One weight's numbers, checked."""
    if sums.type is not _F32 or counts.type is not _F32:
        raise ModelFileError(f"{path}: sums and counts of {name!a} must be F32")
    n_matrix, n_col = counts.n_params, sums.shape[0]
    values = _read(path, sums).astype(np.float64)
    numbers = _read(path, counts)
    if values.size != n_matrix * n_col:
        raise ModelFileError(
            f"{path}: {name!a} has {values.size:,} sums for {n_matrix:,} matrices of {n_col:,} columns"
        )
    if not (np.isfinite(values).all() and np.isfinite(numbers).all() and (values >= 0).all() and (numbers >= 0).all()):
        raise ModelFileError(f"{path}: {name!a} has sums or counts that are no sums of squares")
    return Entry(sums=values.reshape(n_matrix, n_col), counts=np.rint(numbers).astype(np.int64))


def _read(path: Path, tensor: TensorInfo) -> npt.NDArray[np.float32]:
    """The numbers of an F32 tensor."""
    with open_file(path) as file:
        file.seek(tensor.offset)
        data = file.read(tensor.size)
    if len(data) != tensor.size:
        raise ModelFileError(f"{path}: became shorter while it was read")
    return np.frombuffer(data, "<f4")
