"""Fixtures of the loop's tests: a NumPy stand-in for the engine, and the bundled model on the real one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture
def fake(monkeypatch):
    """The fake module's classes in the places where a Speculator looks for a Model and a Context."""
    import fakes
    from nextn import _setup, speculator
    from reference_drafter import ReferenceDrafter

    monkeypatch.setattr(_setup, "Model", fakes.FakeModel)
    monkeypatch.setattr(speculator, "Context", fakes.FakeContext)
    monkeypatch.setattr(_setup, "HeadDrafter", ReferenceDrafter)
    return fakes
