"""Where the native part of the package lies: shared libraries, programs, licence texts. See cmake/install.cmake."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from nextn.errors import NextnError

__all__ = ["native_dir", "rpc_server_binary", "server_binary"]


def native_dir() -> Path:
    """The directory that holds _core, lib/ and bin/; in an editable install not that of the Python files.

    Raises:
        NextnError: The extension module is not built.
    """
    spec = importlib.util.find_spec("nextn._core")
    if spec is None or spec.origin is None:
        raise NextnError("nextn._core is not built: run make build, or install the wheel")
    return Path(spec.origin).resolve().parent


def server_binary() -> Path:
    """The llama-server program that comes with this package.

    Raises:
        NextnError: The package was built without it.
    """
    return _program("llama-server", "NEXTN_TOOLS left it out")


def rpc_server_binary() -> Path:
    """The worker for models larger than one machine, ggml-rpc-server.

    It has no authentication: only in a network that you trust.

    Raises:
        NextnError: The package was built without it.
    """
    return _program("ggml-rpc-server", "NEXTN_RPC or NEXTN_TOOLS left it out")


def _program(name: str, reason: str) -> Path:
    """A program beside the library."""
    path = native_dir() / "bin" / (f"{name}.exe" if sys.platform == "win32" else name)
    if not path.is_file():
        raise NextnError(f"this build of nextn has no {name} (looked for {path}): {reason}")
    if not os.access(path, os.X_OK):
        raise NextnError(f"{path} may not be executed: check its permissions")
    return path
