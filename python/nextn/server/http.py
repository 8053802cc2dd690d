"""Talking to the server: the few requests that a Server makes itself, and clients for everything else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from nextn.errors import ServerError

if TYPE_CHECKING:
    import httpx

__all__ = ["get", "make_client"]


def get(url: str, api_key: str | None, timeout: float = 5.0) -> Any:
    """The answer to a GET, decoded when it is JSON.

    Raises:
        ServerError: No answer, or one with an error status.
    """
    import urllib.error  # slow to import, and most users of nextn never ask
    import urllib.request

    # The server is on this machine or named by the user: a proxy of the environment has no business here.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {api_key}"} if api_key else {})
    try:
        with opener.open(request, timeout=timeout) as response:
            body = response.read().decode()
            return json.loads(body) if "json" in response.headers.get("Content-Type", "") else body
    except urllib.error.HTTPError as error:
        raise ServerError(f"GET {url}: {error.code} {error.read().decode(errors='replace')[:500]}") from None
    except (OSError, ValueError) as error:
        raise ServerError(f"GET {url}: {error}") from None


def make_client(base_url: str, api_key: str | None, check: Callable[[], None]) -> httpx.Client:
    """An httpx.Client for the server, without a time limit for answers.

    Args:
        base_url: Where it listens.
        api_key: Sent with each request.
        check: Called when a request or a stream breaks off; raises when the server has ended.

    Raises:
        ServerError: httpx is not installed.
    """
    try:
        import httpx
    except ModuleNotFoundError:
        raise ServerError("Server.client() needs httpx: pip install 'nextn[server]'") from None

    class Stream(httpx.SyncByteStream):
        def __init__(self, stream: httpx.SyncByteStream) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            try:
                yield from self._stream
            except httpx.TransportError:
                check()
                raise

        def close(self) -> None:
            self._stream.close()

    class Transport(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            try:
                response = super().handle_request(request)
            except httpx.TransportError:
                check()
                raise
            assert isinstance(response.stream, httpx.SyncByteStream)
            response.stream = Stream(response.stream)
            return response

    return httpx.Client(
        base_url=base_url,
        headers={"Authorization": f"Bearer {api_key}"} if api_key else {},
        timeout=httpx.Timeout(None, connect=5.0),
        transport=Transport(),
        trust_env=False,
    )
