"""A server whose model is laid out over two workers on this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import httpx
import nextn
import pytest

from .conftest import FIXED, SIZES, complete, drafted


def test_two_workers_give_the_text_of_one_machine(workers, prompts, plain) -> None:
    addresses = [worker.address for worker in workers]
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


@pytest.mark.parametrize("which", [0, 1])  # of the layers, of the head
def test_a_worker_that_dies_is_an_error_of_the_requests(workers, which) -> None:
    addresses = [worker.address for worker in workers]
    with nextn.Server(rpc_servers=addresses, draft=FIXED, **SIZES) as server, server.client() as client:
        assert complete(client, "Hello", 4)["tokens"]
        workers[which].kill()
        for prompt in ("Hello again", "And again"):
            answer = client.post("/completion", json={"prompt": prompt, "n_predict": 40})
            assert answer.status_code == 500
            assert f"worker {addresses[which]} is lost" in answer.json()["error"]["message"]
        server.stop()
        assert not any("terminate called" in line for line in server.logs())


def test_serve_over_workers(workers) -> None:
    addresses = ",".join(worker.address for worker in workers)
    command = [
        sys.executable,
        "-m",
        "nextn",
        "serve",
        "--port",
        "0",
        "-c",
        "512",
        "-t",
        "1",
        "--json",
        "--rpc",
        addresses,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        body = {"prompt": "Hello", "n_predict": 4}
        assert httpx.post(told["base_url"] + "/completion", json=body).status_code == 200
        workers[0].kill()
        assert httpx.post(told["base_url"] + "/completion", json=body).status_code == 500  # so it was used
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    finally:
        process.kill()


def test_a_worker_that_is_not_there(workers) -> None:
    workers[0].kill()
    server = nextn.Server(rpc_servers=[workers[0].address], **SIZES)
    told = rf"(?s)because a worker is gone .*worker {workers[0].address} cannot be reached"
    with pytest.raises(nextn.ServerError, match=told), server:
        pass


def test_the_command(workers, prompts, plain) -> None:
    addresses = ",".join(worker.address for worker in workers)
    command = [sys.executable, "-m", "nextn", "serve", "--port", "0", "-c", "512", "-t", "1", "--json"]
    process = subprocess.Popen(
        [*command, "--rpc", addresses], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    with httpx.Client(base_url=told["base_url"], timeout=60) as client:
        tokens = complete(client, prompts[0], 32)["tokens"]
    wanted = list(plain(prompts[0], 32))
    assert tokens == wanted[: len(tokens)]
    assert len(tokens) >= len(wanted) - 1
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=30) is not None
    assert process.returncode == 0


@pytest.mark.parametrize("address", ["here", "here:0", "a:1,b:2"])
def test_a_wrong_address_is_named(address) -> None:
    with pytest.raises(ValueError, match=r"rpc_servers\[0\].*host:port"):
        nextn.Server(rpc_servers=[address], **SIZES)
