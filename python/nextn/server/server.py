"""The launcher of the patched llama-server."""

from __future__ import annotations

import os
import re
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nextn._binary import server_binary
from nextn.bundled import bundled_model
from nextn.errors import ServerError
from nextn.options import DraftParams, check_path, name_unknown_keywords
from nextn.server.command import SpecType, build_command, build_environment, choose_spec_type
from nextn.server.http import get, make_client
from nextn.server.memory import refuse_too_large
from nextn.server.process import ServerProcess

if TYPE_CHECKING:
    import httpx

__all__ = ["Server"]

_N_LINES_SHOWN = 12
# Words of the log when memory does not suffice, in small letters; the last is an assertion of the engine.
_MEMORY_SIGNS = ("failed to allocate", "unable to allocate", "out of memory", "bad_alloc", "mem_buffer != null")


class Server:
    """A running llama-server of this package: OpenAI's API, drafting by the model's own head, output the model's own.

    It starts at once; wait_ready(), or entering the `with` block, waits until it serves. It ends with this process,
    however this process ends.

    Args:
        model: A GGUF file; None serves the small model that comes with nextn.
        spec_type: "nextn", "draft-mtp" (upstream's driver), "none", or "auto": nextn when there is a head.
        draft: How the head drafts. None is spec_type "none".
        draft_model: File with the draft head, when the model has none.
        host: Address to listen on. The API has no other protection than api_key: 127.0.0.1 keeps it on this machine.
        port: 0 takes a free one; base_url tells.
        api_key: What clients must send; it reaches the server through its environment.
        n_ctx: Tokens that fit in each slot, prompt and answer together; None as the model was trained.
        n_parallel: Slots: requests that are served at the same time.
        n_threads: None takes the physical cores.
        n_gpu_layers: Layers on GPUs and workers, -1 for all; None leaves it to llama-server, with workers it means all.
        rpc_servers: Workers, "host:port" each. They have no authentication: only in a network that you trust.
        extra_args: Any further arguments of llama-server.

    Raises:
        ModelFileError: The model is missing or damaged.
        NoNextnLayerError: spec_type asks for a head that is not there.
        ServerError: The port is taken, or the program does not start.
        TypeError, ValueError: A wrong argument.
    """

    @name_unknown_keywords
    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        spec_type: SpecType = "auto",
        draft: DraftParams | None = DraftParams(),  # noqa: B008 (frozen)
        draft_model: str | os.PathLike[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        api_key: str | None = None,
        n_ctx: int | None = None,
        n_parallel: int = 1,
        n_threads: int | None = None,
        n_gpu_layers: int | None = None,
        rpc_servers: Sequence[str] = (),
        extra_args: Sequence[str] = (),
    ) -> None:
        for name, given in (("model", model), ("draft_model", draft_model)):
            if given is not None:
                check_path(name, given)
        path = Path(model) if model is not None else bundled_model()
        head = Path(draft_model) if draft_model is not None else None
        self._api_key = api_key
        self._spec_type = choose_spec_type(spec_type, draft, path, head)
        self._stopped = False
        with _inheritable(draft.vocab_ids if draft is not None else ()) as ids:
            command = build_command(
                server_binary(), path, spec_type=self._spec_type, draft=draft or DraftParams(), draft_model=head,
                vocab_file=f"/dev/fd/{ids}" if ids is not None else None,
                host=host, port=port, n_ctx=n_ctx, n_parallel=n_parallel, n_threads=n_threads,
                n_gpu_layers=-1 if n_gpu_layers is None and rpc_servers else n_gpu_layers,
                rpc_servers=rpc_servers, extra_args=extra_args,
            )  # fmt: skip
            if port:
                _refuse_taken(host, port)
            if n_ctx and not rpc_servers:
                refuse_too_large(path, n_ctx, n_parallel)
            try:
                self._process = ServerProcess(command, build_environment(api_key), () if ids is None else (ids,))
            except OSError as error:
                raise ServerError(f"llama-server does not start: {error}") from None

    @property
    def base_url(self) -> str:
        """Where it listens, for example "http://127.0.0.1:8080"; OpenAI's clients want base_url + "/v1".

        Raises:
            ServerError: It does not listen yet, or no longer.
        """
        self.check()
        address = self._process.address
        if address is None:
            raise ServerError("llama-server does not listen yet: call wait_ready() first")
        return address

    @property
    def spec_type(self) -> str:
        """How it drafts: "nextn", "draft-mtp" or "none"."""
        return self._spec_type

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_ready(self, timeout: float = 300.0) -> None:
        """Wait until the model is loaded and requests are answered.

        Args:
            timeout: Seconds. Large models take minutes.

        Raises:
            ServerError: It ended, or takes longer; with the last lines of its log.
        """
        end = time.monotonic() + timeout
        while not self._process.wait_listening(min(0.2, max(0.0, end - time.monotonic()))):
            self.check()
            if time.monotonic() >= end:
                raise ServerError(
                    f"llama-server is not ready after {timeout:g} s: large models need a longer timeout" + self._last()
                )
        self.health()

    def check(self) -> None:
        """Do nothing while it runs.

        Raises:
            ServerError: It has ended; with the exit code and the last lines of its log.
        """
        if self._stopped:
            raise ServerError("this server was stopped")
        # a connection breaks a moment before the process is gone
        if self._process.exit_code is None and not self._process.wait_ended(0.0):
            return
        self._process.wait_ended(2.0)
        code = self._process.exit_code
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL:
            how += ", as the system does when memory runs out"
        raise ServerError(f"llama-server {how}{_explain(self._process.logs())}{self._last()}")

    def health(self) -> dict[str, Any]:
        """The answer of /health: {"status": "ok"}.

        Raises:
            ServerError: No answer, or another one; so for the calls below.
        """
        return dict(self._get("/health"))

    def metrics(self) -> dict[str, float]:
        """The counters and gauges of /metrics by name, for example "llamacpp:spec_decode_num_draft_tokens_total"."""
        lines = (line.rpartition(" ") for line in str(self._get("/metrics")).splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines if name}

    def slots(self) -> list[dict[str, Any]]:
        """The state of each slot, from /slots."""
        return list(self._get("/slots"))

    def logs(self) -> tuple[str, ...]:
        """The newest lines of its log; each is also logged as nextn.server, level DEBUG."""
        return self._process.logs()

    def client(self) -> httpx.Client:
        """An httpx.Client for base_url, with the key set; close it when done.

        A connection that breaks because the server ended is a ServerError with its last words.

        Raises:
            ServerError: httpx is not there: pip install 'nextn[server]'.
        """
        return make_client(self.base_url, self._api_key, self._check_soon)

    def stop(self, grace: float = 10.0) -> None:
        """End it, after the requests that it is working on; new ones are refused.

        Args:
            grace: Longest wait for them in seconds.
        """
        if not self._stopped:
            self._process.stop(grace)
            self._stopped = True

    def __enter__(self) -> Server:
        """Wait until it is ready; when it does not become so, it is stopped."""
        try:
            self.wait_ready()
        except BaseException:
            self.stop(grace=0.0)
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it; after an error without waiting for requests."""
        self.stop(grace=10.0 if exc_type is None else 0.0)

    def _get(self, path: str) -> Any:
        """GET; a server that has ended gives its own error."""
        try:
            return get(self.base_url + path, self._api_key)
        except ServerError:
            self._check_soon()
            raise

    def _check_soon(self) -> None:
        """check(), for a moment at which it may be about to end."""
        self._process.wait_ended(1.0)
        self.check()

    def _last(self) -> str:
        """The last lines of the log."""
        lines = self._process.logs()[-_N_LINES_SHOWN:]
        return "; its last words:\n  " + "\n  ".join(lines) if lines else ""


@contextmanager
def _inheritable(ids: Sequence[int]) -> Iterator[int | None]:
    """The descriptor of a file of ids, one per line, which may be too many for a command line; None for none."""
    if not ids:
        yield None
        return
    with tempfile.TemporaryFile("w") as file:
        file.writelines(f"{token}\n" for token in ids)
        file.seek(0)
        yield file.fileno()


def _refuse_taken(host: str, port: int) -> None:
    """Say at once that somebody else listens on the port."""
    if host.endswith(".sock"):
        return
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger do not count
                probe.bind(address)
    except OSError as error:
        raise ServerError(
            f"port {port} of {host} cannot be used ({error.strerror}): name another one, or 0 for any free one"
        ) from None


def _explain(lines: Sequence[str]) -> str:
    """A likely reason in plain words."""
    text = "\n".join(lines)
    if "couldn't bind" in text:
        return " because the port is taken"
    if re.search(r"\bthe worker \S+:\d+ ", text):
        return " because a worker is gone or was never there"
    if any(sign in text.lower() for sign in _MEMORY_SIGNS):
        return " because memory does not suffice: a smaller n_ctx, fewer slots or a smaller model may fit"
    if "failed to load model" in text or "error loading model" in text:
        return " because the model could not be loaded"
    return ""
