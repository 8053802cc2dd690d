"""Rows of a decode: copies that stay, views that keep the context alive and the next decode away."""

from __future__ import annotations

import gc
import weakref

import nextn
import numpy as np
import pytest

KINDS = ["logits", "hidden", "embeddings_pre_norm"]


@pytest.fixture
def context(demo, make_context):
    context = make_context(demo)
    context.set_embeddings_pre_norm(True)
    return context


def copy_of(context, kind):
    return getattr(context, kind)()


def view_of(context, kind):
    return getattr(context, f"{kind}_view")()


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_outlives_the_next_decode(context, tokens, kind):
    context.decode(tokens)
    rows = copy_of(context, kind)
    assert rows.dtype == np.float32
    assert rows.flags.writeable
    kept = rows.copy()
    context.decode(tokens[::-1])
    assert np.array_equal(rows, kept)
    assert not np.array_equal(copy_of(context, kind), kept)
    context.close()
    assert np.array_equal(rows, kept)


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_shows_the_same_rows(context, tokens, kind):
    context.decode(tokens)
    view = view_of(context, kind)
    assert np.array_equal(view, copy_of(context, kind))
    assert view.dtype == np.float32
    assert view.base is not None
    assert not view.flags.owndata
    assert np.shares_memory(view, view_of(context, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_is_read_only(context, tokens, kind):
    context.decode(tokens)
    view = view_of(context, kind)
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_refuses_the_next_decode(context, tokens, kind):
    context.decode(tokens)
    view = view_of(context, kind)
    row = view[-1]
    del view  # a part of a view is one
    kept = row.copy()
    with pytest.raises(nextn.NextnError, match=r"a view of this context's rows is alive.*take a copy with logits\(\)"):
        context.decode([1])
    assert np.array_equal(row, kept)
    assert context.seq_pos_max() == len(tokens) - 1
    del row
    context.decode([1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_view_outlives_close(demo, tokens, kind):
    context = nextn.Context(demo, n_ctx=512)
    context.set_embeddings_pre_norm(True)
    context.decode(tokens)
    view = view_of(context, kind)
    kept = view.copy()
    context.close()
    others = [nextn.Context(demo, n_ctx=512) for _ in range(3)]  # would take the freed memory
    for other in others:
        other.decode(tokens[::-1])
    assert np.array_equal(view, kept)


def test_a_view_outlives_context_and_model(demo_path, tokens):
    with nextn.Model(demo_path) as model:
        context = nextn.Context(model, n_ctx=512)
        context.decode(tokens)
        view = context.logits_view()
        kept = view.copy()
        gone = weakref.ref(context)
        del context
    gc.collect()
    assert gone() is None
    assert np.array_equal(view, kept)


def test_a_context_outlives_its_model(demo_path, tokens):
    model = nextn.Model(demo_path)
    context = nextn.Context(model, n_ctx=512)
    model.close()
    assert context.decode(tokens) == len(tokens)
    assert context.model.closed


def test_rows_before_the_first_decode(demo, make_context):
    context = make_context(demo)
    for kind, text in (
        ("logits", "there are no logits; decode tokens first"),
        ("hidden", "there are no hidden rows; decode tokens first"),
        ("embeddings_pre_norm", r"no rows before the final norm; call set_embeddings_pre_norm\(True\), then decode"),
    ):
        for read in (copy_of, view_of):
            with pytest.raises(nextn.NextnError, match=text):
                read(context, kind)


def test_pre_norm_rows_are_of_the_decodes_after_the_switch(context, tokens):
    context.set_embeddings_pre_norm(False)
    context.decode(tokens)
    context.set_embeddings_pre_norm(True)
    with pytest.raises(nextn.NextnError, match="no rows before the final norm"):
        context.embeddings_pre_norm()
    context.decode([1])
    assert context.embeddings_pre_norm().shape == (1, 256)
    context.set_embeddings_pre_norm(False)
    with pytest.raises(nextn.NextnError, match="no rows before the final norm"):
        context.embeddings_pre_norm()


def test_the_tap_chooses_the_hidden_rows(context, tokens):
    context.set_hidden_tap("pre")
    context.decode(tokens)
    assert np.array_equal(context.hidden(), context.embeddings_pre_norm())
    context.set_hidden_tap("post")
    context.decode(tokens)
    post, pre = context.hidden(), context.embeddings_pre_norm()
    assert not np.allclose(post, pre)
    # the final norm: the same direction in every row, up to the norm's weights
    unit = pre / np.sqrt((pre**2).mean(axis=1, keepdims=True) + 1e-6)
    weights = post / unit
    assert np.allclose(weights, np.median(weights, axis=0), rtol=1e-2, atol=1e-2)


def test_a_model_without_a_head_keeps_no_hidden_rows(tiny_model, make_context):
    with nextn.Model(tiny_model("dense", part="trunk")) as model:
        context = make_context(model)
        context.decode([1, 2])
        with pytest.raises(nextn.NextnError, match=r"has no draft head.*pair"):
            context.hidden()


def test_close(demo, tokens):
    with nextn.Context(demo, n_ctx=512) as context:
        context.decode(tokens)
    assert context.closed
    context.close()
    assert repr(context) == "Context(closed)"
    uses = [
        lambda: context.decode([1]), context.logits, context.logits_view, context.hidden, context.abort,
        context.memory_usage, context.seq_pos_max, lambda: context.seq_rm(0, 0, 1), lambda: context.pair(None),
        lambda: context.nextn_seq_rm(0, 0, 1), lambda: context.n_ctx, lambda: context.is_draft,
        lambda: context.hidden_tap, lambda: context.set_hidden_tap("pre"), context.max_rollback,
        lambda: context.set_embeddings_pre_norm(True),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(nextn.ClosedError, match="the context is closed"):
            use()


@pytest.mark.parametrize("outputs", ["all", "last"])
def test_the_arg_max_is_that_of_the_logits(context, tokens, outputs):
    context.set_argmax(True, keep_logits=True)
    for n in (1, 3, len(tokens)):
        context.seq_rm(0, -1, -1)
        context.decode(tokens[:n], outputs=outputs)
        assert context.argmax() == context.logits().argmax(axis=1).tolist()


def test_the_arg_max_alone(context, tokens):
    context.decode(tokens)
    expected = context.logits().argmax(axis=1).tolist()
    with pytest.raises(nextn.NextnError, match=r"there is no arg-max; call set_argmax\(True\)"):
        context.argmax()
    context.set_argmax(True)
    context.seq_rm(0, -1, -1)
    context.decode(tokens)
    assert context.argmax() == expected
    with pytest.raises(nextn.NextnError, match="the last decode kept the arg-max alone"):
        context.logits()
    context.set_argmax(False)
    assert context.argmax() == expected  # of the last decode still
    context.decode([1])
    assert context.logits().shape[0] == 1
    with pytest.raises(nextn.NextnError, match="there is no arg-max"):
        context.argmax()
