"""Fixtures that every test may use: random models made from a seed when first asked for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "tiny_models"
_SECONDS_KEPT = 24 * 3600
sys.path.insert(0, str(ROOT / "scripts"))

# A shell's background jobs ignore Ctrl-C, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _sources_hash() -> str:
    """Changes with the generator's code and the two packages under it."""
    text = b"".join(p.read_bytes() for p in sorted((ROOT / "scripts" / "tiny_gguf").glob("*.py")))
    text += f"{version('numpy')} {version('gguf')}".encode()
    return hashlib.sha256(text).hexdigest()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the tests marked `long` out, unless -m names them."""
    if "long" not in config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Path]:
    """Return a function that makes a random model and gives its path.

        path = tiny_model("dense")                            # or "moe", "next", "odd", "odd-moe", "wide"
        path = tiny_model("moe", type="q8_0", tied=False, seed=3)
        path = tiny_model("dense", part="head")               # "trunk": no head; "legacy-head": *_mtp architecture

    `type` is f32, f16, bf16, q8_0 or q4_0; further arguments are those of `tiny_gguf.make` (`output_type`,
    `special_scale`, …) and sizes of `tiny_gguf.Shape` (`n_vocab`, `n_layer`, `tied`, `head_tensors`, …). The same
    arguments give the same file; do not change it. Drafts of a random head are all wrong; with `tied=False,
    agreement=0.92` about a third of the first drafts are right.
    """
    from tiny_gguf import PRESETS, make

    cache = CACHE / _sources_hash()[:16]
    cache.mkdir(parents=True, exist_ok=True)
    cache.touch()
    for old in CACHE.iterdir():  # models of earlier generators, unless another run may still need them
        if old.stat().st_mtime < time.time() - _SECONDS_KEPT:
            shutil.rmtree(old, ignore_errors=True)

    def build(kind: str = "dense", type: str = "f32", **options: Any) -> Path:  # noqa: A002
        base = PRESETS[kind if kind in PRESETS else f"tiny-{kind}"]
        sizes = {f.name: options.pop(f.name) for f in dataclasses.fields(base) if f.name in options}
        shape = dataclasses.replace(base, **sizes)
        key = json.dumps([dataclasses.asdict(shape), type, options], sort_keys=True)
        name = f"{kind}-{type}-{options.get('part', 'full')}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.gguf"
        path = cache / name
        if not path.exists():
            make(path, shape, weight_type=type, **options)
        return path

    return build


class Worker:
    """A ggml-rpc-server of this package on this machine, until it is killed."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it, at the same address each time."""
        import nextn

        command = [nextn.rpc_server_binary(), "-H", "127.0.0.1", "-p", str(self.port), "-t", "1"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while time.monotonic() < end and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"no worker at {self.address}: exit code {self._process.returncode}")

    def kill(self) -> None:
        """As a machine that loses its power."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def workers() -> Iterator[list[Worker]]:
    """Two workers."""
    with ExitStack() as started:
        both = []
        for _ in range(2):
            both.append(Worker())
            started.callback(both[-1].kill)
        yield both
