"""Carry a plan out: in a process of its own, into a file that appears complete or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from nextn._threads import default_n_threads
from nextn.errors import ModelFileError, NextnError
from nextn.gguf.atomic import new_file, same_file
from nextn.gguf.reader import read_header
from nextn.gguf.writer import Progress
from nextn.options import check_bool, check_int, check_path, check_progress
from nextn.quantize.imatrix import ImportanceMatrix, read_imatrix
from nextn.quantize.plan import Plan, check_ready, engine_types, file_type, make_plan
from nextn.quantize.recipes import DEFAULT_RECIPE

__all__ = ["quantize", "run_plan"]

_LONGEST_TEXT = 127  # of a metadata value that the engine's quantizer adds
_POLL_SECONDS = 0.1


def quantize(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    type_name: str,
    *,
    recipe: str = DEFAULT_RECIPE,
    tensor_types: Sequence[tuple[str, str]] = (),
    imatrix: str | os.PathLike[str] | None = None,
    allow_requantize: bool = False,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Write a quantized copy of a model. The same file and options give the same bytes.

    Args:
        path: The model, F32, F16 or BF16; of one in parts, the first part.
        out: The file to write, in one part; an existing one is replaced.
        type_name: Type of the file, for example "Q4_K_M".
        recipe: Which tensors keep more bits: "base" none, "nextn" the draft head, "turbo-kv" attention's queries and
            keys, "combined" both.
        tensor_types: Pairs of a regular expression and the type of the tensors whose names it is found in.
        imatrix: An importance matrix, as nextn imatrix or llama-imatrix makes it.
        allow_requantize: Quantize tensors again that are quantized already.
        n_threads: Threads; None takes the physical cores this process may use.
        progress: Called with the share that is written, 0 to 1.

    Returns:
        What was made.

    Raises:
        ModelFileError: A file is missing or damaged.
        NextnError: An importance matrix is needed, a tensor is quantized already, or the engine failed.
        ValueError: A wrong argument; out is path.
        OSError: out cannot be written.
    """
    _check_arguments(out, imatrix, allow_requantize, progress)
    plan = make_plan(path, type_name, recipe=recipe, tensor_types=tensor_types)
    run_plan(plan, out, imatrix=imatrix, allow_requantize=allow_requantize, n_threads=n_threads, progress=progress)
    return plan


def run_plan(
    plan: Plan,
    out: str | os.PathLike[str],
    *,
    imatrix: str | os.PathLike[str] | None = None,
    allow_requantize: bool = False,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Carry a plan out; the arguments and errors are those of quantize()."""
    _check_arguments(out, imatrix, allow_requantize, progress)
    threads = default_n_threads() if n_threads is None else check_int("n_threads", n_threads, 1, 512)
    for name in (*plan.files, *([imatrix] if imatrix is not None else [])):
        if same_file(name, out):
            raise ValueError(f"the file to write, {out}, is one of those to read; choose another name")
    matrix = None if imatrix is None else read_imatrix(imatrix)
    check_ready(plan, has_imatrix=matrix is not None, allow_requantize=allow_requantize)
    if matrix is not None:
        _check_fit(plan, matrix, imatrix)
    with new_file(out) as part:
        _check_room(plan, part)
        number, overrides = engine_types(plan)
        job = {
            "path_in": os.fspath(plan.files[0]),
            "path_out": os.fspath(part),
            "file_type": number,
            "n_threads": threads,
            "overrides": overrides,
            "imatrix": None if imatrix is None else os.fspath(imatrix),
            "metadata": _metadata(plan, matrix, imatrix),
            "allow_requantize": allow_requantize,
        }
        _run_worker(job, part, plan.new_size, progress)
        _check_result(plan, part)


def _check_arguments(out: object, imatrix: object, allow_requantize: object, progress: object) -> None:
    """Refuse wrong types before anything is read."""
    check_path("out", out)
    if imatrix is not None:
        check_path("imatrix", imatrix)
    check_bool("allow_requantize", allow_requantize)
    check_progress(progress)


def _metadata(
    plan: Plan, matrix: ImportanceMatrix | None, imatrix: str | os.PathLike[str] | None
) -> dict[str, int | str]:
    """What the new file says about how it was made."""
    given = ",".join(f"{pattern}={kind}" for pattern, kind in plan.given)
    entries: dict[str, int | str] = {
        "general.file_type": file_type(plan.file_type)[0],
        "nextn.quantize.recipe": plan.recipe.name,
        "nextn.quantize.type": plan.file_type,
    }
    if given:
        fits = len(given.encode()) <= _LONGEST_TEXT
        entries["nextn.quantize.tensor_types"] = given if fits else f"{len(plan.given)} patterns"
    if matrix is not None and imatrix is not None:  # upstream's keys
        entries["quantize.imatrix.file"] = Path(imatrix).name.encode()[-_LONGEST_TEXT:].decode(errors="ignore")
        entries["quantize.imatrix.entries_count"] = len(matrix.entries)
        entries["quantize.imatrix.chunks_count"] = matrix.n_chunk
        if matrix.datasets and 0 < len(matrix.datasets[0].encode()) <= _LONGEST_TEXT:
            entries["quantize.imatrix.dataset"] = matrix.datasets[0]
    return entries


def _check_fit(plan: Plan, matrix: ImportanceMatrix, imatrix: object) -> None:
    """An importance matrix is of this model: some of its weights are there, and those have the right sizes."""
    tensors = {tensor.name: tensor for tensor in plan.tensors}
    known = [name for name in matrix.entries if name in tensors]
    if not known:
        raise ModelFileError(f"{imatrix}: has no entry for any tensor of {plan.files[0]}: it is of another model")
    for name in known:
        shape = tensors[name].shape
        n_matrix = shape[2] if len(shape) > 2 else 1
        entry = matrix.entries[name]
        if entry.sums.size != shape[0] * n_matrix:
            raise ModelFileError(
                f"{imatrix}: has {entry.sums.size:,} sums for {name}, whose rows have {shape[0]:,} columns"
                + (f" in {n_matrix:,} matrices" if n_matrix > 1 else "")
            )
    missing = [name for name in plan.needs_imatrix if name not in matrix.entries]
    if missing:
        raise ModelFileError(f"{imatrix}: has no entry for {missing[0]}, which cannot be {plan.file_type} without one")


def _check_room(plan: Plan, part: Path) -> None:
    """A full disk is better known before."""
    free = shutil.disk_usage(part.parent).free
    if plan.new_size > free:
        raise OSError(f"the new file needs {plan.new_size:,} bytes, {free:,} are free in {part.parent}")


def _run_worker(job: Mapping[str, Any], part: Path, size: int, progress: Progress | None) -> None:
    """Let a process of its own do the job, and end it when anything happens here."""
    with tempfile.TemporaryFile() as answer:
        worker = subprocess.Popen(
            [sys.executable, "-m", "nextn.quantize.worker"],
            stdin=subprocess.PIPE,
            stdout=answer,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
        try:
            _send(worker, job)
            while True:
                try:
                    worker.wait(_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    if progress:
                        progress(min(1.0, part.stat().st_size / size))
        except BaseException:
            worker.kill()
            raise
        finally:
            worker.wait()
            assert worker.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # what it never read is still in the buffer
                worker.stdin.close()
        _judge(worker.returncode, answer, job["path_in"])
    if progress:
        progress(1.0)


def _send(worker: subprocess.Popen[bytes], job: Mapping[str, Any]) -> None:
    """Give the worker its job; its input stays open as long as this process lives."""
    assert worker.stdin is not None
    try:
        worker.stdin.write(json.dumps(job).encode() + b"\n")
        worker.stdin.flush()
    except BrokenPipeError:
        pass  # it is gone already, which its exit code tells better


def _judge(code: int, answer: IO[bytes], path: str) -> None:
    """Raise when the worker failed."""
    answer.seek(0)
    try:
        result = json.loads(answer.read())
    except ValueError:
        how = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
        raise NextnError(f"{path}: the process that quantizes it ended without a word ({how})") from None
    if "error" in result:
        raise NextnError(result["error"])


def _check_result(plan: Plan, part: Path) -> None:
    """The file is what was planned, or it does not appear."""
    header = read_header(part)
    made = {tensor.name: tensor.type.name for tensor in header.tensors}
    wanted = {tensor.name: tensor.target.name for tensor in plan.tensors}
    if made != wanted:
        names = [name for name in wanted if made.get(name) != wanted[name]] or list(made.keys() - wanted.keys())
        raise NextnError(f"the engine made {names[0]} {made.get(names[0])}, not {wanted.get(names[0])} as planned")
