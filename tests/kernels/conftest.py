"""The CPU backend of the installed engine, and the comparison all kernel tests make."""

from __future__ import annotations

import numpy as np
import pytest
from ggml_ctypes import Ggml

WIDTHS = (*range(2, 11), 17, 36)  # one kernel takes up to nine columns, more of them take turns
MOST = WIDTHS[-1]


@pytest.fixture(scope="session")
def ggml():
    """One CPU backend for all tests."""
    return Ggml()


@pytest.fixture(params=[1, 2, 3], ids=lambda n: f"{n}-threads")
def threads(request, ggml):
    """The backend with so many threads."""
    ggml.set_threads(request.param)
    return request.param


def assert_same_bits(actual, expected, what=""):
    """Compare float32 arrays bit by bit."""
    differs = actual.view(np.uint32) != expected.view(np.uint32)
    if differs.any():
        worst = np.abs(actual.astype(np.float64) - expected)[differs].max()
        raise AssertionError(f"{what}: {differs.sum()} of {differs.size} values differ, by up to {worst:.3g}")
