"""The draft engine's bindings: what is refused, and that a drafter and its contexts may go in any order."""

from __future__ import annotations

import gc

import nextn
import numpy as np
import pytest
from nextn import _core
from sampling_definition import chi_square_p

OPTIONS = {"n_max": 4, "n_min": 0, "p_min": 0.0, "adaptive": False, "n_vocab": -1, "vocab_ids": []}


@pytest.fixture
def pair(demo, make_context):
    target = make_context(demo, n_rs_seq=4)
    draft = make_context(demo, nextn_draft=True)
    target.pair(draft)
    return target, draft


def drafter_of(target, draft, **options):
    return _core.Drafter(target._core, draft._core, **{**OPTIONS, **options})


def test_a_round(pair, tokens):
    target, draft = pair
    drafter = drafter_of(target, draft)
    target.decode(tokens)
    drafter.begin()
    drafter.feed(tokens)
    best = int(target.logits()[-1].argmax())
    drafted = drafter.draft(best, 4)
    assert 1 <= len(drafted) <= 4
    assert target.decode([best, *drafted]) == 1 + len(drafted)
    drafter.accept([best], len(drafted), 100.0)
    assert target.nextn_seq_rm(0, len(tokens) + 1, -1)
    assert drafter.stats()["n_prefix"] == 3072


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"n_max": 0}, ValueError, "n_max must be an integer from 1 to 16, not 0"),
        ({"n_max": 17}, ValueError, "n_max must be an integer from 1 to 16, not 17"),
        ({"n_min": 5}, ValueError, "n_min must be an integer from 0 to 4, not 5"),
        ({"p_min": 1.5}, ValueError, r"p_min must be a number from 0 to 1, not 1\.5"),
        ({"p_min": float("nan")}, ValueError, "p_min must be a number from 0 to 1, not nan"),
        ({"n_vocab": 3073}, ValueError, "n_vocab must be an integer from -1 to 3072, not 3073"),
        ({"vocab_ids": [5, 3072]}, ValueError, "vocab_ids must be an integer from 0 to 3071, not 3072"),
    ],
)
def test_wrong_options(pair, options, error, text):
    with pytest.raises(error, match=text):
        drafter_of(*pair, **options)


def test_contexts_that_do_not_fit(pair, demo, make_context):
    target, draft = pair
    with pytest.raises(ValueError, match="the two contexts are not paired; pair them first"):
        drafter_of(make_context(demo), draft)
    wide = make_context(demo, n_seq_max=2)
    target.pair(None)
    wide.pair(draft)
    with pytest.raises(ValueError, match="the draft context has n_seq_max=1, the target 2"):
        drafter_of(wide, draft)


def test_one_drafter_at_a_time(pair):
    first = drafter_of(*pair)
    with pytest.raises(ValueError, match="has a drafter already; close that first"):
        drafter_of(*pair)
    first.close()
    drafter_of(*pair)


def test_the_draft_context_is_the_drafters(pair, demo):
    target, draft = pair
    drafter = drafter_of(target, draft)
    hidden = np.zeros((1, demo.n_embd), np.float32)
    with pytest.raises(nextn.NextnError, match="a drafter computes on this draft context; close the drafter first"):
        draft.decode([1], hidden=hidden)
    drafter.close()
    assert draft.decode([1], hidden=hidden) == 1
    assert draft.logits().shape == (1, demo.n_vocab)


def test_rows_from_before_a_drafter_are_gone(pair, demo):
    target, draft = pair
    draft.decode([1], hidden=np.zeros((1, demo.n_embd), np.float32))
    view = draft.logits_view()
    with pytest.raises(nextn.NextnError, match="a view of this context's rows is alive"):
        drafter_of(target, draft)
    del view
    drafter_of(target, draft)
    with pytest.raises(nextn.NextnError, match="there are no logits"):
        draft.logits()


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda d: d.feed([1, 2, 3, 4]), ValueError, "tokens are 4, but the target's last decode left 3 hidden rows"),
        (lambda d: d.feed([3072]), ValueError, r"tokens\[0\] must be an integer from 0 to 3071, not 3072"),
        (lambda d: d.feed([1], seq_id=1), ValueError, "seq_id must be an integer from 0 to 0, not 1"),
        (lambda d: d.draft(-1, 4), ValueError, "id_last must be an integer from 0 to 3071, not -1"),
        (lambda d: d.draft(1, 4, seq_id=-1), ValueError, "seq_id must be an integer from 0 to 0, not -1"),
        (lambda d: d.accept([1], 17, 0.0), ValueError, "n_sent must be an integer from 0 to 16, not 17"),
        (lambda d: d.accept([1, 2], 0, 0.0), ValueError, "the number of tokens must be an integer from 1 to 1, not 2"),
        (lambda d: d.accept([], 2, 0.0), ValueError, "the number of tokens must be an integer from 1 to 3, not 0"),
        (lambda d: d.accept([1, 2, 3, 4], 4, 0.0), ValueError, "tokens are 4, but the target's last decode left 3"),
        (lambda d: d.accept([3072], 4, 0.0), ValueError, r"tokens\[0\] must be an integer from 0 to 3071, not 3072"),
        (lambda d: d.begin(7), ValueError, "seq_id must be an integer from 0 to 0, not 7"),
    ],
)
def test_wrong_arguments(pair, call, error, text):
    target, draft = pair
    drafter = drafter_of(target, draft)
    target.decode([1, 2, 3])
    with pytest.raises(error, match=text):
        call(drafter)


@pytest.mark.parametrize("n_room", [0, -5])
def test_no_room_is_no_draft(pair, n_room):
    target, draft = pair
    drafter = drafter_of(target, draft)
    target.decode([1, 2, 3])
    drafter.feed([1, 2, 3])
    assert drafter.draft(4, n_room) == []


@pytest.mark.parametrize("closed", ["target", "draft", "drafter"])
def test_closed(pair, closed):
    target, draft = pair
    drafter = drafter_of(target, draft)
    target.decode([1, 2])
    {"target": target, "draft": draft, "drafter": drafter}[closed].close()
    for call in (drafter.begin, lambda: drafter.feed([1]), lambda: drafter.draft(1, 4), drafter.stats):
        with pytest.raises(nextn.ClosedError, match="is closed"):
            call()
    drafter.close()


@pytest.mark.parametrize("order", ["012", "021", "102", "120", "201", "210"])
def test_any_order_of_freeing(demo, tokens, order):
    target = nextn.Context(demo, n_ctx=512, n_rs_seq=4)
    draft = nextn.Context(demo, n_ctx=512, nextn_draft=True)
    target.pair(draft)
    drafter = drafter_of(target, draft)
    target.decode(tokens)
    drafter.feed(tokens)
    drafter.draft(5, 4)
    objects = {"0": target, "1": draft, "2": drafter}
    del target, draft, drafter
    for key in order:
        del objects[key]
        gc.collect()


SHARPNESS, OPEN_BELOW, SURE_FROM = 1.5, 0.3, 0.9  # the engine's constants
DRAW = {"temperature": 0.7, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 5, "steady": False}


def head_row(pair, tokens, id_last):
    """The head's logits after the tokens and id_last, by plain decodes of the draft context [n_vocab]."""
    target, draft = pair
    target.decode(tokens)
    hidden = np.vstack((np.zeros((1, target.model.n_embd), np.float32), target.hidden()))
    draft.decode([*tokens, id_last], hidden=hidden)
    row = draft.logits()[-1].astype(float)
    for context in pair:
        context.seq_rm(0, -1, -1)
    return row


def ready(pair, tokens, n_vocab=-1, **draw):
    """A drafter that has read the tokens and draws."""
    drafter = drafter_of(*pair, n_vocab=n_vocab)
    drafter.draw(**{**DRAW, **draw})
    drafter.begin()
    pair[0].decode(tokens)
    drafter.feed(tokens)
    return drafter


@pytest.mark.parametrize("n_vocab", [-1, 512])
@pytest.mark.parametrize(
    "draw",
    [
        {},
        {"temperature": 2.0},
        {"temperature": 0.05},
        {"top_k": 5},
        {"top_p": 0.6, "temperature": 1.5},
        {"min_p": 0.05},
    ],
    ids=str,
)
def test_q_is_the_heads_distribution(pair, tokens, n_vocab, draw):
    id_last = 300  # an unlikely one, so that the head is unsure
    row = head_row(pair, tokens, id_last)
    drafter = ready(pair, tokens, n_vocab, **draw)
    drafted = drafter.draft(id_last, 2)
    (ids, q), *_ = drafter.q()
    assert len(drafter.q()) == len(drafted)
    assert drafted[0] in ids
    assert np.all(np.diff(ids) > 0)
    assert q.sum() == pytest.approx(1, abs=1e-5)

    draw = {**DRAW, **draw}
    scored = set(range(row.size if n_vocab < 0 else n_vocab))
    if n_vocab > 0:  # some more are scored: what the shortlist added
        assert set(tokens) <= scored | {int(i) for i in np.argsort(-row)} and n_vocab < row.size
        scored |= {int(i) for i in ids}
    best = sorted(scored, key=lambda i: -row[i])
    weights = np.exp(row[best] - row[best[0]])
    n_kept = min(draw["top_k"] or 256, 256, int((weights >= draw["min_p"]).sum()))
    if draw["top_p"] < 1:
        n_kept = min(n_kept, int(np.searchsorted(np.cumsum(weights) / weights.sum(), draw["top_p"])) + 1)
    kept = np.sort([i for i in best[:n_kept] if row[i] - row[best[0]] >= -12 * draw["temperature"]])
    head = np.exp((row[kept] - row[best[0]]) / draw["temperature"])
    is_open, is_sure = head.sum() * OPEN_BELOW > 1, head.sum() * SURE_FROM <= 1
    assert ids.tolist() == ([best[0]] if is_sure else kept.tolist())
    expected = head**SHARPNESS if is_open else (ids == best[0]).astype(float)
    np.testing.assert_allclose(q, expected / expected.sum(), rtol=2e-2, atol=1e-6)


def test_drafts_are_drawn_from_q(pair, tokens):
    drafter = ready(pair, tokens, temperature=4.0, top_k=8)
    n = 4000
    drawn = [drafter.draft(300, 1)[0] for _ in range(n)]  # again and again from the same place
    (ids, q), *_ = drafter.q()
    counts = np.array([drawn.count(i) for i in ids])
    assert counts.sum() == n
    assert np.all(q > 0)
    assert chi_square_p(counts, q.astype(float) / q.sum() * n) > 1e-4


def judged(drafter, n, targets):
    """What the next draft's first token is drawn from, after n that were judged by what targets() made of its q."""
    for _ in range(n):
        drafter.draft(300, 1)
        drafter.saw_p([targets(*drafter.q()[0])])
    drafter.draft(300, 1)
    return drafter.q()[0][1]


def decided(ids, q):
    """The target is sure of the head's best token."""
    return (np.arange(len(ids)) == q.argmax()).astype(float)


def undecided(ids, q):
    """The target would as well take any other of them."""
    return np.full(len(ids), 1 / len(ids))


# At first, what is drawn from the one is the best token, and from the other any.
WIDTHS = pytest.mark.parametrize("draw", [{"top_k": 2}, {"top_k": 8, "temperature": 4.0}], ids=str)


@WIDTHS
def test_whether_tokens_are_drawn_is_learnt(pair, tokens, draw):
    drafter = ready(pair, tokens, **draw)
    assert (judged(drafter, 0, decided).max() == 1) == (draw["top_k"] == 2)
    assert judged(drafter, 150, undecided).max() < 1
    assert judged(drafter, 300, decided).max() == 1
    drafter.begin()  # it stays
    drafter.feed(tokens)
    assert judged(drafter, 0, decided).max() == 1
    assert judged(drafter, 300, undecided).max() < 1


@WIDTHS
def test_a_steady_request_forgets_what_was_learnt(pair, tokens, draw):
    drafter = ready(pair, tokens, **draw, steady=True)
    before = judged(drafter, 0, decided)
    after = judged(drafter, 300, decided if before.max() < 1 else undecided)
    assert (after.max() == 1) != (before.max() == 1)
    drafter.begin()
    drafter.feed(tokens)
    np.testing.assert_array_equal(judged(drafter, 0, decided), before)


def test_p_belongs_to_the_ids_of_q(pair, tokens):
    drafter = ready(pair, tokens, temperature=2.0)
    drafter.draft(300, 1)
    n = len(drafter.q()[0][0])
    with pytest.raises(ValueError, match=rf"p\[0\] has {n + 1} entries; q\(\) gave {n} ids"):
        drafter.saw_p([[0.0] * (n + 1)])
    with pytest.raises(ValueError, match=r"p\[1\] has 1 entries; q\(\) gave 0 ids"):
        drafter.saw_p([[0.0] * n, [1.0]])
    drafter.saw_p([[float("nan")] * n])  # tells nothing
    drafter.saw_p([])


def test_the_same_seed_gives_the_same_drafts(pair, tokens):
    def drafts(seed):
        drafter = ready(pair, tokens, temperature=2.0, seed=seed)
        out = [tuple(drafter.draft(300, 4)) for _ in range(20)]
        drafter.close()
        for context in pair:
            context.seq_rm(0, -1, -1)
        return out

    assert drafts(5) == drafts(5) != drafts(6)


def test_best_tokens_again(pair, tokens):
    drafter = ready(pair, tokens)
    assert drafter.draft(300, 2) and drafter.q()
    drafter.draw(**{**DRAW, "temperature": 0.0})
    drafter.begin()
    drafter.feed(tokens)
    assert drafter.draft(300, 2) and not drafter.q()


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": value} for value in (-1.0, float("nan"), float("inf"))]
    + [{name: value} for name in ("top_p", "min_p") for value in (-0.1, 1.1, float("nan"))],
    ids=str,
)
def test_wrong_draws(pair, wrong):
    with pytest.raises(ValueError, match="temperature=.* must be a finite number >= 0"):
        drafter_of(*pair).draw(**{**DRAW, **wrong})
