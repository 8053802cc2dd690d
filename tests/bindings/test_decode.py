"""The decode call: its arguments, what it changes, what it leaves alone."""

from __future__ import annotations

import nextn
import numpy as np
import pytest


@pytest.fixture
def target(demo, make_context):
    return make_context(demo, n_rs_seq=4, n_seq_max=2)


@pytest.fixture
def draft(demo, make_context):
    return make_context(demo, nextn_draft=True)


@pytest.mark.parametrize(
    "kind",
    [
        list,
        tuple,
        np.array,
        lambda t: np.array(t, np.uint16),
        lambda t: np.array(t, np.uint64),
        lambda t: np.repeat(t, 2)[::2],
        lambda t: [np.int64(x) for x in t],
    ],
)
def test_kinds_of_token_arrays(demo, make_context, tokens, kind):
    wanted = make_context(demo)
    assert wanted.decode(tokens) == len(tokens)
    context = make_context(demo)
    assert context.decode(kind(tokens)) == len(tokens)
    assert np.array_equal(context.logits(), wanted.logits())


@pytest.mark.parametrize(
    ("tokens", "error", "text"),
    [
        ([], ValueError, "tokens is empty; a decode takes at least one token"),
        (np.array([], np.int32), ValueError, "tokens is empty"),
        ([0, 3072], ValueError, r"tokens\[1\] must be an integer from 0 to 3071, not 3072"),
        ([-1], ValueError, r"tokens\[0\] must be an integer from 0 to 3071, not -1"),
        ([1, 2**31], ValueError, r"tokens\[1\] is 2147483648, out of range"),
        ([2**100], ValueError, r"tokens\[0\] is \d+, out of range"),
        (np.array([2**63], np.uint64), ValueError, r"tokens\[0\] is \d+, out of range"),
        ([0] * 257, ValueError, "tokens has 257 entries, more than n_batch = 256; decode them in parts"),
        ("abc", TypeError, "tokens must be a sequence of integers, not str"),
        (b"abc", TypeError, "tokens must be a sequence of integers, not bytes"),
        (7, TypeError, "tokens must be a sequence of integers, not int"),
        (None, TypeError, "tokens must be a sequence of integers, not NoneType"),
        ({1, 2}, TypeError, "tokens must be a sequence of integers, not set"),
        ([1.0], TypeError, r"tokens\[0\] must be an integer, not float"),
        ([1, "2"], TypeError, r"tokens\[1\] must be an integer, not str"),
        (np.array([1.0]), TypeError, "tokens must be integers, not an array of float64"),
        (np.array([True]), TypeError, "tokens must be integers, not an array of bool"),
        (np.array([[1, 2]]), ValueError, r"tokens must have one dimension \[n_tokens\], not 2"),
        (np.array(5), ValueError, "tokens must have one dimension"),
    ],
    ids=str,
)
def test_wrong_tokens(target, tokens, error, text):
    target.decode([1, 2, 3])
    logits = target.logits()
    with pytest.raises(error, match=text):
        target.decode(tokens)
    assert target.seq_pos_max() == 2  # nothing was changed
    assert np.array_equal(target.logits(), logits)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"seq_id": -1}, ValueError, "seq_id must be an integer from 0 to 1, not -1"),
        ({"seq_id": 2}, ValueError, "seq_id must be an integer from 0 to 1, not 2"),
        ({"seq_id": "0"}, TypeError, "seq_id must be an integer, not str"),
        ({"outputs": "first"}, ValueError, "outputs must be one of 'all', 'last', 'none', not 'first'"),
        ({"positions": [3]}, ValueError, "positions has 1 entries, tokens has 2"),
        ({"positions": [3, 5]}, ValueError, r"positions\[1\] is 5; positions must be contiguous, so 4"),
        ({"positions": [4, 3]}, ValueError, r"positions\[1\] is 3; positions must be contiguous, so 5"),
        ({"positions": [4, 5]}, ValueError, r"positions\[0\] is 4; sequence 0 ends at position 2, so .* 3"),
        ({"positions": [2, 3]}, ValueError, r"positions\[0\] is 2; sequence 0 ends at position 2, so .* 3"),
        ({"positions": [-1, 0]}, ValueError, r"positions\[0\] must be an integer from 0 to 2147483645, not -1"),
        ({"positions": [2**31 - 1, 2**31]}, ValueError, r"positions\[1\] is 2147483648, out of range"),
        ({"positions": [2**31 - 2, 2**31 - 1], "seq_id": 1}, ValueError, r"positions\[0\] must be an integer from"),
        ({"positions": 3}, TypeError, "positions must be a sequence of integers, not int"),
        ({"hidden": np.zeros((2, 256), np.float32)}, ValueError, "hidden is given, but this context is a target"),
        ({"position": 3}, TypeError, "position"),
    ],
    ids=str,
)
def test_wrong_options(target, options, error, text):
    target.decode([1, 2, 3])
    with pytest.raises(error, match=text):
        target.decode([4, 5], **options)
    assert target.seq_pos_max() == 2


@pytest.mark.parametrize(
    ("hidden", "error", "text"),
    [
        (None, ValueError, r"hidden is missing; a draft context needs float32 \[2, 256\]"),
        (np.zeros((1, 256), np.float32), ValueError, r"hidden has the shape \[1, 256\]; needed is \[2, 256\]"),
        (np.zeros((2, 255), np.float32), ValueError, r"hidden has the shape \[2, 255\]; needed is \[2, 256\]"),
        (np.zeros(512, np.float32), ValueError, r"hidden must have two dimensions \[n_tokens, n_embd\], not 1"),
        (np.zeros((2, 256)), TypeError, "hidden must be a float32 array .*, not one of float64"),
        (np.zeros((2, 256), np.int32), TypeError, "hidden must be a float32 array .*, not one of int32"),
        ([[0.0] * 256] * 2, TypeError, "hidden must be a float32 array .*, not list"),
        (np.full((2, 256), np.nan, np.float32), ValueError, r"hidden\[0, 0\] is not finite"),
        (np.float32([[0] * 256, [0] * 255 + [np.inf]]), ValueError, r"hidden\[1, 255\] is not finite"),
    ],
)
def test_wrong_hidden(draft, hidden, error, text):
    with pytest.raises(error, match=text):
        draft.decode([4, 5], hidden=hidden)
    assert draft.seq_pos_max() == -1


def test_hidden_need_not_be_contiguous(demo, make_context, tokens):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(demo.n_embd, len(tokens))).astype(np.float32).T
    a, b = (make_context(demo, nextn_draft=True) for _ in range(2))
    a.decode(tokens, hidden=rows)
    b.decode(tokens, hidden=np.ascontiguousarray(rows))
    assert np.array_equal(a.logits(), b.logits())


def test_outputs(target, demo, tokens):
    assert target.decode(tokens) == len(tokens)
    every = target.logits()
    assert every.shape == (len(tokens), demo.n_vocab)
    assert target.decode(tokens, seq_id=1, outputs="last") == 1
    assert target.logits().shape == (1, demo.n_vocab)
    assert np.allclose(target.logits()[0], every[-1], atol=1e-4)
    assert target.hidden().shape == (len(tokens), demo.n_embd)  # of every token, whatever the outputs
    assert target.decode([5], outputs="none") == 0
    assert target.hidden().shape == (1, demo.n_embd)
    with pytest.raises(nextn.NextnError, match='no logits; decode tokens first, with outputs="all" or "last"'):
        target.logits()


def test_positions(target, demo, make_context, tokens):
    target.decode(tokens, positions=range(len(tokens)))
    assert target.seq_pos_max() == len(tokens) - 1
    target.decode([5])
    assert target.seq_pos_max() == len(tokens)
    assert target.seq_pos_max(1) == -1
    draft = make_context(demo, nextn_draft=True)
    draft.decode([5, 6], positions=[7, 8], hidden=np.zeros((2, demo.n_embd), np.float32))
    assert (draft.seq_pos_min(), draft.seq_pos_max()) == (7, 8)


@pytest.mark.parametrize("nextn_draft", [False, True])
class TestOverflow:
    def decode(self, context, n):
        hidden = np.zeros((n, context.model.n_embd), np.float32) if context.is_draft else None
        return context.decode([1] * n, hidden=hidden, outputs="last")

    def test_names_what_was_asked_and_is_free(self, demo, make_context, nextn_draft):
        context = make_context(demo, n_ctx=256, nextn_draft=nextn_draft)
        self.decode(context, 250)
        with pytest.raises(nextn.ContextOverflowError) as info:
            self.decode(context, 7)
        assert (info.value.requested, info.value.available) == (7, 6)
        assert str(info.value).startswith("7 tokens do not fit: 6 of the 256 of a sequence are free;")
        assert context.seq_pos_max() == 249
        context.logits()  # those of the decode before
        self.decode(context, 6)  # it can be filled to the last token
        with pytest.raises(nextn.ContextOverflowError) as info:
            self.decode(context, 1)
        assert (info.value.requested, info.value.available) == (1, 0)

    def test_each_sequence_has_its_own_room(self, demo, make_context, nextn_draft):
        context = make_context(demo, n_ctx=512, n_seq_max=2, nextn_draft=nextn_draft)
        self.decode(context, 256)
        hidden = np.zeros((256, demo.n_embd), np.float32) if nextn_draft else None
        assert context.decode([1] * 256, seq_id=1, hidden=hidden, outputs="none") == 0


def test_overflow_error_survives_pickling():
    import pickle

    error = pickle.loads(pickle.dumps(nextn.ContextOverflowError("text", 3, 2)))
    assert (str(error), error.requested, error.available) == ("text", 3, 2)


def test_batches_wider_than_the_ubatch(demo, make_context):
    """Rows of all ubatches stand in the order of the tokens."""
    tokens = list(range(100, 300))
    whole, parts = make_context(demo), make_context(demo)
    for context in (whole, parts):
        context.set_embeddings_pre_norm(True)
    whole.decode(tokens)
    for i in range(0, len(tokens), 64):
        n = parts.decode(tokens[i : i + 64])
        assert np.array_equal(parts.logits(), whole.logits()[i : i + n])
        assert np.array_equal(parts.hidden(), whole.hidden()[i : i + n])
        assert np.array_equal(parts.embeddings_pre_norm(), whole.embeddings_pre_norm()[i : i + n])


def test_failed_computation_removes_the_sequence(run_python):
    """Memory is taken away, so that the engine cannot make room for the logits."""
    printed = run_python("""
        import pathlib, resource
        model = nextn.Model(DEMO)
        target = nextn.Context(model, n_ctx=2048, n_batch=1024, n_ubatch=64)
        draft = nextn.Context(model, n_ctx=2048, n_batch=1024, n_ubatch=64, nextn_draft=True)
        target.pair(draft)
        target.decode([1, 2, 3], outputs="last")
        draft.decode([1, 2, 3], hidden=target.hidden(), outputs="last")
        size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**20, -1))
        try:
            target.decode(list(range(1000)))
        except nextn.DecodeError as e:
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
            print(e)
            print(type(e) is nextn.DecodeError, target.seq_pos_max(), draft.seq_pos_max())
        print(target.decode([1, 2, 3]), target.seq_pos_max())
    """)
    lines = printed.splitlines()
    assert lines[0].startswith("decoding failed: ")
    assert lines[0].endswith("; the state of sequence 0 was unknown, so the sequence was removed")
    assert lines[1:] == ["True -1 -1", "3 2"]


def test_graphs_are_reused(target):
    target.decode([1])
    builds, reuses = target.n_graph_builds, target.n_graph_reuses
    for _ in range(8):
        target.decode([1])
    assert target.n_graph_builds + target.n_graph_reuses == builds + reuses + 8
    assert target.n_graph_reuses > reuses


def test_kept_graphs_take_turns_in_one_work_space(tiny_model):
    """A graph of n rows holds n rows of logits; one for each width would be half a gigabyte here."""
    path = tiny_model("dense", n_vocab=200_000)
    with nextn.Model(path) as model, nextn.Context(model, n_ctx=64, n_ubatch=36) as ctx:

        def compute_of(widths):
            for n_tokens in widths:
                ctx.seq_rm(0, -1, -1)
                ctx.decode([1] * n_tokens)
            return ctx.memory_usage()["compute"]

        own = ctx.memory_usage()["compute"]  # of the context's own graph, which is reserved for 36 rows
        widest = 36 * 200_000 * 4
        assert own >= widest
        assert 18 * 200_000 * 4 <= compute_of([18]) - own < widest
        assert widest <= compute_of(range(36, 0, -1)) - own <= own
        builds = ctx.n_graph_builds
        assert compute_of([*range(32, 0, -1)] * 2) - own <= own
        assert ctx.n_graph_builds == builds  # the newest ones are kept
