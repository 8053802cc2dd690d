"""The demo model that ships inside the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from nextn.errors import ModelFileError

BUNDLED_NAME = "nextn-demo-q8_0.gguf"
BUNDLED_SHA256 = "5d0183479c53c60f170cc190c0a36666cb6238680a6a46a3212e6453d3379cba"


def bundled_model() -> Path:
    """Path of the bundled demo model: a small trained qwen35 model with a draft head, described in its MODEL_CARD.md.

    Returns:
        The GGUF file inside the installed package.

    Raises:
        ModelFileError: This installation has no such file.
    """
    path = Path(str(files("nextn") / "models" / BUNDLED_NAME))
    if not path.is_file():
        raise ModelFileError(
            f"the bundled model is missing: {path} does not exist; install nextn again or name a model file"
        )
    return path
