"""The draft engine: what it drafts, what it scores, when it drafts, and that none of it changes the text."""

from __future__ import annotations

import numpy as np
import pytest
from engine import DEMO, SIZES, chat_prompt, heldout_prompts
from nextn import _core, _setup
from nextn.model import Model
from nextn.options import DraftParams
from nextn.speculator import Speculator
from reference_drafter import ReferenceDrafter


@pytest.fixture(scope="module")
def demo():
    with Model(DEMO) as model:
        yield model


@pytest.fixture(scope="module")
def prompts(demo):
    return [chat_prompt(demo, text) for text in heldout_prompts()[::6]]


@pytest.fixture(scope="module")
def plain(demo, prompts):
    with Speculator(demo, draft=None, **SIZES) as spec:
        return [spec.generate(prompt, max_tokens=80).tokens for prompt in prompts]


def run(model, draft, prompts, n=80):
    """Tokens and what was drafted, request by request on one Speculator."""
    with Speculator(model, draft=draft, **SIZES) as spec:
        results = [spec.generate(prompt, max_tokens=n) for prompt in prompts]
    drafted = [(r.stats.n_rounds, r.stats.draft_n, r.stats.accepted_per_position) for r in results]
    return [r.tokens for r in results], drafted


@pytest.mark.parametrize(
    "params",
    [{"n_max": 1}, {"n_max": 3}, {"n_max": 8}, {"n_max": 6, "p_min": 0.6}, {"n_max": 5, "p_min": 0.9, "n_min": 3}],
    ids=str,
)
def test_it_drafts_what_single_decodes_draft(demo, prompts, plain, params, monkeypatch):
    """Catching up and drafting in one decode, and the search in the graph, change no drafted token."""
    params = DraftParams(**params, adaptive=False, vocab="full")
    tokens, drafted = run(demo, params, prompts)
    assert tokens == plain
    monkeypatch.setattr(_setup, "HeadDrafter", ReferenceDrafter)
    assert run(demo, params, prompts) == (tokens, drafted)


class ShortReference(ReferenceDrafter):
    """Scores a prefix of the vocabulary, the special tokens, and what the text has brought up, by masking the rest."""

    n_prefix = 1024

    def begin(self, prompt):
        super().begin(prompt)
        model = self._ctx_tgt.model
        self.allowed = np.arange(model.n_vocab) < self.n_prefix
        specials = [t for t in range(self.n_prefix, model.n_vocab) if not model.token_to_piece(t, special=False)]
        self.allowed[[*model.eog_tokens, *specials]] = True

    def prefill(self, tokens):
        super().prefill(tokens)
        self.allowed[tokens] = True

    def draft(self, id_last, n_past, n_room):
        self.allowed[id_last] = True
        return super().draft(id_last, n_past, n_room)

    def _first_choice(self):
        logits = np.where(self.allowed, self._ctx_dft.logits_view()[-1], -np.inf)
        return int(logits.argmax()), 1.0


def test_a_shortlist_is_the_same_columns_of_the_full_row(demo, prompts, plain, monkeypatch):
    params = DraftParams(n_max=4, adaptive=False, vocab=1024)
    tokens, drafted = run(demo, params, prompts)
    assert tokens == plain
    monkeypatch.setattr(_setup, "HeadDrafter", ShortReference)
    assert run(demo, params, prompts) == (tokens, drafted)
    monkeypatch.undo()
    assert drafted != run(demo, DraftParams(n_max=4, adaptive=False, vocab="full"), prompts)[1]  # it left tokens out


@pytest.mark.parametrize("kind", ["dense", "moe"])
@pytest.mark.parametrize("output_type", ["q8_0", "q4_0", "f16", "f32"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_every_output_matrix_can_be_shortened(tiny_model, kind, output_type, tied):
    """Tied and untied, plain and repacked (q4_0) ones: a shortlist of all the ids drafts what the whole matrix does."""
    path = tiny_model(kind, type="q8_0", output_type=output_type, tied=tied, n_vocab=1024)
    rng = np.random.default_rng(3)
    with Model(path) as model:
        prompts = [rng.integers(0, model.n_vocab, size=40).tolist() for _ in range(3)]
        full = run(model, DraftParams(n_max=4, adaptive=False, vocab="full"), prompts)
        for vocab in (512, list(range(1024))):
            tokens, drafted = run(model, DraftParams(n_max=4, adaptive=False, vocab=vocab), prompts)
            assert tokens == full[0]
            assert vocab == 512 or drafted == full[1]


@pytest.fixture
def bad_head(tiny_model):
    """A model of random weights, whose head is never right."""
    with Model(tiny_model("dense", type="q8_0", n_vocab=1024)) as model:
        yield model


@pytest.fixture
def asked(monkeypatch):
    """The calls that asked the engine for a draft."""
    calls, draft = [], _core.Drafter.draft
    monkeypatch.setattr(_core.Drafter, "draft", lambda self, *args: calls.append(args) or draft(self, *args))
    return calls


RANDOM_PROMPT = np.random.default_rng(4).integers(0, 1000, size=30).tolist()


def test_rounds_that_the_drafter_leaves_out_change_nothing(bad_head, asked):
    """Most rounds are only fed, and the head has read all of the text nevertheless."""
    with Speculator(bad_head, draft=None, **SIZES) as spec:
        plain = spec.generate(RANDOM_PROMPT, max_tokens=300, ignore_eos=True).tokens
    with Speculator(bad_head, draft=DraftParams(), **SIZES) as spec:
        result = spec.generate(RANDOM_PROMPT, max_tokens=300, ignore_eos=True)
        core, decoded = spec._drafter._core, [*RANDOM_PROMPT, *plain[:-1]]
        core.flush()
        assert core.resume(decoded, core.carry())  # False if it has read fewer tokens
    assert result.tokens == plain
    assert result.stats.n_rounds > 200
    assert len(asked) < 0.6 * result.stats.n_rounds


def test_a_seed_gives_the_same_text_where_rounds_are_left_out(bad_head, asked):
    with Speculator(bad_head, draft=DraftParams(), **SIZES) as spec:
        texts = [
            spec.generate(RANDOM_PROMPT, max_tokens=300, ignore_eos=True, temperature=1.0, seed=5).tokens
            for _ in range(2)
        ]
    assert texts[0] == texts[1]
    assert len(asked) < 500


def test_a_list_of_ones_own(demo, prompts, plain):
    ids = sorted({token for tokens in plain for token in tokens})
    tokens, drafted = run(demo, DraftParams(n_max=3, adaptive=False, vocab=ids), prompts)
    assert tokens == plain
    with Speculator(demo, draft=DraftParams(vocab=ids), **SIZES) as spec:
        spec.generate(prompts[0], max_tokens=20)
        stats = spec._drafter.stats()
    assert stats["n_prefix"] == 0 and len(ids) <= stats["n_extra"] <= len(ids) + len(set(prompts[0])) + 300
    assert sum(a for _, _, accepted in drafted for a in accepted) > 100


def test_tokens_of_the_text_are_added(demo):
    with Speculator(demo, draft=DraftParams(vocab=256, adaptive=False), **SIZES) as spec:
        spec.generate([5, 6, 7], max_tokens=1)
        few = spec._drafter.stats()["n_extra"]
        spec.generate(list(range(300, 500)), max_tokens=1)
        assert spec._drafter.stats()["n_extra"] >= few + 200
        spec.generate([5, 6, 7], max_tokens=1)
        assert spec._drafter.stats()["n_extra"] == few  # the words of one request are no candidates in the next


def test_the_shortlist_widens_when_it_misses_too_much(tiny_model):
    """A random model says any token of a vocabulary of 81,920; most of them are not among the first 32,768."""
    path = tiny_model("dense", type="q8_0", n_vocab=81920)
    with Model(path) as model, Speculator(model, draft=DraftParams(n_max=2, adaptive=False), **SIZES) as spec:
        sizes = []
        for seed in range(4):
            spec.generate([seed + 5, 6, 7], max_tokens=300, temperature=1.0, seed=seed, accept="match")
            sizes.append(spec._drafter.stats()["n_prefix"])
    assert sizes[0] >= 32768 and sizes[-1] > 32768 and sizes == sorted(sizes)


def test_nothing_leaks_into_the_next_request(demo, prompts):
    params = DraftParams(n_max=4, adaptive=False, vocab=1024)
    cold = [run(demo, params, [prompt]) for prompt in prompts]
    tokens, drafted = run(demo, params, prompts)
    assert [(t, d) for t, d in zip(tokens, drafted, strict=True)] == [(t[0], d[0]) for t, d in cold]


def test_adaptive_lengths_change_no_token(demo, prompts, plain):
    for _ in range(2):
        tokens, drafted = run(demo, DraftParams(n_max=8), prompts)
        assert tokens == plain
        assert sum(n for _, n, _ in drafted) > 0


def n_decodes(context):
    return context.n_graph_builds + context.n_graph_reuses


@pytest.mark.parametrize("n_max", [1, 3, 8])
def test_catching_up_and_the_first_draft_are_one_decode(tiny_model, n_max):
    """As many decodes of the head as drafted tokens, however many of a round are kept; the prompt is one more."""
    path = tiny_model("dense", tied=False, agreement=0.92)  # about a third of the first drafts is right
    params = DraftParams(n_max=n_max, adaptive=False)
    with Model(path) as model, Speculator(model, draft=params, **SIZES) as spec:
        for prompt, n_more in (([5], 0), (list(range(5, 55)), 1)):  # one that a first round reads, and a longer one
            before = n_decodes(spec.ctx_dft)
            stats = spec.generate(prompt, max_tokens=100).stats
            assert 0 < stats.draft_n_accepted < stats.draft_n
            assert n_decodes(spec.ctx_dft) - before == stats.draft_n + n_more


def test_no_graph_is_built_in_the_steady_state(demo, prompts):
    """Lengths change from round to round; every width met once is ready when it comes again."""
    with Speculator(demo, n_ctx=256, n_threads=1, draft=DraftParams(n_max=4, p_min=0.7, adaptive=False)) as spec:
        spec.generate(prompts[0], max_tokens=100)
        contexts = (spec.ctx_tgt, spec.ctx_dft)
        built = [context.n_graph_builds for context in contexts]
        reused = [context.n_graph_reuses for context in contexts]
        lengths = spec.generate(prompts[0], max_tokens=100).stats
        assert 0 < lengths.draft_n < 4 * lengths.n_rounds  # drafts of several lengths
        assert [context.n_graph_builds for context in contexts] == built
        assert all(c.n_graph_reuses >= before + lengths.n_rounds for c, before in zip(contexts, reused, strict=True))


def test_a_text_that_grows_builds_few_graphs(tiny_model):
    """Lengths adapt, the memory is padded further four times, and every 128 new words the shortlist has more rows."""
    path = tiny_model("dense", tied=False, agreement=0.92, n_vocab=8192)
    for adaptive in (True, False):
        params = DraftParams(n_max=6, adaptive=adaptive, vocab=1024)
        with Model(path) as model, Speculator(model, draft=params, **SIZES) as spec:
            stats = spec.generate([5, 6, 7], max_tokens=900, temperature=1.0, seed=1, accept="match").stats
            assert stats.completion_tokens == 900
            assert spec._drafter.stats()["n_extra"] > 512
            n_widths = params.n_max + 1
            n_paddings, n_row_counts = SIZES["n_ctx"] // 256, 900 // 128 + 1
            assert spec.ctx_tgt.n_graph_builds <= n_widths * n_paddings
            assert spec.ctx_dft.n_graph_builds <= n_widths * (n_paddings + n_row_counts)
            if not adaptive:
                assert spec.ctx_dft.n_graph_builds < n_decodes(spec.ctx_dft) / 50
