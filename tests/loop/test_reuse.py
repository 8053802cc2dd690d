"""What is kept of an earlier prompt never shows: tokens, drafts, the bits of the logits are those of a cold start."""

from __future__ import annotations

import numpy as np
import pytest
from engine import DEMO, SIZES, heldout_prompts
from nextn._checkpoints import Checkpoint, Checkpoints, end_of_chunk
from nextn.errors import DecodeError
from nextn.model import Model
from nextn.options import DraftParams
from nextn.speculator import Speculator

FIXED = DraftParams(n_max=4, adaptive=False)
N_CHUNK = SIZES["n_ubatch"]


@pytest.fixture(scope="module")
def demo():
    with Model(DEMO) as model:
        yield model


def answer(spec, prompt, **options):
    """Everything that a request gives, apart from times and what was reused."""
    asked = {"max_tokens": 24, "logprobs": 8, **options}
    result = spec.chat(prompt, **asked) if isinstance(prompt[0], dict) else spec.generate(prompt, **asked)
    stats = result.stats
    drafts = stats.draft_n, stats.accepted_per_position, stats.n_rounds
    return (result.text, result.tokens, result.logprobs, drafts), stats.cache_n


def cold(model, prompt, draft, **options):
    with Speculator(model, draft=draft, **SIZES) as spec:
        return answer(spec, prompt, **options)[0]


@pytest.mark.parametrize("draft", [FIXED, None], ids=["head", "plain"])
def test_a_conversation(demo, draft):
    """Each turn goes on behind the last whole chunk of the one before; the last turn is edited as well."""
    messages, kept = [], []
    with Speculator(demo, draft=draft, **SIZES) as spec:
        for turn, text in enumerate(heldout_prompts()[:8]):
            messages.append({"role": "user", "content": text})
            got, n_kept = answer(spec, messages, max_tokens=60)
            assert got == cold(demo, messages, draft, max_tokens=60)
            kept.append(n_kept)
            if turn % 3 == 2:
                edited = [*messages[:-1], {"role": "user", "content": "No. " + text}]
                got, n_edited = answer(spec, edited, temperature=0.9, seed=turn)
                assert got == cold(demo, edited, draft, temperature=0.9, seed=turn)
                assert n_edited >= n_kept
            messages.append({"role": "assistant", "content": got[0]})
    assert all(n % N_CHUNK == 0 for n in kept)
    assert kept == sorted(kept)
    assert kept[-1] >= 2 * N_CHUNK


def test_every_way_to_share_a_beginning(demo):
    rng = np.random.default_rng(5)
    base = rng.integers(10, 3000, 400).tolist()
    other = rng.integers(10, 3000, 400).tolist()
    prompts = [
        (base, 0),
        (base, 384),
        (base[:384], 320),  # one token is left to read, and its chunk begins at 320
        (base[:385], 384),
        (base[:200], 192),
        (base, 192),
        (base[:300] + other[:90], 256),
        (base[:63] + other, 0),
        (other, 0),
        (base[:5], 0),
        (other, 0),
        (other + base, 384),
        (other[:70], 64),
    ]
    with Speculator(demo, draft=FIXED, ctx_checkpoints=100, **SIZES) as spec:
        for prompt, n_expected in prompts:
            got, n_kept = answer(spec, prompt)
            assert got == cold(demo, prompt, FIXED)
            assert n_kept == n_expected


@pytest.mark.parametrize("kind", ["dense", "moe", "odd"])
def test_other_models(tiny_model, kind):
    rng = np.random.default_rng(6)
    with Model(tiny_model(kind)) as model, Speculator(model, draft=FIXED, **SIZES) as spec:
        prompt = rng.integers(10, model.n_vocab - 10, 300).tolist()
        for n_common in (300, 290, 150):
            again = [*prompt[:n_common], *rng.integers(10, model.n_vocab - 10, 40).tolist()]
            answer(spec, prompt)
            got, n_kept = answer(spec, again)
            assert n_kept == n_common // N_CHUNK * N_CHUNK
            assert got == cold(model, again, FIXED)


def test_a_request_that_ended_early_spoils_nothing(demo, monkeypatch):
    rng = np.random.default_rng(7)
    prompt = rng.integers(10, 3000, 300).tolist()
    expected = cold(demo, prompt, FIXED)
    with Speculator(demo, draft=FIXED, **SIZES) as spec:
        answer(spec, prompt)
        for n_before in range(6):  # fails behind so many decodes of a prompt that shares 150 tokens
            decode, left = spec.ctx_tgt.decode, [n_before]

            def failing(*args, decode=decode, left=left, **options):
                left[0] -= 1
                if left[0] < 0:
                    raise DecodeError("planned")
                return decode(*args, **options)

            monkeypatch.setattr(spec.ctx_tgt, "decode", failing)
            with pytest.raises(DecodeError):
                spec.generate(prompt[:150] + prompt[:100], max_tokens=24)
            monkeypatch.undo()
            assert answer(spec, prompt)[0] == expected
        stream = spec.stream(prompt, max_tokens=20)
        next(stream), next(stream)
        stream.close()
        assert answer(spec, prompt) == (expected, 256)
        spec.ctx_tgt.seq_rm(0, -1, -1)  # somebody empties the memory
        assert answer(spec, prompt) == (expected, 0)


@pytest.mark.parametrize("draft", [FIXED, DraftParams(), None], ids=["head", "adaptive head", "plain"])
def test_a_conversation_at_the_default_sizes(demo, draft):
    """Each turn goes on behind the last question, also in a conversation that is shorter than a chunk."""
    messages, end, n_short = [], 0, 0
    n_after = len(demo.tokenize("\n<|im_start|>assistant\n", parse_special=True))

    def same(spec, asked, **options):
        with Speculator(demo, draft=draft, n_threads=1, **options) as fresh:
            expected = answer(fresh, asked, max_tokens=40)[0]
        got, n_kept = answer(spec, asked, max_tokens=40)
        n_compared = 3 if draft == DraftParams() else 4  # its drafts depend on the clock
        assert got[:n_compared] == expected[:n_compared]
        return got, n_kept

    with Speculator(demo, draft=draft, n_threads=1) as spec:
        for text in heldout_prompts()[:5]:
            messages.append({"role": "user", "content": f"{text} Explain it, {'and then once more, ' * 20}slowly."})
            got, n_kept = same(spec, messages)
            assert n_kept == end
            n_short += 0 < n_kept < 512
            same(spec, [*messages[:-1], {"role": "user", "content": "No. " + text}], ctx_checkpoints=0)
            again = spec.chat(messages, max_tokens=1).stats
            end = again.prompt_tokens - n_after
            messages.append({"role": "assistant", "content": got[0]})
    assert n_short >= 2
    assert again.prompt_tokens > 600


def test_where_chunks_end():
    prompt = np.full(2000, 7, np.int32)
    prompt[[100, 127, 130, 400, 1200]] = 3

    def ends(prompt, n_most, start=0):
        found = []
        while start < len(prompt):
            start, is_whole = end_of_chunk(prompt, start, n_most, {3, 4})
            found.append((start, is_whole))
        return found

    whole = ends(prompt, 512)
    assert whole == [(128, True), (401, True), (913, True), (1201, True), (1713, True), (2000, False)]
    assert ends(prompt, 64) == [*((n, True) for n in range(64, 1985, 64)), (2000, False)]
    for n in range(1, 2000, 9):  # of a prompt that is the same up to there
        assert (
            ends(prompt[:n], 512)[:-1] == [place for place in whole if place[0] <= n][: len(ends(prompt[:n], 512)) - 1]
        )
    for start, _ in whole[:-1]:
        assert ends(prompt, 512, start) == [place for place in whole if place[0] > start]


def test_how_many_are_kept(demo):
    prompt = np.random.default_rng(8).integers(10, 3000, 400).tolist()
    for n_max in (0, 1, 3):
        with Speculator(demo, draft=FIXED, ctx_checkpoints=n_max, **SIZES) as spec:
            expected = answer(spec, prompt)[0]
            assert len(spec._checkpoints) == n_max
            assert answer(spec, prompt) == (expected, 384 if n_max else 0)


def test_thinning_keeps_the_end_and_something_of_the_rest():
    checkpoints = Checkpoints(6)
    checkpoints.start(np.zeros(6400, np.int32), 0)
    for n_past in range(64, 6401, 64):
        checkpoints.add(Checkpoint(n_past, b"", None))
    kept = [checkpoint.n_past for checkpoint in checkpoints._kept]
    assert len(kept) == 6
    assert kept[-1] == 6400
    gaps = np.diff([0, *kept])
    assert kept[-1] - kept[-2] <= 256
    assert gaps.max() <= 4500


def test_less_is_read(demo):
    """The time and the count of read tokens go down; the callback sees where it begins."""
    prompt = np.random.default_rng(9).integers(10, 3000, 700).tolist()
    with Speculator(demo, draft=FIXED, **SIZES) as spec:
        seen = []
        first = spec.generate(prompt, max_tokens=1, progress=lambda *done: seen.append(done))
        assert [done for done, _ in seen] == [*range(64, 700, 64), 700]
        assert {n_all for _, n_all in seen} == {700}
        assert 0 < first.stats.prompt_draft_ms < first.stats.prompt_ms
        seen.clear()
        second = spec.generate(prompt, max_tokens=1, progress=lambda *done: seen.append(done))
        assert seen == [(700, 700)]
        assert second.stats.prompt_ms < first.stats.prompt_ms
