"""A model over two workers on this machine."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator

import nextn
import pytest

from .conftest import FIXED, SIZES, complete, drafted


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def workers() -> Iterator[list[tuple[str, subprocess.Popen[bytes]]]]:
    """Two workers: address and process."""
    started = []
    for _ in range(2):
        port = free_port()
        command = [nextn.rpc_server_binary(), "-H", "127.0.0.1", "-p", str(port), "-t", "1"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append((f"127.0.0.1:{port}", process))
        end = time.monotonic() + 10
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
    yield started
    for _, process in started:
        process.kill()
        process.wait()


def test_two_workers_give_the_text_of_one_machine(workers, prompts, plain) -> None:
    addresses = [address for address, _ in workers]
    talk = ["-lv", "5"]  # of the layers on each worker
    with (
        nextn.Server(rpc_servers=addresses, draft=FIXED, extra_args=talk, **SIZES) as server,
        server.client() as client,
    ):
        log = "\n".join(server.logs())
        assert all(address in log for address in addresses)
        answer = complete(client, prompts[0], 32)
        wanted = list(plain(prompts[0], 32))
        assert answer["tokens"] == wanted[: len(answer["tokens"])]
        assert len(answer["tokens"]) >= len(wanted) - 1
        assert drafted(answer)[1] > 5


def test_a_worker_that_dies_is_one_error(workers) -> None:
    addresses = [address for address, _ in workers]
    with nextn.Server(rpc_servers=addresses, draft=FIXED, **SIZES) as server, server.client() as client:
        assert complete(client, "Hello", 4)["tokens"]
        workers[1][1].kill()
        with pytest.raises(nextn.ServerError, match=r"(?s)worker.*last words"):
            complete(client, "Hello again", 40)


def test_a_worker_that_is_not_there() -> None:
    server = nextn.Server(rpc_servers=[f"127.0.0.1:{free_port()}"], **SIZES)
    with pytest.raises(nextn.ServerError, match=r"worker"), server:
        pass
