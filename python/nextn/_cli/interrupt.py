"""Ctrl-C while the engine computes.

Python handles a signal only between its own steps, and one decode of a long prompt can take minutes. The interpreter
does write a byte to a socket the moment a signal comes; a thread that waits for it aborts the decode.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from nextn.context import Context
from nextn.errors import CancelledError, ClosedError


@contextmanager
def abort_on_interrupt(contexts: Sequence[Context]) -> Iterator[None]:
    """Abort the running decodes of these contexts at SIGINT, so that KeyboardInterrupt comes at once.

    Outside the main thread, where Python handles no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader, contexts), name="nextn-interrupt", daemon=True)
    watcher.start()
    try:
        yield
    except CancelledError:
        raise KeyboardInterrupt from None
    finally:
        signal.set_wakeup_fd(previous)
        writer.close()
        watcher.join()
        reader.close()


def _watch(reader: socket.socket, contexts: Sequence[Context]) -> None:
    """Wait for the byte of a signal; the closed socket is the end."""
    while data := reader.recv(64):
        if signal.SIGINT in data:
            for context in contexts:
                with suppress(ClosedError):
                    context.abort()
