"""Facts for a receipt: the machine, the versions, the files that were run."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nextn import _core
from nextn._threads import default_n_threads
from nextn.gguf.inspection import read_parts

__all__ = ["engine_files", "file_facts", "load_average", "machine_facts", "version_facts"]


def file_facts(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Name, size and SHA-256 of a model file; its folders are nobody's business.

    A model in parts is named by its first one; size and hash are those of all parts, one after the other.
    """
    files = [header.path for header in read_parts(Path(path))]
    return {
        "file": files[0].name,
        "bytes": sum(file.stat().st_size for file in files),
        "sha256": sha256_of(*(str(file.resolve()) for file in files)),
    }


@lru_cache(maxsize=32)
def sha256_of(*paths: str) -> str:
    """SHA-256 of a file, or of several, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def engine_files() -> dict[str, str]:
    """SHA-256 of the extension module and of each shared library of the engine beside it, by name."""
    module = Path(str(_core.__file__))
    folders = (module.parent / "lib", module.parent / "bin", module.parent.parent / "nextn.libs")
    libraries = [file for folder in folders if folder.is_dir() for file in folder.iterdir() if ".so" in file.name]
    return {file.name: sha256_of(str(file.resolve())) for file in sorted([module, *libraries], key=lambda f: f.name)}


def machine_facts() -> dict[str, Any]:
    """The processor, how much of it may be used, memory and system; nothing that names the machine."""
    return {
        "cpu": _cpu_name(),
        "logical_cpus": os.cpu_count() or 1,
        "usable_cores": default_n_threads(),
        "memory_bytes": _memory_bytes(),
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
    }


def version_facts() -> dict[str, str | None]:
    """Versions of nextn, of Python and of the packages that take part in measuring."""
    names = ("nextn", "numpy", "httpx")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def load_average() -> float | None:
    """Processes that wanted to run during the last minute, where the system says it."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _version(name: str) -> str | None:
    """Version of an installed package."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    """Memory of the machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
