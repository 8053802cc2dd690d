"""Sampled text has the target's distribution, whatever is drafted: chi-square tests of its first three tokens.

The rows are real: a tiny model's logits after every text that comes up, and its head's. What is expected is worked out
from the same logits by tests/sampling_definition.py. Rules that are broken on purpose show that the test would notice.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from nextn import Context, DraftParams, Model, SamplingParams, Speculator
from nextn.accept import Accepted, RatioRule, make_rule
from nextn.drafting import Draws, HeadDrafter
from nextn.sampling import Distribution, Grammar
from nextn.sampling.chain import Chain
from sampling_definition import chi_square_p, expected

PROMPT = (5, 6, 7, 6)
N_DRAWS = 20_000  # a defect shows in a quarter of it
SIGNIFICANT = 1e-4
NOTHING: list[int] = []
GRAMMAR = "root ::= ([a-z] | [A-L])+"


class Rows:
    """A model's logits after PROMPT and a text, and what its head would draft there."""

    def __init__(self, path):
        self.model = Model(path)
        self.target = Context(self.model, n_ctx=64, n_threads=1)
        self.draft_context = Context(self.model, n_ctx=64, n_threads=1, nextn_draft=True)
        self.target.pair(self.draft_context)
        self._logits, self._hidden, self._head, self._q = {}, {}, {}, {}

    def logits(self, text):
        """The target's row after the text [n_vocab]."""
        if text not in self._logits:
            self.target.seq_rm(0, -1, -1)
            self.target.decode([*PROMPT, *text])
            self._logits[text] = self.target.logits()[-1]
            self._hidden[text] = self.target.hidden()
        return self._logits[text]

    def head(self, text, drafted):
        """The head's row after the text and what it drafted already [n_vocab]."""
        if (text, drafted) not in self._head:
            self.logits(text)
            hidden = self._hidden[text]
            self.draft_context.seq_rm(0, -1, -1)
            self.draft_context.decode([*PROMPT, *text], hidden=np.vstack((0 * hidden[:1], hidden[:-1])))
            for token in drafted:
                self.draft_context.decode([token], hidden=self.draft_context.hidden()[-1:])
            self._head[text, drafted] = self.draft_context.logits()[-1]
        return self._head[text, drafted]

    def q(self, text, drafted, temperature):
        """What a draft goes on from there with: the head's 8 best at the temperature."""
        if (text, drafted, temperature) not in self._q:
            row = self.head(text, drafted).astype(float)
            ids = np.sort(np.argsort(row)[-8:])
            self._q[text, drafted, temperature] = Distribution.of(ids, np.exp((row[ids] - row.max()) / temperature))
        return self._q[text, drafted, temperature]

    def draft(self, text, n_draft, draws, random):
        """A draft and what each token was drawn from; without draws the best tokens."""
        drafted, q = (), []
        while len(drafted) < n_draft:
            if draws is None:
                drafted += (int(self.head(text, drafted).argmax()),)
                continue
            q.append(self.q(text, drafted, draws.temperature))
            drafted += (q[-1].draw(random.random()),)
        return list(drafted), q


@pytest.fixture(scope="module")
def rows(tiny_model):
    return Rows(tiny_model("dense", n_vocab=320, tied=False, agreement=0.97))


@pytest.fixture
def remembered(monkeypatch):
    """The chain's steps are computed once for each row: nothing but the row and the options counts in them."""
    compute, found = Chain.distribution, {}

    def look_up(chain, logits, ids=None):
        key = logits.tobytes(), None if ids is None else ids.tobytes()
        if key not in found:
            found[key] = compute(chain, logits, ids)
        return found[key]

    monkeypatch.setattr(Chain, "distribution", look_up)


def seeded(params, seeds):
    """The same options with each seed: checking them again would take a quarter of the time."""
    for seed in seeds:
        object.__setattr__(params, "seed", seed)
        yield params


class Outputs:
    """What a rule reads of the target after a decode."""

    def __init__(self, logits):
        self.logits_view = lambda: logits


def a_text(rows, rule, random, n_draft):
    """Three tokens, in rounds."""
    out = (rule(NOTHING, Outputs(rows.logits(())[np.newaxis]), ()).id_next,)
    while len(out) < 3:
        draft, q = rows.draft(out, n_draft, rule.draws, random)
        draft = rule.cut(draft)
        texts = [out + tuple(draft[:i]) for i in range(len(draft) + 1)]
        n_accepted, id_next = rule(draft, Outputs(np.stack([rows.logits(text) for text in texts])), q)
        out += (*draft[:n_accepted], id_next)
    return out[:3]


def joint(rows, params, n_draws, allowed=None):
    """The probability of every text of three tokens that is expected at least 10 times in n_draws."""
    level = {(): 1.0}
    for _ in range(3):
        longer = {}
        for text, mass in level.items():
            p = expected(rows.logits(text), params, [*PROMPT, *text])
            if allowed is not None:
                p = {i: x for i, x in p.items() if i in allowed}
            total = sum(p.values())
            longer |= {(*text, i): mass * x / total for i, x in p.items() if mass * x / total * n_draws >= 10}
        level = longer
    return level


def p_value(texts, probabilities):
    """Of the texts' counts against their probabilities, everything improbable in one cell."""
    cells = {text: i for i, text in enumerate(probabilities)}
    n = np.bincount([cells.get(text, len(cells)) for text in texts], minlength=len(cells) + 1)
    e = np.array([*probabilities.values(), 1 - sum(probabilities.values())]) * len(texts)
    if e[-1] < 10:  # too few for a cell of their own
        n, e = np.append(n[:-2], n[-2:].sum()), np.append(e[:-2], e[-2:].sum())
    return chi_square_p(n, e)


CONFIGURATIONS = {
    "ratio": {"temperature": 0.6},
    "ratio, top_k": {"temperature": 0.7, "top_k": 6},
    "ratio, top_p": {"temperature": 0.9, "top_p": 0.8},
    "ratio, min_p and typical_p": {"temperature": 0.7, "min_p": 0.1, "typical_p": 0.9},
    "ratio, penalties": {"temperature": 0.8, "repeat_penalty": 1.2, "presence_penalty": -2.0, "frequency_penalty": 0.5,
                         "repeat_last_n": 4, "top_k": 8},
    "ratio of best tokens, logit_bias": {"temperature": 0.6, "logit_bias": {17: 2.0, 30: -2.0, 6: False}},
    "match": {"temperature": 0.6, "accept": "match"},
    "ratio, grammar": {"temperature": 0.8, "grammar": GRAMMAR, "accept": "ratio"},
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.usefixtures("remembered")
def test_the_first_three_tokens(rows, name):
    params = SamplingParams(**{"temperature": 1.0, **CONFIGURATIONS[name]})
    grammar = Grammar(rows.model, params.grammar) if params.grammar else None
    allowed = grammar and {i for i in range(320) if re.fullmatch(b"[a-zA-L]+", rows.model.token_to_piece(i))}
    random, n_draft = np.random.default_rng(1), 1 + list(CONFIGURATIONS).index(name) % 2
    texts = []
    for seeded_params in seeded(params, range(N_DRAWS)):
        rule = make_rule(seeded_params, PROMPT, grammar and grammar.clone())
        assert isinstance(rule, RatioRule) == ("ratio" in name)
        if "best" in name:
            rule.draws = None
        texts.append(a_text(rows, rule, random, n_draft))
    probabilities = joint(rows, params, N_DRAWS, allowed)
    assert len(probabilities) > 10
    assert p_value(texts, probabilities) >= SIGNIFICANT


# Rules with a defect


def accepts_without_comparing(rule, draft, outputs, q):
    return Accepted(len(draft), rule(NOTHING, Outputs(outputs.logits_view()[len(draft) :]), ()).id_next)


def reuses_draft_logits(rule, draft, outputs, q):
    logits = outputs.logits_view()
    heads = np.full_like(logits, -1e9)
    for row, q_here in zip(heads, q, strict=False):
        row[q_here.ids] = np.log(q_here.p)
    heads[len(q) :] = logits[len(q) :]
    return rule(draft, Outputs(heads), q)


def skips_the_penalties(rule, draft, logits, q):
    rule._sampler._chain.note = lambda token: None
    return rule(draft, logits, q)


def recovers_from_p(rule, draft, logits, q):
    """The token that replaces a rejected one is drawn from all of p."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Distribution, "minus", lambda p, q: p)
        return rule(draft, logits, q)


def drops_unlikely_tokens(rule, draft, logits, q):
    """Looks at a drawn token before it decides whether to judge it."""
    n = next((i for i, token in enumerate(draft) if q[i][token] < 0.3), len(draft))
    return rule(draft[:n], logits, q)


@pytest.mark.parametrize(
    ("defect", "n_draft", "options"),
    [
        (accepts_without_comparing, 2, {}),
        (accepts_without_comparing, 2, {"accept": "match"}),
        (reuses_draft_logits, 2, {}),
        (recovers_from_p, 2, {}),
        (drops_unlikely_tokens, 2, {}),
        (skips_the_penalties, 2, CONFIGURATIONS["ratio, penalties"]),
    ],
)
@pytest.mark.usefixtures("remembered")
def test_a_defect_is_caught(rows, defect, n_draft, options):
    params = SamplingParams(**{"temperature": 0.6, **options})
    random = np.random.default_rng(1)
    texts = []
    for seeded_params in seeded(params, range(N_DRAWS // 4)):
        rule = Broken(make_rule(seeded_params, PROMPT), defect)
        texts.append(a_text(rows, rule, random, n_draft))
    assert p_value(texts, joint(rows, params, len(texts))) < SIGNIFICANT


class Broken:
    """A rule with a defect."""

    def __init__(self, rule, defect):
        self.draws, self._rule, self._defect = rule.draws, rule, defect

    def cut(self, draft):
        return self._rule.cut(draft)

    def __call__(self, draft, logits, q):
        return self._defect(self._rule, draft, logits, q)


@pytest.mark.parametrize(
    ("draft", "steady"),
    [
        (DraftParams(n_max=3), True),
        (DraftParams(n_max=3, adaptive=False, p_min=0.25), True),
        (DraftParams(n_max=3, adaptive=False), False),
    ],
    ids=["adaptive", "p_min", "what is learnt stays"],
)
def test_the_first_three_tokens_of_a_speculator(rows, draft, steady, monkeypatch):
    """All of it: the engine draws the drafts, or takes its best tokens, and chooses their lengths."""
    drawn = []
    like, q_of = Draws.like, HeadDrafter.q
    monkeypatch.setattr(Draws, "like", lambda *args: dataclasses.replace(like(*args), steady=steady))
    monkeypatch.setattr(HeadDrafter, "q", lambda drafter: drawn.extend(q := q_of(drafter)) or q)
    texts, stats = texts_of_a_speculator(rows, draft)
    assert 0 < sum(s.draft_n_accepted for s in stats) < sum(s.draft_n for s in stats)
    assert 0 < np.mean([q.p.max() == 1 for q in drawn]) < 1
    assert p_value_of_a_speculator(rows, texts) >= SIGNIFICANT


@pytest.mark.parametrize("accept", ["ratio", "match"])
def test_a_speculator_that_drops_the_bonus_token_is_caught(rows, accept, monkeypatch):
    """It is chosen and decoded, and what follows goes on from it, but it is not among the tokens that come out."""
    whole = []
    judge, run = Speculator._accept, Speculator._rounds

    def judging(spec, state, draft):
        accepted = judge(spec, state, draft)
        whole.append(accepted.n_accepted == len(draft) > 0)
        return accepted

    def dropping(spec, state):
        for emitted in run(spec, state):
            if whole.pop() and len(emitted.tokens) > 1:
                del emitted.tokens[-1]
            yield emitted

    draft = DraftParams(n_max=1, adaptive=False)
    texts, _ = texts_of_a_speculator(rows, draft, accept=accept)
    assert p_value_of_a_speculator(rows, texts) >= SIGNIFICANT
    monkeypatch.setattr(Speculator, "_accept", judging)
    monkeypatch.setattr(Speculator, "_rounds", dropping)
    texts, stats = texts_of_a_speculator(rows, draft, accept=accept)
    assert sum(s.draft_n_accepted for s in stats) > 0
    assert p_value_of_a_speculator(rows, texts) < SIGNIFICANT


OF_A_SPECULATOR = {"temperature": 0.8, "top_k": 5}


def texts_of_a_speculator(rows, draft, **options):
    """The first three tokens of N_DRAWS / 16 texts, and their statistics."""
    sizes = {"n_ctx": 64, "n_batch": 16, "n_ubatch": 16, "n_threads": 1}
    options = {**OF_A_SPECULATOR, "max_tokens": 6, "logit_bias": never_ends(rows), **options}
    with Speculator(rows.model, draft=draft, **sizes) as spec:
        results = [spec.generate(PROMPT, seed=seed, **options) for seed in range(N_DRAWS // 16)]
    return [result.tokens[:3] for result in results], [result.stats for result in results]


def never_ends(rows):
    """A bias with which every text has as many tokens as are asked for."""
    return dict.fromkeys(rows.model.eog_tokens, False)


def p_value_of_a_speculator(rows, texts):
    """Of its texts."""
    params = SamplingParams(**OF_A_SPECULATOR, logit_bias=never_ends(rows))
    return p_value(texts, joint(rows, params, len(texts)))
