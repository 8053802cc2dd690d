"""Fixtures of the loop's tests: a NumPy stand-in for the engine, and the bundled model on the real one."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

try:
    import nextn._core  # noqa: F401
except ImportError:
    sys.modules["nextn._core"] = types.ModuleType("nextn._core")


@pytest.fixture
def fake(monkeypatch):
    """The fake module's classes in the places where a Speculator looks for a Model and a Context."""
    import fakes
    from nextn import _setup, speculator

    monkeypatch.setattr(_setup, "Model", fakes.FakeModel)
    monkeypatch.setattr(speculator, "Context", fakes.FakeContext)
    return fakes
