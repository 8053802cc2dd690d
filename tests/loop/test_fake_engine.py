"""The loop over a NumPy stand-in: exactness, bookkeeping, failures."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from nextn.drafting import ScriptedDrafter
from nextn.errors import ClosedError, ContextOverflowError, DecodeError, NextnError, NoNextnLayerError
from nextn.options import DraftParams
from nextn.sampling import Distribution
from nextn.speculator import Speculator


def some_prompt(rng, fake, n):
    return rng.integers(9, fake.N_VOCAB, size=n).tolist()


def corrupted(rng, tokens, n_vocab, share_right):
    """The tokens, with each wrong with probability 1 - share_right."""
    wrong = rng.random(len(tokens)) >= share_right
    shift = rng.integers(1, n_vocab, size=len(tokens))
    return np.where(wrong, (np.asarray(tokens) + shift) % n_vocab, tokens).tolist()


@pytest.mark.parametrize("n_max", range(1, 9))
@pytest.mark.parametrize("n_prompt", [1, 2, 31, 32, 33, 100])
def test_head_drafts_never_change_the_text(fake, n_max, n_prompt):
    model = fake.FakeModel()
    prompt = some_prompt(np.random.default_rng(n_prompt), fake, n_prompt)
    with Speculator(model, n_batch=32, n_ubatch=16, draft=DraftParams(n_max=n_max)) as spec:
        result = spec.generate(prompt, max_tokens=200)
    assert list(result.tokens) == fake.plain(model, prompt, 200)
    assert result.stats.draft_n_accepted > 20
    assert result.stats.acceptance_rate < 1.0


@pytest.mark.parametrize("share_right", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("n_max", [1, 3, 8])
def test_scripted_drafts_never_change_the_text(fake, share_right, n_max):
    model, rng = fake.FakeModel(), np.random.default_rng(7)
    prompt = some_prompt(rng, fake, 20)
    expected = fake.plain(model, prompt, 300)
    script = corrupted(rng, expected, fake.N_VOCAB, share_right)
    with Speculator(model, draft=ScriptedDrafter(script, n_max=n_max)) as spec:
        result = spec.generate(prompt, max_tokens=300)
    assert list(result.tokens) == expected
    stats = result.stats
    if share_right in (0.0, 1.0):
        assert stats.acceptance_rate == share_right
    else:
        assert 0.0 < stats.acceptance_rate < 1.0


def test_a_perfect_script_needs_the_fewest_rounds(fake):
    model = fake.FakeModel()
    expected = fake.plain(model, [10, 11], 101)
    with Speculator(model, draft=ScriptedDrafter(expected, n_max=4)) as spec:
        stats = spec.generate([10, 11], max_tokens=101).stats
    assert (stats.n_rounds, stats.draft_n, stats.draft_n_accepted) == (20, 80, 80)
    assert stats.accepted_per_position == (20, 20, 20, 20)
    assert stats.mean_accepted_len == 5.0


def test_plain_decoding_drafts_nothing(fake):
    model = fake.FakeModel()
    with Speculator(model, draft=None) as spec:
        result = spec.generate([10, 11], max_tokens=50)
        assert spec.ctx_dft is None
        assert spec.ctx_tgt.n_rs_seq == 0
    assert list(result.tokens) == fake.plain(model, [10, 11], 50)
    assert (result.stats.draft_n, result.stats.n_rounds, result.stats.mean_accepted_len) == (0, 49, 1.0)


def test_catch_up_and_first_draft_step_are_one_decode(fake):
    with Speculator(fake.FakeModel(), draft=DraftParams(n_max=3)) as spec:
        stats = spec.generate([10, 11, 12], max_tokens=60).stats
        log = spec.ctx_dft.log
    read = [tokens for outputs, tokens in log if outputs == "last"]
    # each round that drafts has one catch-up and n_draft - 1 chain steps; nothing else is decoded after the prompt
    assert len(read) == stats.draft_n
    assert log[0] == ("none", [10, 11, 12])
    assert len(log) == 1 + len(read)


def test_true_rows_are_read_once_and_with_the_right_hidden(fake):
    """After a request the head's memory, down to the pending tokens, is what reading the text from the start gives."""
    model = fake.FakeModel()
    with Speculator(model, draft=DraftParams(n_max=4)) as spec:
        result = spec.generate([10, 11, 12], max_tokens=80)
        drafter, rows = spec._drafter, spec.ctx_dft.rows
        # leave only true rows, as the next round would
        n_true = spec.ctx_tgt.seq_pos_max() + 1 - len(drafter._pending)
        text = [10, 11, 12, *result.tokens]
        tgt, dft = fake.FakeContext(model, n_ctx=700), fake.FakeContext(model, n_ctx=700, nextn_draft=True)
        tgt.decode(text)
        hidden = np.concatenate((np.zeros((1, fake.N_EMBD), np.float32), tgt.hidden()[:-1]))
        dft.decode(text, hidden=hidden)
        assert n_true > 60
        np.testing.assert_array_equal(rows[:n_true], dft.rows[:n_true])


def test_target_memory_is_that_of_a_fresh_run(fake):
    model = fake.FakeModel()
    with Speculator(model, draft=DraftParams(n_max=5)) as spec:
        for n in (1, 2, 17, 64):
            result = spec.generate([20, 21], max_tokens=n)
            fresh = fake.FakeContext(model, n_ctx=700)
            fresh.decode([20, 21, *result.tokens[:-1]])
            np.testing.assert_array_equal(spec.ctx_tgt.rows, fresh.rows)


def test_a_second_request_drafts_as_a_cold_one(fake):
    def numbers(stats):
        return stats.draft_n, stats.draft_n_accepted, stats.accepted_per_position, stats.n_rounds

    model = fake.FakeModel()
    with Speculator(model, n_batch=16) as cold:
        expected = cold.generate([30, 31, 32], max_tokens=90)
    with Speculator(model, n_batch=16) as warm:
        warm.generate(list(range(40, 90)), max_tokens=33)
        stream = warm.stream([11, 12], max_tokens=50)
        next(stream), next(stream)
        stream.close()
        warm.ctx_tgt.fail_at = 4
        with pytest.raises(DecodeError):
            warm.generate([50], max_tokens=50)
        warm.ctx_dft.fail_at = 5
        with pytest.raises(DecodeError):
            warm.generate([50], max_tokens=50)
        warm.ctx_tgt.interrupt_at = 6
        with pytest.raises(KeyboardInterrupt):
            warm.generate([50], max_tokens=50)
        again = warm.generate([30, 31, 32], max_tokens=90)
    assert again.tokens == expected.tokens
    assert numbers(again.stats) == numbers(expected.stats)


def test_a_failure_with_live_views_does_not_block_the_next_request(fake, monkeypatch):
    """The exception, kept by the caller, holds the frames that held views of the logits."""
    model = fake.FakeModel()
    with Speculator(model) as spec:
        expected = spec.generate([10], max_tokens=20).tokens
        model.poisoned = {5}
        with pytest.raises(DecodeError, match="NaN") as kept:
            spec.generate([10], max_tokens=20)
        model.poisoned = set()
        assert spec.generate([10], max_tokens=20).tokens == expected
        assert kept.value.__traceback__ is not None


def test_n_min_throws_short_drafts_away(fake):
    with Speculator(fake.FakeModel(), draft=DraftParams(n_max=4, n_min=4)) as spec:
        result = spec.generate([10], max_tokens=40)
        drafted = [len(tokens) - 1 for outputs, tokens in spec.ctx_tgt.log if outputs == "all"]
    assert set(drafted) == {0, 4}  # none in the rounds without room for four
    assert list(result.tokens) == fake.plain(spec.model, [10], 40)


def test_p_min_stops_the_chain(fake):
    model = fake.FakeModel()
    n_drafted = {}
    for p_min in (0.0, 0.6, 1.0):
        with Speculator(model, draft=DraftParams(n_max=4, p_min=p_min)) as spec:
            result = spec.generate([10], max_tokens=100)
        assert list(result.tokens) == fake.plain(model, [10], 100)
        n_drafted[p_min] = result.stats.draft_n
    assert n_drafted[0.0] > n_drafted[0.6] > n_drafted[1.0] == 0


def test_p_min_is_the_softmax_probability_of_the_first_choice(fake):
    model = fake.FakeModel()
    probabilities = []
    with Speculator(model, draft=DraftParams(n_max=1)) as spec:
        decode = spec.ctx_dft.decode

        def watched(tokens, **kwargs):
            n = decode(tokens, **kwargs)
            if n:
                row = spec.ctx_dft.logits()[-1].astype(np.float64)
                probabilities.append(np.exp(row - row.max()).max() / np.exp(row - row.max()).sum())
            return n

        spec.ctx_dft.decode = watched
        spec.generate([10], max_tokens=3)
    first = probabilities[0]
    for p_min, expected in ((first - 1e-4, 1), (first + 1e-4, 0)):
        with Speculator(model, draft=DraftParams(n_max=1, p_min=p_min)) as spec:
            assert spec.generate([10], max_tokens=3).stats.accepted_per_position is not None
            verified = [len(tokens) - 1 for outputs, tokens in spec.ctx_tgt.log if outputs == "all"]
        assert verified[0] == expected


def test_drafts_are_clipped_to_the_room_left(fake):
    model = fake.FakeModel()
    with Speculator(model, n_ctx=64, draft=DraftParams(n_max=8)) as spec:
        for max_tokens in (1, 2, 3, 8, 9, 10):
            result = spec.generate([10] * 5, max_tokens=max_tokens)
            assert len(result.tokens) == result.stats.completion_tokens == max_tokens
            assert result.finish_reason == "length"
        result = spec.generate([10] * 5)
        assert len(result.tokens) == 59
        assert result.finish_reason == "length"
        assert spec.ctx_tgt.seq_pos_max() < 64


def test_times_belong_to_what_took_them(fake, monkeypatch):
    now = 0.0

    def take(seconds):
        nonlocal now
        now += seconds

    for module in ("stats", "speculator", "drafting", "_forms"):
        monkeypatch.setattr(f"nextn.{module}.perf_counter", lambda: now)

    class Slow(ScriptedDrafter):
        def draft(self, *where):
            take(0.004)
            return super().draft(*where)

    with Speculator(fake.FakeModel(), draft=Slow([], n_max=3)) as spec:
        decode = spec.ctx_tgt.decode

        def slow(tokens, **kwargs):
            take(0.05 if kwargs["outputs"] == "last" else 0.02)  # the prompt's chunk, or a round's batch
            return decode(tokens, **kwargs)

        monkeypatch.setattr(spec.ctx_tgt, "decode", slow)
        stats = None
        for chunk in spec.stream([10, 11], max_tokens=6):
            stats = chunk.stats
            take(0.2)  # the caller's own affair
    assert stats.n_rounds == 5
    assert (stats.prompt_ms, stats.ttft_ms) == pytest.approx((50, 50))
    assert (stats.draft_ms, stats.verify_ms, stats.predicted_ms) == pytest.approx((20, 100, 120))
    assert stats.tokens_per_second == pytest.approx(5e3 / 120)


def test_a_drafter_that_proposes_too_much_is_clipped(fake):
    class Greedy(ScriptedDrafter):
        def draft(self, id_last, n_past, n_room):
            return np.zeros(3, np.int32) + 10

    with Speculator(fake.FakeModel(), draft=Greedy([], n_max=3)) as spec:
        assert len(spec.generate([10], max_tokens=2).tokens) == 2


def test_a_drafter_that_draws_need_not_learn(fake):
    class Drawing(ScriptedDrafter):
        n_asked = 0

        def draw(self, draws):
            self.draws = draws

        def draft(self, *where):
            self.drafted = super().draft(*where)
            return self.drafted

        def q(self):
            self.n_asked += 1
            return [Distribution.certain(token) for token in self.drafted]

        def cut(self, n_draft):
            self.drafted = self.drafted[:n_draft]

    drafter = Drawing(range(10, 30), n_max=3)
    drafter.drafted = []
    with Speculator(fake.FakeModel(), draft=drafter) as spec:
        stats = spec.generate([10], max_tokens=9, temperature=1.0, seed=1).stats
    assert drafter.draws.temperature == 1.0
    assert drafter.n_asked == stats.n_rounds + 1  # and after the prompt


def test_generation_ends_at_an_end_of_turn_token(fake):
    model = fake.FakeModel(eog_bias=4.0)
    expected = fake.plain(model, [10, 14], 400)
    assert expected[-1] == fake.EOG
    assert len(expected) > 3
    model.eog_tokens = frozenset()
    beyond = fake.plain(model, [10, 14], len(expected) + 9)  # what the target would say behind the end
    model.eog_tokens = frozenset({fake.EOG})
    for draft in (None, DraftParams(n_max=8), ScriptedDrafter(beyond, n_max=8)):
        with Speculator(model, draft=draft) as spec:
            result = spec.generate([10, 14], max_tokens=400)
        assert list(result.tokens) == expected
        assert result.finish_reason == "stop"
        assert "<eog>" not in result.text
        stats = result.stats
        assert stats.completion_tokens == len(expected)
        assert stats.draft_n_accepted <= stats.draft_n
        # nothing behind the end counts as accepted
        assert stats.completion_tokens - 1 - stats.n_rounds <= stats.draft_n_accepted < stats.completion_tokens


def test_the_head_does_not_draft_behind_an_end_of_turn_token(fake):
    model = fake.FakeModel(eog_bias=6.0)
    with Speculator(model, draft=DraftParams(n_max=8)) as spec:
        for first in range(10, 40):
            spec.generate([first], max_tokens=30)
        drafts = [tokens[1:] for outputs, tokens in spec.ctx_tgt.log if outputs == "all"]
    assert any(fake.EOG in draft for draft in drafts)
    assert all(fake.EOG not in draft[:-1] for draft in drafts)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_same_seed_same_text_with_and_without_speculation(fake, temperature):
    model = fake.FakeModel()
    texts = set()
    for draft in (None, DraftParams(n_max=1), DraftParams(n_max=6, p_min=0.3), ScriptedDrafter([10] * 400, n_max=3)):
        with Speculator(model, draft=draft) as spec:
            for _ in range(2):
                texts.add(
                    spec.generate([10, 11], max_tokens=150, temperature=temperature, seed=5, accept="match").tokens
                )
            assert (
                spec.generate([10, 11], max_tokens=150, temperature=temperature, seed=6, accept="match").tokens
                not in texts
            )
            unseeded = [spec.generate([10], max_tokens=80, temperature=3.0).tokens for _ in range(2)]
            assert unseeded[0] != unseeded[1]
    assert len(texts) == 1


def test_stop_strings_do_not_depend_on_the_drafted_blocks(fake):
    model = fake.FakeModel()
    tokens = fake.plain(model, [10, 11], 120)
    with Speculator(model, draft=None) as spec:
        text = spec.generate([10, 11], max_tokens=120).text
    for start in (3, 17, 40):
        for length in (1, 2, 5, 9):
            stop = text[start : start + length]
            cut = text.find(stop)
            seen = set()
            for draft in (None, DraftParams(n_max=2), ScriptedDrafter(tokens, n_max=8)):
                with Speculator(model, draft=draft) as spec:
                    result = spec.generate([10, 11], max_tokens=120, stop=stop)
                    assert result.text == text[:cut]
                    assert result.finish_reason == "stop"
                    chunks = list(spec.stream([10, 11], max_tokens=120, stop=["never there", stop]))
                    assert "".join(c.text for c in chunks) == text[:cut]
                    assert [c.finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
                    seen.add(result.tokens)
            assert len(seen) == 1
            assert list(seen.pop()) == tokens[: result.stats.completion_tokens]


def test_streamed_text_and_tokens_add_up(fake):
    model = fake.FakeModel()
    with Speculator(model) as spec:
        whole = spec.generate([10, 12], max_tokens=77)
        chunks = list(spec.stream([10, 12], max_tokens=77))
    assert "".join(c.text for c in chunks) == whole.text
    assert tuple(t for c in chunks for t in c.tokens) == whole.tokens
    assert chunks[-1].stats.completion_tokens == 77
    assert [c.stats.n_rounds for c in chunks] == list(range(len(chunks)))
    assert chunks[-1].stats.draft_n == whole.stats.draft_n


def test_text_that_could_begin_a_stop_string_is_shown_at_the_end(fake):
    model = fake.FakeModel()
    for draft in (None, DraftParams(n_max=5)):
        with Speculator(model, draft=draft) as spec:
            whole = spec.generate([10, 11], max_tokens=40).text
            result = spec.generate([10, 11], max_tokens=40, stop=whole[-3:] + "never there")
        assert result.text == whole
        assert result.finish_reason == "length"


def test_a_chain_feeds_the_head_its_own_hidden_rows(fake):
    with Speculator(fake.FakeModel(), draft=DraftParams(n_max=3)) as spec:
        decode, outputs = spec.ctx_dft.decode, []

        def watched(tokens, *, hidden, **kwargs):
            if len(outputs) % 3:  # the second and third step of a chain
                np.testing.assert_array_equal(hidden, outputs[-1])
            n_outputs = decode(tokens, hidden=hidden, **kwargs)
            if n_outputs:
                outputs.append(spec.ctx_dft.hidden()[-1:])
            return n_outputs

        spec.ctx_dft.decode = watched
        stream = spec.stream([10], max_tokens=40)
        for _ in range(6):  # rounds with full drafts
            chunk = next(stream)
        assert chunk.stats.draft_n == 15 == len(outputs)


def test_split_characters_arrive_whole(fake):
    # é, a comma, a snowman, a minus, a byte that is never UTF-8, a full stop, two thirds of a snowman
    words = [3, 4, 20, 5, 6, 7, 21, 8, 22, 5, 6]
    for draft in (None, ScriptedDrafter(words, n_max=2), ScriptedDrafter(words, n_max=8)):
        with Speculator(fake.FakeModel(), draft=draft) as spec:
            play_script(spec.ctx_tgt, words)
            chunks = list(spec.stream([10], max_tokens=len(words)))
        assert "".join(c.text for c in chunks) == "é,☃-\ufffd."
        assert [t for c in chunks for t in c.tokens] == words


def play_script(ctx, words):
    """Make a fake target want these tokens, whatever it computes."""
    decode = ctx.decode

    def decode_then_want(tokens, **kwargs):
        n_outputs = decode(tokens, **kwargs)
        for i in range(n_outputs):
            ctx._logits[i, words[min(len(ctx.rows) - n_outputs + i, len(words) - 1)]] = 1e3
        return n_outputs

    ctx.decode = decode_then_want


def test_what_does_not_fit_is_refused_before_anything_runs(fake):
    with Speculator(fake.FakeModel(), n_ctx=100) as spec:
        with pytest.raises(ContextOverflowError, match="prompt has 100 tokens, but n_ctx=100") as e:
            spec.generate([10] * 100)
        assert (e.value.requested, e.value.available) == (100, 99)
        with pytest.raises(ContextOverflowError, match="asks for 51 tokens, but after a prompt of 50 only 50") as e:
            spec.generate([10] * 50, max_tokens=51)
        assert (e.value.requested, e.value.available) == (51, 50)
        with pytest.raises(ContextOverflowError):
            spec.stream([10] * 100)  # at the call, not at the first chunk
        assert spec.ctx_tgt.log == []
        assert len(spec.generate([10] * 99).tokens) == 1
        assert len(spec.generate([10] * 50, max_tokens=50).tokens) == 50


def test_a_model_without_a_head_needs_draft_none(fake):
    model = fake.FakeModel("no-head.gguf")
    for arguments in ({}, {"draft": DraftParams()}):
        with pytest.raises(NoNextnLayerError, match=r"nextn inspect no-head\.gguf lists .* draft=None decodes plainly"):
            Speculator(model, **arguments)
    with Speculator(model, draft=None) as spec:
        assert len(spec.generate([10], max_tokens=3).tokens) == 3
    with Speculator(model, draft=ScriptedDrafter([1, 2])) as spec:
        assert len(spec.generate([10], max_tokens=3).tokens) == 3


def test_a_second_file_can_hold_the_head(fake):
    model = fake.FakeModel("no-head.gguf")
    with Speculator(model, draft_model="head.gguf") as spec:
        result = spec.generate([10], max_tokens=50)
        head = spec.ctx_dft.model
        assert head.path == "head.gguf"
    assert head.closed  # it was opened here
    assert not model.closed
    assert list(result.tokens) == fake.plain(model, [10], 50)
    assert result.stats.draft_n_accepted > 0
    with pytest.raises(ValueError, match="draft_model holds a draft head, which draft=None does not use"):
        Speculator(model, draft=None, draft_model="head.gguf")
    with pytest.raises(NoNextnLayerError, match=r"no-head-2\.gguf has no NextN layer"):
        Speculator(model, draft_model="no-head-2.gguf")


def test_what_was_opened_is_closed_when_a_later_step_fails(fake, monkeypatch):
    opened = []
    init = fake.FakeModel.__init__
    monkeypatch.setattr(fake.FakeModel, "__init__", lambda self, *a, **k: (opened.append(self), init(self, *a, **k))[0])
    with pytest.raises(NoNextnLayerError):
        Speculator("no-head.gguf")
    assert [model.closed for model in opened] == [True]
    with pytest.raises(FileNotFoundError):
        Speculator("good.gguf", draft_model="missing.gguf")
    assert opened[1].closed


def test_closed(fake):
    model = fake.FakeModel()
    spec = Speculator(model)
    stream = spec.stream([10], max_tokens=50)
    next(stream)
    spec.close()
    spec.close()
    assert spec.closed
    assert spec.ctx_tgt.closed
    assert not model.closed
    with pytest.raises(ClosedError):
        next(stream)
    for call in (spec.generate, spec.stream):
        with pytest.raises(ClosedError, match="this Speculator was closed"):
            call([10])
    for chat in (spec.chat, spec.stream_chat):
        with pytest.raises(ClosedError):
            chat([{"role": "user", "content": "hi"}])
    own = Speculator("path.gguf")
    with own:
        inner = own.model
    assert inner.closed


def test_an_unfinished_stream_is_an_error_not_a_deadlock(fake):
    with Speculator(fake.FakeModel()) as spec:
        expected = spec.generate([10], max_tokens=20).tokens
        stream = spec.stream([11], max_tokens=50)
        next(stream)
        with pytest.raises(NextnError, match="unfinished in this thread"):
            spec.generate([10], max_tokens=20)
        with pytest.raises(NextnError, match="unfinished in this thread"):
            next(spec.stream([10], max_tokens=20))
        next(stream)
        stream.close()
        assert spec.generate([10], max_tokens=20).tokens == expected
        for _ in spec.stream([11], max_tokens=50):
            break  # an abandoned stream closes itself
        assert spec.generate([10], max_tokens=20).tokens == expected


def test_threads_take_turns(fake):
    model = fake.FakeModel()
    results = {}
    with Speculator(model) as spec:

        def work(i):
            if i % 2:
                results[i] = [t for c in spec.stream([10 + i], max_tokens=60) for t in c.tokens]
            else:
                results[i] = list(spec.generate([10 + i], max_tokens=60).tokens)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert results == {i: fake.plain(model, [10 + i], 60) for i in range(8)}


def test_two_speculators_over_one_model_do_not_mix(fake):
    model = fake.FakeModel()
    with Speculator(model) as a, Speculator(model) as b:
        streams = a.stream([10], max_tokens=40), b.stream([20], max_tokens=40)
        tokens = [[], []]
        for chunk_a, chunk_b in zip(*streams, strict=False):
            tokens[0] += chunk_a.tokens
            tokens[1] += chunk_b.tokens
    for first, got in zip((10, 20), tokens, strict=True):
        assert got == fake.plain(model, [first], 40)[: len(got)]
        assert len(got) > 20
