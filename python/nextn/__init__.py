"""Self-speculative decoding with the NextN (MTP) draft head of GGUF models, on a patched llama.cpp."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from nextn import _engine as _engine
from nextn.context import Context
from nextn.errors import (
    CancelledError,
    ChatTemplateError,
    ClosedError,
    ContextCreateError,
    ContextOverflowError,
    DecodeError,
    ModelFileError,
    NextnError,
    NoNextnLayerError,
    RollbackError,
    ServerError,
    UnsupportedArchitectureError,
)
from nextn.model import Model

try:
    __version__ = version("nextn")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"

__all__ = [
    "CancelledError",
    "ChatTemplateError",
    "ClosedError",
    "Context",
    "ContextCreateError",
    "ContextOverflowError",
    "DecodeError",
    "Model",
    "ModelFileError",
    "NextnError",
    "NoNextnLayerError",
    "RollbackError",
    "ServerError",
    "UnsupportedArchitectureError",
    "__version__",
]
