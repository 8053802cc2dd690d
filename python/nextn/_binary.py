"""Where the native part of the package lies: shared libraries, programs, licence texts. See cmake/install.cmake."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from nextn.errors import NextnError

__all__ = ["native_dir", "server_binary"]


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
    path = native_dir() / "bin" / ("llama-server.exe" if sys.platform == "win32" else "llama-server")
    if not path.is_file():
        raise NextnError(f"this build of nextn has no llama-server (looked for {path}): NEXTN_TOOLS left it out")
    if not os.access(path, os.X_OK):
        raise NextnError(f"{path} may not be executed: check its permissions")
    return path
