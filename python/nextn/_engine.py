"""What happens to the engine when nextn is imported: its log, and the compute backends of a wheel."""

from __future__ import annotations

import logging
from pathlib import Path

from nextn import _core

__all__ = ["load_backends"]


def load_backends() -> None:
    """Load the compute backends that lie beside the module, unless they are linked into the engine.

    A wheel carries one library per kind of CPU; the engine takes the best one that this machine can run.
    """
    package = Path(__file__).parent
    for folder in (package / "bin", package / "lib"):
        if _core.n_backends() == 0 and folder.is_dir():
            _core.load_backends(str(folder))


# Without a handler of its own, logging would print warnings to stderr although nobody asked for them.
logging.getLogger("nextn").addHandler(logging.NullHandler())
load_backends()
