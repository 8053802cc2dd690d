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
from nextn.speculator import Speculator


@pytest.fixture(scope="module")
def demo():
    with Model(DEMO) as model:
        yield model


def fresh_logits(model, prompt, tokens, probe):
    """Logits after prompt, tokens and then each probe token, read from the start one token at a time."""
    with Context(model, n_ctx=1024, n_ubatch=SIZES["n_ubatch"]) as context:
        for start in range(0, len(prompt), SIZES["n_ubatch"]):
            context.decode(prompt[start : start + SIZES["n_ubatch"]], outputs="none")
        for token in tokens:
            context.decode([token])
        return next_logits(context, probe)


def next_logits(context, probe):
    """Logits after each probe token."""
    rows = []
    for token in probe:
        context.decode([token])
        rows.append(context.logits()[0])
    return np.array(rows)


@pytest.mark.parametrize("seed", range(6))
def test_target_after_random_rounds(demo, seed):
    rng = np.random.default_rng(seed)
    prompt = chat_prompt(demo, heldout_prompts()[7 * seed])
    n_predict = int(rng.integers(20, 70))
    with Speculator(demo, draft=None, **SIZES) as spec:
        expected = spec.generate(prompt, max_tokens=n_predict).tokens
    script = corrupted(rng, expected, demo.n_vocab, rng.uniform(0.3, 0.9))
    with Speculator(demo, draft=ScriptedDrafter(script, n_max=int(rng.integers(1, 9))), **SIZES) as spec:
        result = spec.generate(prompt, max_tokens=n_predict)
        assert 0 < result.stats.draft_n_accepted < result.stats.draft_n
        probe = rng.integers(0, demo.n_vocab, size=4).tolist()
        # the last token was chosen, not decoded
        assert spec.ctx_tgt.seq_pos_max() == len(prompt) + len(result.tokens) - 2
        after = next_logits(spec.ctx_tgt, [result.tokens[-1], *probe])
    np.testing.assert_array_equal(after, fresh_logits(demo, prompt, result.tokens[:-1], [result.tokens[-1], *probe]))


@pytest.mark.parametrize("seed", range(4))
def test_draft_memory_after_random_rounds(demo, seed):
    """The head's next logits equal those of a head that read the text once, with the target's true rows."""
    rng = np.random.default_rng(seed)
    prompt = chat_prompt(demo, heldout_prompts()[5 * seed + 3])
    with Speculator(demo, draft=DraftParams(n_max=5), **SIZES) as spec:
        stream, tokens = spec.stream(prompt, max_tokens=90), []
        for chunk in stream:
            tokens += chunk.tokens
            if chunk.stats.n_rounds == 8 + seed:
                break
        assert chunk.finish_reason is None
        # Between two rounds: the drafter's own next step, seen from outside
        spec._drafter.draft(tokens[-1], len(prompt) + len(tokens) - 1, 1)
        drafted = spec.ctx_dft.logits()[-1]
        stream.close()
    text = [*prompt, *tokens]
    with Context(demo, n_ctx=1024) as tgt, Context(demo, n_ctx=1024, nextn_draft=True) as dft:
        for i, token in enumerate(text):
            hidden = tgt.hidden()[-1:] if i else np.zeros((1, demo.n_embd), np.float32)
            dft.decode([token], hidden=hidden, outputs="last")
            tgt.decode([token])
        fresh = dft.logits()[-1]
    # the prompt's rows come from wide kernels, which may differ in the last bits
    np.testing.assert_allclose(drafted, fresh, rtol=0, atol=1e-3)
    assert rng is not None


def test_a_second_request_drafts_as_a_cold_one(demo):
    def numbers(result):
        stats = result.stats
        return result.tokens, stats.draft_n, stats.draft_n_accepted, stats.accepted_per_position, stats.n_rounds

    prompts = [chat_prompt(demo, text) for text in heldout_prompts()[:6]]
    options = {"max_tokens": 60}
    with Speculator(demo, **SIZES) as warm:
        for i, prompt in enumerate(prompts):
            with Speculator(demo, **SIZES) as cold:
                expected = numbers(cold.generate(prompt, **options))
            # something of another kind in between
            stream = warm.stream(prompts[-1 - i], max_tokens=40)
            next(stream), next(stream)
            stream.close()
            assert numbers(warm.generate(prompt, **options)) == expected


def test_an_interrupted_request_leaves_a_right_next_answer(demo, monkeypatch):
    prompt = chat_prompt(demo, heldout_prompts()[2])
    with Speculator(demo, **SIZES) as spec:
        expected = spec.generate(prompt, max_tokens=60).tokens
        for where in ("ctx_tgt", "ctx_dft"):
            for n_before in (0, 1, 5):
                context = getattr(spec, where)
                fail_after(monkeypatch, context, n_before, KeyboardInterrupt)
                with pytest.raises(KeyboardInterrupt):
                    spec.generate(prompt, max_tokens=60)
                monkeypatch.undo()
                assert spec.generate(prompt, max_tokens=60).tokens == expected
        fail_after(monkeypatch, spec.ctx_tgt, 3, DecodeError)
        with pytest.raises(DecodeError):
            spec.generate(prompt, max_tokens=60)
        monkeypatch.undo()
        assert spec.generate(prompt, max_tokens=60).tokens == expected


def fail_after(monkeypatch, context, n_before, error):
    """Let a context decode so many times and then fail after the decode, when its memory has changed."""
    decode, left = context.decode, [n_before]

    def failing(*args, **kwargs):
        n_outputs = decode(*args, **kwargs)
        left[0] -= 1
        if left[0] < 0:
            raise error
        return n_outputs

    monkeypatch.setattr(context, "decode", failing)


def test_an_error_that_the_caller_keeps_does_not_block_the_next_request(demo, monkeypatch):
    """Its traceback holds frames; a view of the logits in one of them would make the engine refuse to decode."""
    import nextn.accept

    prompt = chat_prompt(demo, "hi")
    argmax = nextn.accept.argmax_rows
    calls = []

    def interrupted(logits):
        calls.append(len(calls))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return argmax(logits)

    with Speculator(demo, **SIZES) as spec:
        expected = spec.generate(prompt, max_tokens=30).tokens
        monkeypatch.setattr(nextn.accept, "argmax_rows", interrupted)
        with pytest.raises(KeyboardInterrupt) as kept:
            spec.generate(prompt, max_tokens=30)
        assert spec.generate(prompt, max_tokens=30).tokens == expected
        assert kept.value.__traceback__ is not None
