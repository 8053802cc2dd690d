"""An unpatched llama-server of the same pin, as a competitor in benchmarks: plain, or with its own draft-mtp."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

__all__ = ["UpstreamServer", "drafts"]

# "… #gen tokens = 123 … dur(b,g,a) = 0.002, 1234.500, 0.010 ms": what its driver counts since the start
_STATISTICS = re.compile(r"#gen tokens = *(\d+),.*dur\(b,g,a\) = [\d.]+, ([\d.]+),")


def drafts(kind: str, length: int, shares: Sequence[float] | None = None) -> list[str]:
    """Options for drafts of this length at most; shares: accept the first j tokens in this share of rounds."""
    options = ["--spec-type", kind, "--spec-draft-n-max", str(length)]
    return options + (["--spec-synth-rates", ",".join(f"{share:.4f}" for share in shares)] if shares else [])


@dataclass
class UpstreamServer:
    """Runs one server at a time over a model.

    Attributes:
        binary: The program.
        model: The GGUF file.
        threads: Of decodes of every width.
        n_ctx: Tokens that fit.
    """

    binary: str
    model: Path
    threads: int
    n_ctx: int

    @contextmanager
    def run(self, options: Sequence[str], log: IO[Any] | int = subprocess.DEVNULL) -> Iterator[str]:
        """A server on a free port; its address."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        threads = str(self.threads)
        command = [self.binary, "-m", str(self.model), "--host", "127.0.0.1", "--port", str(port), "-np", "1",
                   "-c", str(self.n_ctx), "-t", threads, "-tb", threads, *options]  # fmt: skip
        # threads of a server that wait actively take the cores from each other
        env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        try:
            _wait_for(process, f"http://127.0.0.1:{port}/health", command)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run_prompts(self, options: Sequence[str], prompts: list[list[int]], n_predict: int, *,
                    ignore_eos: bool) -> list[dict[str, float]]:  # fmt: skip
        """Generate behind each prompt; its timings of each."""
        with self.run(options) as base:
            ask(base, prompts[0], 8, ignore_eos=True)  # warms up
            return [ask(base, prompt, n_predict, ignore_eos=ignore_eos) for prompt in prompts]

    def draft_step_ms(self, options: Sequence[str], prompts: list[list[int]], n_predict: int) -> float:
        """Milliseconds that its driver takes for a drafted token, by its own statistics."""
        with tempfile.TemporaryFile("w+") as log:
            with self.run([*options, "--verbosity", "4", "--perf"], log) as base:
                for prompt in prompts:
                    ask(base, prompt, n_predict, ignore_eos=True)
            log.seek(0)
            counted = _STATISTICS.findall(log.read())
        if not counted:
            raise SystemExit(f"{self.binary} printed no statistics of its drafts")
        n_tokens, spent = counted[-1]
        return float(spent) / int(n_tokens)


def ask(base: str, prompt: list[int], n_predict: int, *, ignore_eos: bool) -> dict[str, float]:
    """The server's timings for one completion."""
    body = {"prompt": prompt, "n_predict": n_predict, "temperature": 0, "ignore_eos": ignore_eos, "cache_prompt": False}
    request = urllib.request.Request(
        base + "/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as answer:
        timings: dict[str, float] = json.load(answer)["timings"]
    return timings


def _wait_for(process: subprocess.Popen[bytes], url: str, command: list[str]) -> None:
    """Until the server answers."""
    for _ in range(600):
        if process.poll() is not None:
            raise SystemExit(f"the server ended with {process.returncode}: {' '.join(command)}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"the server does not answer: {' '.join(command)}")
