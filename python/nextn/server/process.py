"""A child process that ends with its parent, and its log."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress

__all__ = ["PARENT_FD", "ServerProcess"]

PARENT_FD = "NEXTN_PARENT_FD"
"""Names the reading end of a pipe whose writing end only this process has (overlay/tools/server in the fork)."""

_LISTENING = re.compile(r"listening on (https?://\S+|unix://\S+)")
_N_LINES = 2000
_logger = logging.getLogger("nextn.server")


class ServerProcess:
    """A running llama-server.

    It listens when its own log, which comes through a pipe that nobody else can write to, says so: a stranger that
    answers on the same port proves nothing.

    Args:
        command: Program and arguments.
        environment: Its environment, apart from what is added here.
        pass_fds: Descriptors that it inherits.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], pass_fds: Sequence[int] = ()) -> None:
        self._lines: deque[str] = deque(maxlen=_N_LINES)
        self._listening = threading.Event()
        self._address: str | None = None
        watched, self._held = os.pipe()
        os.set_inheritable(watched, True)
        try:
            self._child = subprocess.Popen(
                command,
                env={**environment, PARENT_FD: str(watched)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(watched, *pass_fds),
                start_new_session=True,  # Ctrl-C at a terminal is for us: we stop it in order
            )
        except BaseException:
            os.close(self._held)
            raise
        finally:
            os.close(watched)
        self._reader = threading.Thread(target=self._read, name="nextn-server-log", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._child.poll()

    @property
    def address(self) -> str | None:
        """Where it listens, for example "http://127.0.0.1:8080"; None until it does."""
        return self._address

    def logs(self) -> tuple[str, ...]:
        """The newest lines of its log."""
        return tuple(self._lines)

    def wait_listening(self, timeout: float) -> bool:
        """Wait until it listens or has ended; False when it does not listen."""
        self._listening.wait(timeout)
        return self._address is not None and self.exit_code is None

    def wait_ended(self, timeout: float) -> bool:
        """Wait until it has ended and its log is complete; False when it still runs."""
        try:
            self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join(1.0)
        return True

    def stop(self, grace: float) -> None:
        """End it after its running requests, or after so many seconds. Does nothing when it has ended.

        The first signal lets it finish them (server-nextn-drain.h in the fork), the second ends it all the same.
        """
        for number, seconds in ((signal.SIGTERM, grace), (signal.SIGINT, 5.0), (signal.SIGKILL, 10.0)):
            if self.exit_code is None:
                self._child.send_signal(number)
            if self.wait_ended(seconds):
                break
        with suppress(OSError):
            os.close(self._held)
        self._held = -1

    def _read(self) -> None:
        """Keep the log's lines, and notice the one that says where it listens."""
        assert self._child.stdout is not None
        with self._child.stdout as stream:
            for data in stream:
                line = data.decode(errors="replace").rstrip()
                self._lines.append(line)
                _logger.debug("%s", line)
                if self._address is None and (found := _LISTENING.search(line)):
                    self._address = found[1]
                    self._listening.set()
        self._listening.set()  # nothing more will come
