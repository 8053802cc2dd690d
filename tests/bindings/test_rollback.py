"""Taking tokens back: the engine's plain call gets recurrent layers wrong in silence, nextn_seq_rm() refuses."""

from __future__ import annotations

import nextn
import numpy as np
import pytest

EVERY = 2**31 - 1


@pytest.fixture
def target(demo, make_context):
    return make_context(demo, n_rs_seq=4, n_seq_max=2)


def fresh_logits(make_context, model, tokens):
    """Logits of the last token when the sequence is decoded from the start, one token at a time."""
    context = make_context(model)
    for token in tokens:
        context.decode([token])
    return context.logits()[-1]


class TestHazard:
    """After single-token decodes only the newest token can be restored."""

    STEPS = (11, 12, 13, 14)

    def decode_steps(self, context, tokens):
        context.decode(tokens, outputs="none")
        for token in self.STEPS:
            context.decode([token])

    def test_the_plain_call_says_yes_and_is_wrong(self, demo, make_context, target, tokens):
        self.decode_steps(target, tokens)
        assert target.seq_rm(0, len(tokens) + 1, -1) is True
        assert target.seq_pos_max() == len(tokens)
        target.decode([21])
        wanted = fresh_logits(make_context, demo, [*tokens, self.STEPS[0], 21])
        assert np.abs(target.logits()[-1] - wanted).max() > 0.1

    def test_ours_refuses_and_changes_nothing(self, demo, make_context, target, tokens):
        self.decode_steps(target, tokens)
        assert target.max_rollback() == 0
        assert target.nextn_seq_rm(0, len(tokens) + 1, -1) is False
        assert target.seq_pos_max() == len(tokens) + 3
        target.decode([21])
        wanted = fresh_logits(make_context, demo, [*tokens, *self.STEPS, 21])
        np.testing.assert_array_equal(target.logits()[-1], wanted)

    def test_ours_is_right_after_a_batch(self, demo, make_context, target, tokens):
        target.decode(tokens, outputs="none")
        target.decode(self.STEPS)
        assert target.max_rollback() == 3
        assert target.nextn_seq_rm(0, len(tokens) + 1, -1) is True
        target.decode([21])
        wanted = fresh_logits(make_context, demo, [*tokens, self.STEPS[0], 21])
        np.testing.assert_array_equal(target.logits()[-1], wanted)


def test_max_rollback(target, tokens):
    assert target.max_rollback() == 0
    target.decode(tokens)
    assert target.max_rollback() == 4  # n_rs_seq
    target.decode([1, 2, 3])
    assert target.max_rollback() == 2  # the batch, less its first token
    assert target.max_rollback(1) == 0
    assert target.nextn_seq_rm(0, target.seq_pos_max(), -1)
    assert target.max_rollback() == 0  # used once
    assert not target.nextn_seq_rm(0, target.seq_pos_max(), -1)
    target.decode([1])
    assert target.max_rollback() == 0
    target.decode([1, 2])
    target.decode([1, 2], seq_id=1)
    assert target.max_rollback(0) == 0  # another sequence's batch
    assert target.max_rollback(1) == 1


def test_without_snapshots_nothing_can_be_taken_back(demo, make_context, tokens):
    context = make_context(demo, n_rs_seq=0)
    context.decode(tokens)
    assert context.max_rollback() == 0
    assert not context.nextn_seq_rm(0, context.seq_pos_max(), -1)
    assert context.nextn_seq_rm(0, 0, -1)  # a whole sequence always
    assert context.seq_pos_max() == -1


def test_a_draft_context_takes_everything_back(demo, make_context, tokens):
    draft = make_context(demo, nextn_draft=True)
    hidden = np.zeros((1, demo.n_embd), np.float32)
    for token in tokens:
        draft.decode([token], hidden=hidden)
    assert draft.max_rollback() == EVERY
    assert draft.nextn_seq_rm(0, 2, -1)
    assert draft.seq_pos_max() == 1


@pytest.mark.parametrize(("p0", "p1"), [(0, 3), (2, 4), (-1, 2)])
def test_only_suffixes(target, tokens, p0, p1):
    target.decode(tokens)
    before = target.seq_pos_max()
    assert not target.nextn_seq_rm(0, p0, p1)
    assert target.seq_pos_max() == before
    assert target.max_rollback() == 4


@pytest.mark.parametrize(("p0", "p1"), [(500, -1), (5, 5), (7, 3)])
def test_empty_ranges_change_nothing(target, tokens, p0, p1):
    target.decode(tokens)
    assert target.nextn_seq_rm(0, p0, p1)
    assert target.seq_pos_max() == len(tokens) - 1
    assert target.max_rollback() == 4


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((2, 0, -1), ValueError, "seq_id must be an integer from 0 to 1, not 2"),
        ((-1, 0, -1), ValueError, "seq_id must be an integer from 0 to 1, not -1"),
        ((0, "0", -1), TypeError, "p0 must be an integer, not str"),
        ((0, 0, None), TypeError, "p1 must be an integer, not NoneType"),
        ((0, 2**64, -1), ValueError, "p0 is 18446744073709551616, out of range"),
    ],
)
@pytest.mark.parametrize("method", ["seq_rm", "nextn_seq_rm"])
def test_wrong_arguments(target, method, arguments, error, text):
    with pytest.raises(error, match=text):
        getattr(target, method)(*arguments)


def test_positions_beyond_32_bits_mean_the_end(target, tokens):
    target.decode(tokens)
    assert target.nextn_seq_rm(0, -(2**62), 2**62)
    assert target.seq_pos_max() == -1


@pytest.mark.parametrize("method", ["seq_pos_max", "seq_pos_min", "max_rollback"])
def test_wrong_sequences(target, method):
    with pytest.raises(ValueError, match="seq_id must be an integer from 0 to 1, not 2"):
        getattr(target, method)(2)


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_random_rollbacks_equal_a_fresh_run(tiny_model, make_context, kind):
    rng = np.random.default_rng(1)
    with nextn.Model(tiny_model(kind, type="q8_0")) as model:
        context = make_context(model, n_rs_seq=7, n_threads=1)
        kept = rng.integers(0, model.n_vocab, 9).tolist()
        context.decode(kept, outputs="none")
        for _ in range(20):
            batch = rng.integers(0, model.n_vocab, rng.integers(1, 9)).tolist()
            context.decode(batch)
            n_back = int(rng.integers(0, len(batch)))
            assert context.max_rollback() == len(batch) - 1
            assert context.nextn_seq_rm(0, context.seq_pos_max() + 1 - n_back, -1)
            kept += batch[: len(batch) - n_back]
            assert context.seq_pos_max() == len(kept) - 1
        context.decode([3])
        wanted = fresh_logits(make_context, model, [*kept, 3])
        np.testing.assert_array_equal(context.logits()[-1], wanted)
