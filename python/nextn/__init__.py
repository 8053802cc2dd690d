"""Self-speculative decoding with the NextN (MTP) draft head of GGUF models, on a patched llama.cpp."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from nextn import _engine as _engine
from nextn._binary import rpc_server_binary, server_binary
from nextn.aio import AsyncSpeculator
from nextn.bundled import bundled_model
from nextn.context import Context
from nextn.errors import (
    CancelledError,
    ChatTemplateError,
    ClosedError,
    ContextCreateError,
    ContextOverflowError,
    DecodeError,
    GrammarError,
    InexactError,
    MissingExtraError,
    ModelFileError,
    NextnError,
    NoNextnLayerError,
    RollbackError,
    ServerError,
    UnsupportedArchitectureError,
    WorkerError,
)
from nextn.gguf import verify
from nextn.logprobs import TokenLogprobs
from nextn.model import Model
from nextn.options import ChatParams, DraftParams, GenerateParams, SamplingParams
from nextn.server import Server
from nextn.speculator import Speculator
from nextn.stats import Chunk, GenerationResult, Stats

try:
    __version__ = version("nextn")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+unknown"

__all__ = [
    "AsyncSpeculator",
    "CancelledError",
    "ChatParams",
    "ChatTemplateError",
    "Chunk",
    "ClosedError",
    "Context",
    "ContextCreateError",
    "ContextOverflowError",
    "DecodeError",
    "DraftParams",
    "GenerateParams",
    "GenerationResult",
    "GrammarError",
    "InexactError",
    "MissingExtraError",
    "Model",
    "ModelFileError",
    "NextnError",
    "NoNextnLayerError",
    "RollbackError",
    "SamplingParams",
    "Server",
    "ServerError",
    "Speculator",
    "Stats",
    "TokenLogprobs",
    "UnsupportedArchitectureError",
    "WorkerError",
    "__version__",
    "bundled_model",
    "rpc_server_binary",
    "server_binary",
    "verify",
]
