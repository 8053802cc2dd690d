"""Greedy text with speculation equals plain decoding, token for token, on the real engine."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from engine import DEMO, SIZES, chat_prompt, corrupted, heldout_prompts, plain
from nextn.drafting import ScriptedDrafter
from nextn.model import Model
from nextn.options import DraftParams
from nextn.speculator import Speculator

# Each compares at least LEAST tokens; together more than 20,000.
LEAST = 4_200
MODELS = {
    "demo-q8_0": None,
    "dense-q8_0": {"kind": "dense", "type": "q8_0"},
    "dense-q4_0": {"kind": "dense", "type": "q4_0"},
    "moe-q8_0": {"kind": "moe", "type": "q8_0"},
    "moe-q4_0": {"kind": "moe", "type": "q4_0"},
}
# A random head is never right about a random trunk; this one is often, so that its drafts are accepted and rejected.
AGREEING = {"tied": False, "agreement": 0.99, "special_scale": 0.0}
N_PROMPTS = (1, 2, 63, 64, 65, 257, 600)


@pytest.fixture(scope="module", params=MODELS)
def case(request, tiny_model):
    """A model, its prompts, and what plain decoding makes of each."""
    sizes = MODELS[request.param]
    with Model(DEMO if sizes is None else tiny_model(**sizes, **AGREEING)) as model:
        rng = np.random.default_rng(11)
        if sizes is None:
            heldout = [chat_prompt(model, text) for text in heldout_prompts()]
            long = [token for prompt in heldout for token in prompt]
            prompts = [*heldout[::20], *(long[-n:] for n in N_PROMPTS)]
        else:
            prompts = [rng.integers(0, model.n_vocab, size=n).tolist() for n in N_PROMPTS]
        with Speculator(model, draft=None, **SIZES) as spec:
            cases = [(prompt, spec.generate(prompt, max_tokens=48)) for prompt in prompts]
        yield model, cases


def test_the_plain_way_is_the_shortest_loop(case):
    model, cases = case
    for prompt, result in cases:
        assert list(result.tokens) == plain(model, prompt, 48)


def test_nothing_that_drafts_changes_a_token(case):
    model, cases = case
    rng = np.random.default_rng(12)
    n_compared, rates = 0, {}
    fixed = [DraftParams(n_max=n_max, adaptive=False, vocab="full") for n_max in range(1, 9)]
    for draft in (*fixed, DraftParams(), DraftParams(n_max=16, adaptive=False, vocab=300)):
        with Speculator(model, draft=draft, **SIZES) as spec:
            for prompt, expected in cases:
                result = spec.generate(prompt, max_tokens=48)
                assert result.tokens == expected.tokens, f"{draft}, prompt of {len(prompt)}"
                assert (result.text, result.finish_reason) == (expected.text, expected.finish_reason)
                n_compared += len(result.tokens)
                if draft in fixed:
                    rates.setdefault("head", []).append(result.stats.acceptance_rate)
    for n_max, share_right in ((1, 0.5), (2, 0.0), (3, 0.9), (4, 0.5), (6, 1.0), (8, 0.9)):
        for prompt, expected in cases:
            script = corrupted(rng, expected.tokens, model.n_vocab, share_right)
            with Speculator(model, draft=ScriptedDrafter(script, n_max=n_max), **SIZES) as spec:
                result = spec.generate(prompt, max_tokens=48)
            assert result.tokens == expected.tokens, f"{share_right:.0%} right, n_max={n_max}, prompt of {len(prompt)}"
            n_compared += len(result.tokens)
            rates.setdefault(share_right, []).append(result.stats.acceptance_rate)
    assert n_compared >= LEAST
    assert 0.1 < np.mean(rates["head"]) < 1.0  # both kinds of rounds happened
    assert max(rates[0.0]) == 0.0
    assert min(rates[1.0]) == 1.0
    assert 0.1 < np.mean(rates[0.5]) < np.mean(rates[0.9]) < 1.0


def test_two_that_draft_over_one_model_at_the_same_time(case):
    """Greedy and drawn, each in its thread: what each gives alone."""
    model, cases = case
    prompts = [prompt for prompt, _ in cases]
    asked = [{}, {"temperature": 1.0, "seed": 3}]

    def read(options, out, meet=None):
        with Speculator(model, draft=DraftParams(n_max=4, adaptive=False), **SIZES) as spec:
            for prompt in prompts:
                if meet:
                    meet.wait()  # so that every request has another beside it
                out.append(spec.generate(prompt, max_tokens=48, **options).tokens)

    alone, together = [[], []], [[], []]
    for options, out in zip(asked, alone, strict=True):
        read(options, out)
    meet = threading.Barrier(2, timeout=300)
    readers = [
        threading.Thread(target=read, args=(options, out, meet)) for options, out in zip(asked, together, strict=True)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert together == alone
    assert together[0] == [result.tokens for _, result in cases]
