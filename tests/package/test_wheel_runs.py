"""The wheel, installed where the repository cannot be found, does the job."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from .conftest import ROOT, Installed

LOADED = """
import json, nextn, nextn.speculator
model = nextn.Model(nextn.__path__[0] + "/models/nextn-demo-q8_0.gguf")
nextn.Context(model, n_ctx=256)
files = {line.split()[-1] for line in open("/proc/self/maps") if "/" in line.split()[-1]}
print(json.dumps([nextn.__version__, nextn.__file__, sorted(files)]))
"""


def test_runs_from_its_own_files(installed: Installed) -> None:
    version, file, mapped = json.loads(installed.python_run(LOADED))
    assert version
    venv = str(installed.python.parent.parent)
    assert file.startswith(venv)
    outside = [name for name in mapped if name.startswith((f"{ROOT}/", str(Path.home() / ".cache")))]
    assert outside == []
    # the best CPU kernels were found and loaded, and libgomp is the wheel's
    assert [name for name in mapped if "libggml-cpu-" in name and name.startswith(venv)]
    assert [name for name in mapped if "libgomp" in name and name.startswith(venv)]


def generate(installed: Installed, *options: str) -> dict[str, object]:
    done = installed.run(
        str(installed.python), "-m", "nextn", "generate", "def fib(n):", "-n", "48", "--json", *options
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_demo_generation_is_exact(installed: Installed) -> None:
    # a fixed length: the adaptive one may find that drafting does not pay on this machine, and draft nothing
    speculative, plain = generate(installed, "--no-adaptive"), generate(installed, "--no-draft")
    assert speculative["tokens"] == plain["tokens"]
    assert len(speculative["tokens"]) > 8  # type: ignore[arg-type]
    assert speculative["stats"]["draft_n_accepted"] > 0  # type: ignore[index]
    assert plain["stats"]["draft_n"] == 0  # type: ignore[index]


def test_console_script(installed: Installed) -> None:
    done = installed.run(str(installed.python.parent / "nextn"), "--help")
    assert done.returncode == 0, done.stderr
    assert "generate" in done.stdout


@pytest.fixture(scope="module")
def server(installed: Installed) -> str:
    return installed.python_run("import nextn; print(nextn.server_binary(), end='')")


def test_server_binary_is_the_wheels(installed: Installed, server: str) -> None:
    assert Path(server).is_relative_to(installed.python.parent.parent)
    done = installed.run(server, "--version")
    assert done.returncode == 0, done.stderr
    assert "nextn" in done.stdout + done.stderr


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(log.read_text(errors="replace"))


def test_server_finds_its_kernels_and_completes(installed: Installed, server: str, tmp_path: Path) -> None:
    model = Path(server).parents[1] / "models" / "nextn-demo-q8_0.gguf"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = tmp_path / "server.log"
    command = [server, "-m", str(model), "--host", "127.0.0.1", "--port", str(port), "-c", "512", "-t", "2"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=tmp_path, env={"HOME": str(tmp_path)}, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        wait_until_healthy(url, process, log)
        body = json.dumps({"prompt": "def fib(n):", "n_predict": 8, "temperature": 0}).encode()
        request = urllib.request.Request(f"{url}/completion", data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert json.load(answer)["tokens_predicted"] > 0
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
