"""What the tests on the real engine share: the models, prompts, and plain decoding by the shortest code there is."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
from nextn.context import Context

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "python" / "nextn" / "models" / "nextn-demo-q8_0.gguf"
# Small batches, so that prompts of 600 tokens cross both limits. One thread: these models gain nothing from a second,
# and lose much when another process wants its core.
SIZES = {"n_ctx": 1024, "n_batch": 256, "n_ubatch": 64, "n_threads": 1}


@cache
def heldout_prompts():
    """The 50 prompts that the demo model was not trained on."""
    lines = (ROOT / "scripts" / "demo_model" / "data" / "heldout_prompts.jsonl").read_text(encoding="utf-8")
    return [json.loads(line)["prompt"] for line in lines.splitlines()]


def chat_prompt(model, text):
    """Tokens of a one-message conversation in the demo model's form."""
    return model.tokenize(f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n", parse_special=True)


def plain(model, prompt, n_predict):
    """Greedy tokens, one decode per token, without a Speculator."""
    with Context(model, **SIZES) as context:
        for start in range(0, len(prompt), SIZES["n_ubatch"]):
            context.decode(prompt[start : start + SIZES["n_ubatch"]], outputs="last")
        out = []
        while True:
            out.append(int(np.argmax(context.logits()[-1])))
            if len(out) == n_predict or model.is_eog(out[-1]):
                return out
            context.decode([out[-1]])


def corrupted(rng, tokens, n_vocab, share_right):
    """The tokens, with each wrong with probability 1 - share_right."""
    wrong = rng.random(len(tokens)) >= share_right
    shift = rng.integers(1, n_vocab, size=len(tokens))
    return np.where(wrong, (np.asarray(tokens) + shift) % n_vocab, tokens).tolist()
