"""The few calls of the ggml API that tests and timings of the CPU kernels need, through ctypes.

The libraries are those in ``NEXTN_GGML_DIR``, or the installed package's own.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12,
    "Q5_K": 13, "Q6_K": 14, "IQ2_XXS": 16, "IQ2_XS": 17, "IQ3_XXS": 18, "IQ1_S": 19, "IQ4_NL": 20, "IQ3_S": 21,
    "IQ2_S": 22, "IQ4_XS": 23, "IQ1_M": 29, "BF16": 30, "TQ1_0": 34, "TQ2_0": 35, "MXFP4": 39, "NVFP4": 40, "Q1_0": 41,
    "Q2_0": 42,
}  # fmt: skip
F32, I32 = 0, 26
_CPU_DEVICE = 0


class _TypeTraits(ctypes.Structure):
    _fields_ = [
        ("type_name", c_char_p),
        ("blck_size", c_int64),
        ("blck_size_interleave", c_int64),
        ("type_size", c_size_t),
        ("is_quantized", c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_int64)),
    ]


class _InitParams(ctypes.Structure):
    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


def library_dir() -> Path:
    """Return the directory of the ggml libraries under test."""
    if directory := os.environ.get("NEXTN_GGML_DIR"):
        return Path(directory)
    from nextn import _core

    package = Path(_core.__file__).parent  # with an editable install this is not where the Python files are
    for base in package.rglob("libggml-base.so*"):
        return base.parent
    raise FileNotFoundError(f"no libggml-base under {package}; set NEXTN_GGML_DIR")


def _declare(function: Any, result: type | None, *arguments: type) -> Any:
    function.restype = result
    function.argtypes = list(arguments)
    return function


class Ggml:
    """One CPU backend; tensors live in numpy arrays on the way in and out."""

    def __init__(self, directory: Path | None = None, n_threads: int = 1) -> None:
        directory = directory or library_dir()
        base = ctypes.CDLL(
            str(next(directory.glob("libggml-base.so"), directory / "libggml-base.so.0")), ctypes.RTLD_GLOBAL
        )
        for path in sorted(directory.glob("libggml-cpu.so*"))[:1]:
            ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
        ggml = ctypes.CDLL(str(next(directory.glob("libggml.so"), directory / "libggml.so.0")), ctypes.RTLD_GLOBAL)
        self._declare_all(base, ggml)
        ggml.ggml_backend_load_all_from_path(str(directory).encode())
        self.device = ggml.ggml_backend_dev_by_type(_CPU_DEVICE)
        self.backend = base.ggml_backend_dev_init(self.device, None)
        self.base, self.registry = base, base.ggml_backend_dev_backend_reg(self.device)
        self.set_threads(n_threads)

    def _declare_all(self, base: ctypes.CDLL, ggml: ctypes.CDLL) -> None:
        p = c_void_p
        _declare(ggml.ggml_backend_load_all_from_path, None, c_char_p)
        _declare(ggml.ggml_backend_dev_by_type, p, c_int)
        _declare(base.ggml_backend_dev_init, p, p, c_char_p)
        _declare(base.ggml_backend_dev_backend_reg, p, p)
        _declare(base.ggml_backend_reg_get_proc_address, p, p, c_char_p)
        _declare(base.ggml_backend_dev_buffer_type, p, p)
        _declare(base.ggml_backend_dev_supports_op, c_bool, p, p)
        _declare(base.ggml_backend_buft_name, c_char_p, p)
        _declare(base.ggml_init, p, _InitParams)
        _declare(base.ggml_free, None, p)
        _declare(base.ggml_tensor_overhead, c_size_t)
        _declare(base.ggml_graph_overhead, c_size_t)
        _declare(base.ggml_new_tensor_4d, p, p, c_int, c_int64, c_int64, c_int64, c_int64)
        _declare(base.ggml_new_graph, p, p)
        _declare(base.ggml_build_forward_expand, None, p, p)
        _declare(base.ggml_backend_alloc_ctx_tensors_from_buft, p, p, p)
        _declare(base.ggml_backend_buffer_free, None, p)
        _declare(base.ggml_backend_tensor_set, None, p, p, c_size_t, c_size_t)
        _declare(base.ggml_backend_tensor_get, None, p, p, c_size_t, c_size_t)
        _declare(base.ggml_nbytes, c_size_t, p)
        _declare(base.ggml_row_size, c_size_t, c_int, c_int64)
        _declare(base.ggml_backend_graph_compute, c_int, p, p)
        _declare(base.ggml_quantize_chunk, c_size_t, c_int, p, p, c_int64, c_int64, c_int64, p)
        _declare(base.ggml_get_type_traits, ctypes.POINTER(_TypeTraits), c_int)
        _declare(base.ggml_mul_mat, p, p, p, p)
        _declare(base.ggml_mul_mat_id, p, p, p, p, p)
        _declare(base.ggml_get_rows, p, p, p, p)
        _declare(base.ggml_reshape_4d, p, p, p, c_int64, c_int64, c_int64, c_int64)
        _declare(base.ggml_view_2d, p, p, p, c_int64, c_int64, c_size_t, c_size_t)
        _declare(base.ggml_view_3d, p, p, p, c_int64, c_int64, c_int64, c_size_t, c_size_t, c_size_t)
        _declare(base.ggml_cpy, p, p, p, p)
        _declare(base.ggml_conv_2d_direct, p, p, p, p, *[c_int] * 6)
        _declare(base.ggml_cont, p, p, p)
        _declare(base.ggml_transpose, p, p, p)
        _declare(base.ggml_concat, p, p, p, p, c_int)
        _declare(base.ggml_silu, p, p, p)
        _declare(base.ggml_ssm_conv, p, p, p, p)
        _declare(base.ggml_flash_attn_ext, p, p, p, p, p, p, c_float, c_float, c_float)
        _declare(base.ggml_gated_delta_net, p, p, p, p, p, p, p, p, c_int64)

    def _procedure(self, name: str, result: type | None, *arguments: type) -> Any:
        address = self.base.ggml_backend_reg_get_proc_address(self.registry, name.encode())
        return ctypes.CFUNCTYPE(result, *arguments)(address)

    def set_threads(self, n_threads: int) -> None:
        """Use n_threads threads from the next run on."""
        self._procedure("ggml_backend_set_n_threads", None, c_void_p, c_int)(self.backend, n_threads)

    def buffer_types(self) -> dict[str, int]:
        """Return the weight buffer types by name: the plain one is "CPU"."""
        found = {"CPU": self.base.ggml_backend_dev_buffer_type(self.device)}
        extra = self._procedure("ggml_backend_dev_get_extra_bufts", ctypes.POINTER(c_void_p), c_void_p)(self.device)
        for i in range(8):
            if not extra or not extra[i]:
                break
            found[self.base.ggml_backend_buft_name(extra[i]).decode()] = extra[i]
        return found

    def repacks(self, type_name: str) -> bool:
        """Whether this build repacks weights of the type when it loads them."""
        kind = self.buffer_types().get("CPU_REPACK")
        if kind is None:
            return False
        with self.graph() as graph:
            weight = graph.tensor(TYPES[type_name], 512, 64, weight=True)
            product = self.base.ggml_mul_mat(graph.context, weight, graph.tensor(F32, 512, 1))
            graph.buffers.append(self.base.ggml_backend_alloc_ctx_tensors_from_buft(graph.weights, kind))
            return bool(self.base.ggml_backend_dev_supports_op(self.device, product))

    def row_size(self, type_name: str, n: int) -> int:
        """Return the bytes of a row of n values."""
        return int(self.base.ggml_row_size(TYPES[type_name], n))

    def quantize(self, type_name: str, values: np.ndarray) -> np.ndarray:
        """Return the bytes of values [..., n] in the given type."""
        values = np.ascontiguousarray(values, np.float32)
        n, n_rows = values.shape[-1], values.size // values.shape[-1]
        out = np.empty(n_rows * self.row_size(type_name, n), np.uint8)
        importance = np.ones(n, np.float32)
        self.base.ggml_quantize_chunk(
            TYPES[type_name], values.ctypes.data, out.ctypes.data, 0, n_rows, n, importance.ctypes.data
        )
        return out

    def dequantize(self, type_name: str, data: np.ndarray, n: int) -> np.ndarray:
        """Return float32 [n_rows, n] of rows of n values in the given type."""
        n_rows = data.size // self.row_size(type_name, n)
        if type_name == "F32":
            return data.view(np.float32).reshape(n_rows, n)
        out = np.empty((n_rows, n), np.float32)
        data = np.ascontiguousarray(data)
        traits = self.base.ggml_get_type_traits(TYPES[type_name]).contents
        traits.to_float(data.ctypes.data, out.ctypes.data, out.size)
        return out

    @contextmanager
    def graph(self) -> Iterator[Graph]:
        """A graph builder whose memory is freed at the end."""
        graph = Graph(self)
        try:
            yield graph
        finally:
            graph.close()


class Graph:
    """Weights in one buffer, inputs and results in another."""

    def __init__(self, ggml: Ggml) -> None:
        base = ggml.base
        self.ggml, self.base = ggml, base
        size = 64 * base.ggml_tensor_overhead()
        self.weights = base.ggml_init(_InitParams(size, None, True))
        self.context = base.ggml_init(_InitParams(size + base.ggml_graph_overhead(), None, True))
        self.buffers: list[int] = []
        self.shapes: dict[int, tuple[int, ...]] = {}

    def close(self) -> None:
        """Free the buffers and the graph."""
        for buffer in self.buffers:
            self.base.ggml_backend_buffer_free(buffer)
        self.base.ggml_free(self.context)
        self.base.ggml_free(self.weights)

    def tensor(self, type_id: int, *shape: int, weight: bool = False) -> int:
        """Return a new tensor; shape is ggml's order, row length first."""
        ne = [*shape, 1, 1, 1, 1][:4]
        return int(self.base.ggml_new_tensor_4d(self.weights if weight else self.context, type_id, *ne))

    def compute(self, outputs: list[int], data: dict[int, np.ndarray], buffer_type: str = "CPU") -> None:
        """Allocate, copy the data in (weights first) and run the graph of the outputs."""
        self.prepare(outputs, data, buffer_type)
        self.run()

    def prepare(self, outputs: list[int], data: dict[int, np.ndarray], buffer_type: str = "CPU") -> None:
        """Build the graph of the outputs, allocate it and set its inputs."""
        types = self.ggml.buffer_types()
        self.graph = self.base.ggml_new_graph(self.context)
        for output in outputs:
            self.base.ggml_build_forward_expand(self.graph, output)
        for context, kind in ((self.weights, buffer_type), (self.context, "CPU")):
            if buffer := self.base.ggml_backend_alloc_ctx_tensors_from_buft(context, types[kind]):
                self.buffers.append(buffer)
        for tensor, array in data.items():
            array = np.ascontiguousarray(array)
            assert array.nbytes == self.base.ggml_nbytes(tensor), (array.nbytes, self.base.ggml_nbytes(tensor))
            self.base.ggml_backend_tensor_set(tensor, array.ctypes.data, 0, array.nbytes)

    def run(self) -> None:
        """Compute the graph."""
        status = self.base.ggml_backend_graph_compute(self.ggml.backend, self.graph)
        assert status == 0, status

    def read(self, tensor: int) -> np.ndarray:
        """Return a float32 tensor, flat."""
        out = np.empty(self.base.ggml_nbytes(tensor) // 4, np.float32)
        self.base.ggml_backend_tensor_get(tensor, out.ctypes.data, 0, out.nbytes)
        return out
