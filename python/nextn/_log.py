"""Where the engine's log lines go: the logger "nextn", quiet until the application configures logging."""

from __future__ import annotations

import logging

__all__ = ["logger"]

logger = logging.getLogger("nextn")
# Without a handler of its own, logging would print warnings to stderr although nobody asked for them.
logger.addHandler(logging.NullHandler())
