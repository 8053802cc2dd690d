"""Servers for the tests, and plain decoding of the bundled model to compare them with."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import nextn
import pytest

ROOT = Path(__file__).resolve().parents[2]
# A fixed length: how often drafts are accepted is then no question of the machine's speed.
FIXED = nextn.DraftParams(n_max=4, adaptive=False)
SIZES: dict[str, Any] = {"n_ctx": 1024, "n_threads": 1}
# Of a request that decodes plainly.
OFF = {"speculative": {"type": "none"}}


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    """Prompts that the bundled model was not trained on, as written in its chat form."""
    lines = (ROOT / "scripts" / "demo_model" / "data" / "heldout_prompts.jsonl").read_text(encoding="utf-8")
    texts = [json.loads(line)["prompt"] for line in lines.splitlines()]
    return [f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in texts]


@pytest.fixture(scope="session")
def plain() -> Iterator[Callable[..., tuple[int, ...]]]:
    """Greedy tokens of a prompt, one decode each, without a server: plain(prompt, n)."""
    with nextn.Speculator(nextn.bundled_model(), draft=None, **SIZES) as speculator:
        yield lambda prompt, n: speculator.generate(prompt, max_tokens=n).tokens


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[nextn.Server]:
    """The bundled model in two slots, drafts of four tokens."""
    slots = tmp_path_factory.mktemp("slots")
    with nextn.Server(draft=FIXED, n_parallel=2, extra_args=["--slot-save-path", f"{slots}/"], **SIZES) as server:
        yield server


@pytest.fixture(scope="session")
def client(server: nextn.Server) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def undrafted() -> Iterator[httpx.Client]:
    """The bundled model in a server that knows no drafting: everything is as upstream does it."""
    with nextn.Server(spec_type="none", **SIZES) as server, server.client() as client:
        yield client


def complete(client: httpx.Client, prompt: str, n: int = 48, **options: Any) -> dict[str, Any]:
    """The answer of /completion, greedy unless options say otherwise."""
    body = {"prompt": prompt, "n_predict": n, "temperature": 0, "return_tokens": True, **options}
    response = client.post("/completion", json=body)
    assert response.status_code == 200, response.text
    return dict(response.json())


def drafted(answer: dict[str, Any]) -> tuple[int, int, int]:
    """Drafted, accepted, rounds."""
    timings = answer["timings"]
    return timings["draft_n"], timings["draft_n_accepted"], timings["n_rounds"]


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether it comes true within this time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False
