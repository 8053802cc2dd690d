"""The bundled model is there, whole, and named when it is not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from nextn import bundled
from nextn.errors import ModelFileError


def test_the_file_is_the_one_that_was_released() -> None:
    path = bundled.bundled_model()
    assert isinstance(path, Path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == bundled.BUNDLED_SHA256


def test_the_card_lies_beside_it() -> None:
    card = bundled.bundled_model().with_name("MODEL_CARD.md").read_text(encoding="utf-8")
    assert bundled.BUNDLED_NAME in card


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "BUNDLED_NAME", "absent.gguf")
    with pytest.raises(ModelFileError, match=r"absent\.gguf does not exist; install nextn again or name a model file"):
        bundled.bundled_model()
