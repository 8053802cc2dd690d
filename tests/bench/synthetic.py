"""Receipts made by hand, whose figures are known beforehand."""

from __future__ import annotations

import hashlib
import random
from typing import Any

from nextn.bench.machine import machine_facts, version_facts
from nextn.bench.plan import Arm, BenchOptions, make_blocks
from nextn.bench.receipt import new_receipt
from nextn.bench.suite import Prompt, Suite

FACTS = {
    "model": {"file": "made-up.gguf", "bytes": 1, "sha256": "0" * 64},
    "draft_model": None,
    "engine": {"version": "1", "upstream_commit": "0c1e57098", "stamp": "s", "files": {"libllama.so": "1" * 64}},
    "server": None,
    "context": {"n_ctx": 512},
}


def make_suite(n_prompts: int = 12) -> Suite:
    topics = ("code", "math", "general")
    prompts = [Prompt(id=f"p{i}", topic=topics[i % 3], prompt=f"Task {i}") for i in range(n_prompts)]
    return Suite(name="made up", prompts=tuple(prompts))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_receipt(
    suite: Suite,
    arms: tuple[Arm, ...],
    options: BenchOptions,
    *,
    factors: dict[str, float] | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> dict[str, Any]:
    """A finished receipt whose arms are faster than plain decoding by given factors, with noise on each run's time.

    A plain run of prompt i makes 20 + i tokens at 100 / (1 + i / 10) tokens per second; drafts are half right at
    position 1 and never at the later ones.
    """
    chance = random.Random(seed)
    receipt = new_receipt(FACTS, suite, arms, options)
    numbers = {prompt.id: i for i, prompt in enumerate(suite.prompts)}
    for block in make_blocks(suite, arms, options):
        i = numbers[block.prompt.id]
        n_tokens = 20 + i
        for arm in block.arms:
            speed = 100 / (1 + i / 10) * (factors or {}).get(arm.name, 1.0)
            ms = 1e3 * (n_tokens - 1) / speed * chance.lognormvariate(0.0, noise)
            n_rounds = 10 if arm.n_max else n_tokens - 1
            receipt["rows"].append(
                {
                    "arm": arm.name,
                    "prompt": block.prompt.id,
                    "seed": block.seed,
                    "repeat": block.repeat,
                    "mode": block.mode,
                    "n_context": block.n_context,
                    "prompt_tokens": 7,
                    "completion_tokens": n_tokens,
                    "prompt_ms": 5.0,
                    "predicted_ms": ms,
                    "draft_ms": 0.25 * ms if arm.n_max else 0.0,
                    "verify_ms": 0.5 * ms,
                    "draft_n": 10 * arm.n_max,
                    "draft_n_accepted": 5 if arm.n_max else 0,
                    "n_rounds": n_rounds,
                    "drafted_per_position": [10] * arm.n_max,
                    "accepted_per_position": [5] + [0] * (arm.n_max - 1) if arm.n_max else [],
                    "finish_reason": "stop",
                    "tokens_sha256": digest(f"{block.prompt.id} {block.mode} {block.n_context}"),
                    "text_sha256": digest("text"),
                }
            )
    receipt["finished"] = True
    receipt["machine"], receipt["versions"] = machine_facts(), version_facts()
    return receipt
