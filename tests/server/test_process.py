"""The launcher: what it proves, what it says when something goes wrong, and what it leaves behind: nothing."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nextn
import pytest

from .conftest import FIXED, SIZES, complete, wait_until

STORY = {"prompt": "Once upon a time", "n_predict": 900, "stream": True, "ignore_eos": True}


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def check_port_of_a_stranger() -> None:
    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"status": "ok"}')

    stranger = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger)
    threading.Thread(target=stranger.serve_forever, daemon=True).start()
    try:
        with pytest.raises(nextn.ServerError, match=f"port {stranger.server_port} of 127.0.0.1 cannot be used"):
            nextn.Server(port=stranger.server_port, **SIZES)
        # taken between our look and the server's: its own error is told
        server = nextn.Server(extra_args=["--port", str(stranger.server_port)], **SIZES)
        with pytest.raises(nextn.ServerError, match="the port is taken"), server:
            pass
        assert wait_until(lambda: not is_alive(server.pid))
    finally:
        stranger.shutdown()
        stranger.server_close()


def check_death_during_a_stream() -> None:
    with (
        nextn.Server(**SIZES) as server,
        server.client() as client,
        pytest.raises(nextn.ServerError, match=r"(?s)killed by signal 9.*last words"),
        client.stream("POST", "/completion", json=STORY) as response,
    ):
        for i, _ in enumerate(response.iter_lines()):
            if i == 4:
                killed = time.monotonic()
                os.kill(server.pid, signal.SIGKILL)
    assert time.monotonic() - killed < 5


PARENTS = {
    "idle": "s.wait_ready(); print(s.pid, flush=True); time.sleep(60)",
    "loading": "print(s.pid, flush=True); time.sleep(60)",
    # more of a stream than the pipe holds: it goes on while the parent is killed
    "streaming": f"""
s.wait_ready()
with s.client() as client, client.stream("POST", "/completion", json={STORY!r}) as response:
    for i, line in enumerate(response.iter_lines()):
        if i == 4:
            print(s.pid, flush=True)
""",
}


def check_death_of_the_parent(doing: str) -> None:
    code = f"import nextn, time\ns = nextn.Server(n_ctx=1024, n_threads=1)\n{PARENTS[doing]}"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
        parent.wait()
    assert wait_until(lambda: not is_alive(pid))


def check_disconnect(server: nextn.Server, n_bytes: int, prompt: str, wanted: list[int]) -> None:
    """Break a stream off after so many bytes; the slot is free again and the next answer right."""
    with server.client() as client:
        with client.stream("POST", "/completion", json=STORY) as response:
            seen = 0
            for data in response.iter_raw():
                seen += len(data)
                if seen >= n_bytes:
                    break
        check_answer(server, client, prompt, wanted)


def check_answer(server: nextn.Server, client: httpx.Client, prompt: str, wanted: list[int]) -> None:
    """After a fault: no slot is busy, and the next answer is right."""
    assert wait_until(lambda: not any(slot["is_processing"] for slot in server.slots()))
    tokens = complete(client, prompt, 32)["tokens"]
    assert tokens == wanted[: len(tokens)]
    assert len(tokens) >= len(wanted) - 1


INVALID = [
    *(b"", b"{", b"\xff\xfe", b"[]", b'"a"', b"3", b"null", b"{}"),
    *(b'{"prompt": "a", "%s": %s}' % (field, value) for field, value in {
        b"n_predict": b'"many"', b"temperature": b"[]", b"top_k": b"{}", b"seed": b'"x"', b"stream": b'"yes"',
        b"cache_prompt": b"3", b"n_probs": b"{}", b"lora": b"3", b"dry_sequence_breakers": b"3",
        b"grammar": b'"root ::= ("', b"json_schema": b'{"type": "nope"}', b"speculative": b"3",
    }.items()),
    *(b'{"prompt": %s}' % prompt for prompt in (b"null", b"-1", b'{"a": 1}', b'["a", {}]', b"[[1, [2]]]", b"[-5]")),
    *(b'{"prompt": [%d]}' % 10**9, b'{"prompt": "%s"}' % (b"a " * 5000), b'{"prompt": "a", "n_predict": 1e99}'),
    *(b'{"messages": %s}' % messages for messages in (b"3", b"[3]", b'[{"role": 3}]', b'[{"content": {}}]')),
]  # fmt: skip


def check_invalid_bodies(server: nextn.Server, client: httpx.Client, bodies: list[bytes]) -> None:
    for body in bodies:
        path = "/v1/chat/completions" if b"messages" in body else "/completion"
        response = client.post(path, content=body, timeout=60)
        assert response.status_code == 400, (body, response.text)
        assert response.json()["error"]["type"] in ("invalid_request_error", "exceed_context_size_error")


def test_port_of_a_stranger() -> None:
    check_port_of_a_stranger()


def test_death_during_a_stream() -> None:
    check_death_during_a_stream()


@pytest.mark.parametrize("doing", PARENTS)
def test_death_of_the_parent(doing: str) -> None:
    check_death_of_the_parent(doing)


def test_disconnect(server, prompts, plain) -> None:
    check_disconnect(server, 3000, prompts[3], list(plain(prompts[3], 32)))


def test_invalid_bodies(server, client, prompts, plain) -> None:
    check_invalid_bodies(server, client, INVALID)
    check_answer(server, client, prompts[1], list(plain(prompts[1], 32)))


def test_too_little_memory_is_said_at_once() -> None:
    with pytest.raises(nextn.ServerError, match=r"n_ctx=1073741824 and n_parallel=2 need at least .* GiB"):
        nextn.Server(n_ctx=1 << 30, n_parallel=2)


def test_too_little_memory_for_the_child() -> None:
    code = """
import resource, nextn
resource.setrlimit(resource.RLIMIT_AS, (600 << 20, 600 << 20))
with nextn.Server(n_ctx=200000, n_parallel=4, n_threads=1):
    pass
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert "ServerError" in run.stderr
    assert "because memory does not suffice" in run.stderr


def test_props(server, client) -> None:
    props = client.get("/props").json()
    assert props["total_slots"] == 2
    assert Path(props["model_path"]) == Path(nextn.bundled_model())
    assert props["chat_template"]


def test_key_is_asked_for_and_not_shown() -> None:
    with nextn.Server(api_key="s3cret", **SIZES) as server:
        assert "s3cret" not in Path(f"/proc/{server.pid}/cmdline").read_text()
        assert httpx.post(f"{server.base_url}/completion", json={"prompt": "a"}).status_code == 401
        with server.client() as client:
            assert complete(client, "a", 2)["tokens"]
        assert server.slots()
        assert server.metrics()


def test_stop_lets_requests_end() -> None:
    answers = []
    server = nextn.Server(draft=FIXED, **SIZES)
    server.wait_ready(60)
    with server.client() as client:
        ask = threading.Thread(target=lambda: answers.append(complete(client, "Once", 600, ignore_eos=True)))
        ask.start()
        assert wait_until(lambda: any(slot["is_processing"] for slot in server.slots()))
        server.stop(grace=30)
        ask.join()
    assert len(answers[0]["tokens"]) == 600
    assert not is_alive(server.pid)
    with pytest.raises(nextn.ServerError, match="was stopped"):
        server.health()


@contextlib.contextmanager
def bare_server(grace: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """llama-server without our launcher: process and address."""
    command = [nextn.server_binary(), "-m", nextn.bundled_model(), "-c", "4096", "-np", "2", "-t", "1", "--port", "0"]
    with subprocess.Popen(
        command, env={**os.environ, "NEXTN_SERVER_GRACE": grace}, stderr=subprocess.STDOUT, stdout=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            address = next(line.split()[-1] for line in process.stdout if "listening on" in line)
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield process, address
        finally:
            process.kill()


def stream_through(process: subprocess.Popen[str], address: str, *signals: int, **body: Any) -> list[dict[str, Any]]:
    """The pieces of a stream in whose course the server is sent signals, as far as it comes."""
    pieces: list[dict[str, Any]] = []
    left = list(signals)
    asked = {**STORY, "temperature": 0, "n_predict": 1900, **body}
    with (
        contextlib.suppress(httpx.TransportError),
        httpx.stream("POST", f"{address}/completion", json=asked, timeout=60) as response,
    ):
        for line in response.iter_lines():
            pieces += [json.loads(line[6:])] if line.startswith("data: {") else []
            if left and len(pieces) > 4:
                process.send_signal(left.pop(0))
    return pieces


def test_a_signal_lets_a_stream_end(prompts, plain) -> None:
    answers: list[httpx.Response] = []
    broken: list[httpx.TransportError] = []

    def ask(client: httpx.Client) -> None:
        try:
            while not answers or answers[-1].status_code == 200:
                answers.append(client.post("/completion", json={"prompt": "Hello", "n_predict": 1}))
        except httpx.TransportError as error:
            broken.append(error)

    with bare_server("600") as (process, address), httpx.Client(base_url=address, timeout=60) as client:
        other = threading.Thread(target=ask, args=(client,))
        other.start()
        pieces = stream_through(process, address, signal.SIGTERM, prompt=prompts[0])
        assert process.wait(60) == 0
        other.join()
    wanted = list(plain(prompts[0], 200))[:-1]
    tokens = [token for piece in pieces for token in piece["tokens"]]
    assert tokens[: len(wanted)] == wanted
    assert (pieces[-1]["tokens_predicted"], pieces[-1]["stop_type"]) == (1900, "limit")
    assert not broken
    assert (answers[-1].status_code, answers[-1].json()["error"]["message"]) == (503, "the server is ending")


def test_a_signal_without_grace_ends_a_stream() -> None:
    with bare_server("0") as (process, address):
        assert not stream_through(process, address, signal.SIGTERM)[-1]["stop"]
        assert process.wait(30) == 0


def test_a_second_signal_ends_it_at_once() -> None:
    with bare_server("inf") as (process, address):
        assert not stream_through(process, address, signal.SIGTERM, signal.SIGINT)[-1]["stop"]
        assert process.wait(30) == 1


def test_what_does_not_start(tmp_path, tiny_model) -> None:
    with pytest.raises(nextn.ModelFileError, match="missing.gguf"):
        nextn.Server(tmp_path / "missing.gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(nextn.bundled_model().read_bytes()[:5_000_000])
    with pytest.raises(nextn.ModelFileError):
        nextn.Server(broken)
    with pytest.raises(nextn.NoNextnLayerError, match="no draft head"):
        nextn.Server(tiny_model(part="trunk"), spec_type="nextn")
    with pytest.raises(nextn.ServerError, match=r"(?s)exit code 1.*--nope"), nextn.Server(extra_args=["--nope"]):
        pass
    with pytest.raises(ValueError, match=r"spec_type must be one of"):
        nextn.Server(draft=None, spec_type="bogus")
    with pytest.raises(ValueError, match=r"spec_type='nextn' drafts, which draft=None forbids"):
        nextn.Server(draft=None, spec_type="nextn")
    with pytest.raises(ValueError, match="draft_model holds a draft head, which draft=None does not use"):
        nextn.Server(draft=None, draft_model=tiny_model(part="head"))
    with pytest.raises(TypeError, match="draft must be a DraftParams or None, not int"):
        nextn.Server(draft=4)
    with pytest.raises(TypeError, match="n_ctxx"):
        nextn.Server(n_ctxx=3)
    with pytest.raises(ValueError, match="port"):
        nextn.Server(port=70000)


def test_too_little_memory_is_one_error() -> None:
    """In a process that may have 2 GB, with a context that takes 4 GB."""
    code = """
import nextn, resource
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
try:
    with nextn.Server(n_ctx=4_000_000, n_threads=1):
        print("it started")
except nextn.ServerError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, *last_words = done.stdout.splitlines()
    assert "because memory does not suffice: a smaller n_ctx, fewer slots or a smaller model may fit" in first
    assert 1 < len(last_words) < 20


def test_slow_start_is_one_error() -> None:
    server = nextn.Server(**SIZES)
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(nextn.ServerError, match="not ready after 0.3 s"):
            server.wait_ready(0.3)
    finally:
        os.kill(server.pid, signal.SIGCONT)
        server.stop(grace=0)
    assert not is_alive(server.pid)


def test_serve_command() -> None:
    command = [sys.executable, "-m", "nextn", "serve", "--port", "0", "-c", "512", "-t", "1", "--json"]
    process = subprocess.Popen(
        [*command, "--", "--alias", "small"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    assert told["spec_type"] == "nextn"
    assert httpx.get(told["base_url"] + "/v1/models").json()["data"][0]["id"] == "small"
    props = httpx.get(told["base_url"] + "/props").json()
    assert (props["total_slots"], props["model_alias"]) == (1, "small")
    assert props["default_generation_settings"]["n_ctx"] == 512
    process.send_signal(signal.SIGTERM)
    _, talk = process.communicate(timeout=30)
    assert process.returncode == 0, talk
    assert not is_alive(told["pid"])


@pytest.mark.long
def test_faults_twenty_times(server, client, prompts, plain) -> None:
    wanted = list(plain(prompts[2], 32))
    for i in range(20):
        check_port_of_a_stranger()
        check_death_during_a_stream()
        check_death_of_the_parent(list(PARENTS)[i % 3])
        check_answer(server, client, prompts[2], wanted)
        check_disconnect(server, 50 + 997 * i, prompts[2], wanted)
        noise = [bytes((37 * i + 11 * n + k * k) % 256 for k in range(n)) for n in range(50 - len(INVALID))]
        check_invalid_bodies(server, client, [*INVALID, *noise])
        check_answer(server, client, prompts[2], wanted)
