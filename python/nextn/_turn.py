"""One request at a time on one object."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from nextn.errors import NextnError

__all__ = ["Turn"]


class Turn:
    """A lock that other threads wait for, while a second request from the thread that holds it is an error.

    A plain lock would wait forever when a thread starts a second request while its own stream is unfinished; a
    re-entrant one would let the second request overwrite the state of the first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._owner: int | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the turn in the block.

        Raises:
            NextnError: This thread holds it already, or the process forked.
        """
        if os.getpid() != self._pid:  # the lock may be held by a thread that did not come along
            raise NextnError(
                "this Speculator was made before the process forked and cannot be used in the child; make it there,"
                ' or start processes with multiprocessing\'s "spawn" method'
            )
        if self._owner == threading.get_ident():
            raise NextnError("a stream of this Speculator is unfinished in this thread: exhaust it or close() it first")
        with self._lock:
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                self._owner = None
