"""Target and draft context as a pair: both trimmed or neither, and either may go first."""

from __future__ import annotations

import gc

import nextn
import numpy as np
import pytest


@pytest.fixture
def pair(demo, make_context):
    target = make_context(demo, n_rs_seq=4)
    draft = make_context(demo, nextn_draft=True)
    target.pair(draft)
    return target, draft


def fill(target, draft, tokens):
    """Both hold the same tokens."""
    target.decode(tokens)
    hidden = np.vstack([np.zeros((1, target.model.n_embd), np.float32), target.hidden()[:-1]])
    draft.decode(tokens, hidden=hidden, outputs="last")


def ends(*contexts):
    return [context.seq_pos_max() for context in contexts]


def test_both_are_trimmed(pair, tokens):
    target, draft = pair
    fill(target, draft, tokens)
    assert target.nextn_seq_rm(0, len(tokens) - 3, -1)
    assert ends(target, draft) == [len(tokens) - 4] * 2


def test_or_neither(pair, tokens):
    target, draft = pair
    fill(target, draft, tokens)
    assert not target.nextn_seq_rm(0, len(tokens) - 6, -1)
    assert ends(target, draft) == [len(tokens) - 1] * 2


def test_the_whole_sequence(pair, tokens):
    target, draft = pair
    fill(target, draft, tokens)
    assert target.nextn_seq_rm(0, -1, -1)
    assert ends(target, draft) == [-1, -1]


def test_unpaired_contexts_are_on_their_own(pair, tokens):
    target, draft = pair
    fill(target, draft, tokens)
    target.pair(None)
    target.pair(None)
    assert target.nextn_seq_rm(0, len(tokens) - 3, -1)
    assert ends(target, draft) == [len(tokens) - 4, len(tokens) - 1]


def test_pairing_again_leaves_the_first(pair, demo, make_context, tokens):
    target, first = pair
    second = make_context(demo, nextn_draft=True)
    target.pair(second)
    fill(target, first, tokens)
    target.nextn_seq_rm(0, len(tokens) - 1, -1)
    assert ends(target, first) == [len(tokens) - 2, len(tokens) - 1]
    make_context(demo).pair(first)  # it is free
    target.pair(second)  # twice is once


def test_what_does_not_fit(pair, demo, tiny_model, make_context):
    target, draft = pair
    other = make_context(demo)
    with pytest.raises(ValueError, match=r"is paired with another target; end that pairing first: target.pair\(None\)"):
        other.pair(draft)
    with pytest.raises(ValueError, match="draft_context is no draft context; make it with nextn_draft=True"):
        target.pair(other)
    with pytest.raises(ValueError, match="this context is a draft context"):
        draft.pair(other)
    with pytest.raises(ValueError, match="draft_context is this context itself"):
        target.pair(target)
    with pytest.raises(TypeError, match=r"draft_context must be a nextn\.Context or None, not str"):
        target.pair("draft")
    with nextn.Model(tiny_model("dense")) as tiny:
        small = make_context(tiny, nextn_draft=True)
        with pytest.raises(ValueError, match=r"rows are 64 wide and its vocabulary has 512 tokens, .* 256 and 3072"):
            target.pair(small)
    closed = make_context(demo, nextn_draft=True)
    closed.close()
    with pytest.raises(nextn.ClosedError):
        target.pair(closed)
    assert target.nextn_seq_rm(0, 0, -1)


@pytest.mark.parametrize("way", ["close", "del"])
@pytest.mark.parametrize("first", ["target", "draft"])
def test_either_may_be_freed_first(demo, tokens, first, way):
    pair = {
        "target": nextn.Context(demo, n_ctx=512, n_rs_seq=4),
        "draft": nextn.Context(demo, n_ctx=512, nextn_draft=True),
    }
    pair["target"].pair(pair["draft"])
    fill(pair["target"], pair["draft"], tokens)
    gone = pair.pop(first)
    if way == "close":
        gone.close()
    del gone
    gc.collect()
    [(kind, left)] = pair.items()
    assert left.nextn_seq_rm(0, len(tokens) - 2, -1)
    assert left.seq_pos_max() == len(tokens) - 3
    if kind == "target":
        assert left.decode([5, 6]) == 2
        again = nextn.Context(demo, n_ctx=512, nextn_draft=True)
        left.pair(again)
    left.close()


def test_a_view_of_a_closed_draft_context(pair, tokens):
    """The engine's context lives on under the view; its target trims both and nothing is touched that is gone."""
    target, draft = pair
    fill(target, draft, tokens)
    view = draft.logits_view()
    kept = view.copy()
    draft.close()
    assert target.nextn_seq_rm(0, len(tokens) - 2, -1)
    assert np.array_equal(view, kept)
    del view
    target.decode([1, 2])
    assert target.nextn_seq_rm(0, target.seq_pos_max(), -1)


@pytest.mark.parametrize("part", ["head", "legacy-head"])
@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_head_only_file_as_second_model(tiny_model, make_context, kind, part):
    """It computes what the head inside the full file computes; the full file's own head need not be loaded."""
    rng = np.random.default_rng(0)
    with (
        nextn.Model(tiny_model(kind)) as full,
        nextn.Model(tiny_model(kind), load_nextn=False) as trunk,
        nextn.Model(tiny_model(kind, part=part)) as head,
    ):
        tokens = rng.integers(0, full.n_vocab, 20).tolist()
        logits = []
        for target_model, draft_model in ((full, full), (trunk, head)):
            target = make_context(target_model, n_rs_seq=4)
            draft = make_context(draft_model, nextn_draft=True)
            target.pair(draft)
            fill(target, draft, tokens)
            logits.append(draft.logits())
            assert target.nextn_seq_rm(0, len(tokens) - 2, -1)
            assert ends(target, draft) == [len(tokens) - 3] * 2
        assert np.array_equal(*logits)


def test_a_failed_decode_clears_both(run_python):
    """Cancelled in the middle of a long batch, from another thread."""
    run_python("""
        model = nextn.Model(DEMO)
        target = nextn.Context(model, n_ctx=4096, n_batch=4096, n_ubatch=8, n_rs_seq=2, n_threads=1)
        draft = nextn.Context(model, n_ctx=4096, nextn_draft=True)
        target.pair(draft)
        target.decode([1, 2, 3])
        draft.decode([1, 2, 3], hidden=target.hidden())
        done = threading.Event()
        def cancel():
            while not done.wait(0.01):
                target.abort()
        thread = threading.Thread(target=cancel)
        thread.start()
        try:
            target.decode([5] * 4000, outputs="none")
        except nextn.CancelledError as e:
            assert str(e) == "decoding was cancelled; the state of sequence 0 was unknown, so the sequence was removed"
        else:
            raise AssertionError("not cancelled")
        done.set()
        thread.join()
        assert (target.seq_pos_max(), draft.seq_pos_max(), target.max_rollback()) == (-1, -1, 0)
        try:
            target.hidden()
        except nextn.NextnError as e:
            assert "decode tokens first" in str(e)
        target.abort()  # has no effect on the next one
        target.decode([1, 2, 3])
        wanted = nextn.Context(model, n_ctx=512)
        wanted.decode([1, 2, 3])
        assert np.array_equal(target.logits(), wanted.logits())
    """)
