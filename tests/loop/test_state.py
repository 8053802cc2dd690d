"""After any rounds, the memories hold exactly what a fresh run over the same text would hold."""

from __future__ import annotations

import numpy as np
import pytest
from engine import DEMO, SIZES, chat_prompt, corrupted, heldout_prompts
from nextn.context import Context
from nextn.drafting import ScriptedDrafter
from nextn.errors import DecodeError
from nextn.model import Model
from nextn.options import DraftParams
from nextn.sampling import Sampler
from nextn.speculator import Speculator

FIXED = DraftParams(n_max=5, adaptive=False, vocab="full")  # drafts depend on the text alone


@pytest.fixture(scope="module")
def demo():
    with Model(DEMO) as model:
        yield model


def fresh_logits(model, prompt, tokens, probe):
    """Logits after prompt, tokens and then each probe token, read from the start; the tokens one by one."""
    with Context(model, **SIZES) as context:
        for start in range(0, len(prompt), SIZES["n_ubatch"]):
            context.decode(prompt[start : start + SIZES["n_ubatch"]], outputs="none")
        for token in tokens:
            context.decode([token])
        return next_logits(context, probe)


def next_logits(context, probe):
    """Logits after each probe token."""
    context.set_argmax(False)  # a greedy request keeps no logits
    rows = []
    for token in probe:
        context.decode([token])
        rows.append(context.logits()[0])
    return np.array(rows)


@pytest.mark.parametrize("seed", range(10))
def test_target_after_random_rounds(demo, seed):
    rng = np.random.default_rng(seed)
    prompt = chat_prompt(demo, heldout_prompts()[4 * seed])
    with Speculator(demo, draft=None, **SIZES) as spec:
        expected = spec.generate(prompt, max_tokens=120).tokens
    script = corrupted(rng, expected, demo.n_vocab, rng.uniform(0.3, 0.9))
    with Speculator(demo, draft=ScriptedDrafter(script, n_max=int(rng.integers(1, 9))), **SIZES) as spec:
        stream, tokens = spec.stream(prompt, max_tokens=200), []
        n_rounds = int(rng.integers(5, 30))
        for chunk in stream:
            tokens += chunk.tokens
            if chunk.stats.n_rounds == n_rounds:
                break
        assert 0 < chunk.stats.draft_n_accepted < chunk.stats.draft_n
        assert tokens == list(expected[: len(tokens)])
        # the last token was chosen, not decoded
        assert spec.ctx_tgt.seq_pos_max() == len(prompt) + len(tokens) - 2
        probe = [tokens[-1], *rng.integers(0, demo.n_vocab, size=4).tolist()]
        after = next_logits(spec.ctx_tgt, probe)
        stream.close()
    np.testing.assert_array_equal(after, fresh_logits(demo, prompt, tokens[:-1], probe))


@pytest.mark.parametrize("cut", [False, True])
def test_target_after_a_text_that_ends_inside_a_draft(demo, cut):
    """What was accepted behind the end is not in the memory either."""
    prompt = chat_prompt(demo, heldout_prompts()[28])
    with Speculator(demo, draft=None, **SIZES) as spec:
        whole = spec.generate(prompt, max_tokens=60)
    assert whole.finish_reason == "stop"
    stop = {"stop": whole.text[-20:-15]} if cut else {}
    for n_max in range(2, 9):
        with Speculator(demo, draft=ScriptedDrafter([*whole.tokens, *[5] * 9], n_max=n_max), **SIZES) as spec:
            result = spec.generate(prompt, max_tokens=100, **stop)
            assert result.finish_reason == "stop"
            assert spec.ctx_tgt.seq_pos_max() == len(prompt) + len(result.tokens) - 2
            after = next_logits(spec.ctx_tgt, [result.tokens[-1], 7])
        np.testing.assert_array_equal(after, fresh_logits(demo, prompt, result.tokens[:-1], [result.tokens[-1], 7]))


def test_drafts_after_random_rounds(demo):
    """In the middle of a text the head drafts what it drafts when it reads that text as a prompt."""
    n_compared = 0
    for text in heldout_prompts()[:40:5]:
        prompt = chat_prompt(demo, text)
        with Speculator(demo, draft=FIXED, **SIZES) as spec, Speculator(demo, draft=FIXED, **SIZES) as fresh:
            stream, tokens = spec.stream(prompt, max_tokens=90), []
            for chunk in stream:
                tokens += chunk.tokens
                if chunk.stats.n_rounds == 5:
                    break
            if chunk.finish_reason is None and chunk.stats.acceptance_rate < 1.0:
                expected = next_draft(fresh, [*prompt, *tokens])
                where = tokens[-1], len(prompt) + len(tokens) - 1
                assert spec._drafter.draft(*where, 8) == expected
                n_compared += 1
            stream.close()
    assert n_compared >= 3


def next_draft(spec, text):
    """What the head drafts after a text that it reads as a prompt, but for the last token."""
    stream = spec.stream(text[:-1], max_tokens=20)
    next(stream)
    drafted = spec._drafter.draft(text[-1], len(text) - 1, 8)
    stream.close()
    return drafted


def test_a_second_request_drafts_as_a_cold_one(demo):
    def numbers(result):
        stats = result.stats
        return result.tokens, stats.draft_n, stats.draft_n_accepted, stats.accepted_per_position, stats.n_rounds

    prompts = [chat_prompt(demo, text) for text in heldout_prompts()[:6]]
    options = {"max_tokens": 60}
    with Speculator(demo, draft=FIXED, **SIZES) as warm:
        for i, prompt in enumerate(prompts):
            with Speculator(demo, draft=FIXED, **SIZES) as cold:
                expected = numbers(cold.generate(prompt, **options))
            # something of another kind in between
            stream = warm.stream(prompts[-1 - i], max_tokens=40)
            next(stream), next(stream)
            stream.close()
            assert numbers(warm.generate(prompt, **options)) == expected


def test_an_interrupted_request_leaves_a_right_next_answer(demo, monkeypatch):
    prompt = chat_prompt(demo, heldout_prompts()[2])
    with Speculator(demo, draft=FIXED, **SIZES) as spec:
        expected = spec.generate(prompt, max_tokens=60).tokens
        places = [
            (spec.ctx_tgt, "decode"),
            (spec._drafter, "prefill"),
            (spec._drafter, "draft"),
            (spec._drafter, "accept"),
        ]
        for place, method in places:
            for n_before, error in ((0, KeyboardInterrupt), (0, DecodeError), (3, KeyboardInterrupt)):
                if method == "prefill" and n_before:
                    continue  # the prompt has one chunk
                fail_after(monkeypatch, place, method, n_before, error)
                with pytest.raises(error):
                    spec.generate(prompt, max_tokens=60)
                monkeypatch.undo()
                assert spec.generate(prompt, max_tokens=60).tokens == expected


def fail_after(monkeypatch, place, method, n_before, error):
    """Let a method succeed so many times and then fail after its work, when memories have changed."""
    original, left = getattr(place, method), [n_before]

    def failing(*args, **kwargs):
        result = original(*args, **kwargs)
        left[0] -= 1
        if left[0] < 0:
            raise error
        return result

    monkeypatch.setattr(place, method, failing)


def test_an_error_that_the_caller_keeps_does_not_block_the_next_request(demo, monkeypatch):
    """Its traceback holds frames; a view of the logits in one of them would make the engine refuse to decode."""
    prompt = chat_prompt(demo, "hi")
    sample, n_calls = Sampler.sample, [0]

    def interrupted(self, logits):
        n_calls[0] += 1
        if n_calls[0] == 4:
            raise KeyboardInterrupt
        return sample(self, logits)

    with Speculator(demo, draft=DraftParams(n_max=1, adaptive=False), **SIZES) as spec:
        expected = spec.generate(prompt, max_tokens=30).tokens
        monkeypatch.setattr(Sampler, "sample", interrupted)
        with pytest.raises(KeyboardInterrupt) as kept:  # a bias of no weight: the rule reads whole rows
            spec.generate(prompt, max_tokens=30, logit_bias={1: 1e-3})
        assert spec.generate(prompt, max_tokens=30).tokens == expected
        assert kept.value.__traceback__ is not None
