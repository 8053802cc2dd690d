"""Sampled and constrained generation on the real engine: seeds, grammars inside drafted blocks, acceptance."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bench_acceptance import BEGINNINGS, Shares
from engine import DEMO, SIZES, chat_prompt, corrupted, heldout_prompts, plain
from nextn import Context, DraftParams, GrammarError, Model, Speculator
from nextn.drafting import ScriptedDrafter
from nextn.sampling import Grammar
from nextn.sampling.chain import Chain

SCHEMA = {
    "type": "object",
    "properties": {
        "answer": {"type": "string", "maxLength": 30},
        "numbers": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
        "sure": {"enum": ["yes", "no"]},
    },
    "required": ["answer", "numbers", "sure"],
}
PROMPTS = heldout_prompts()[::10]


@pytest.fixture(scope="module")
def demo():
    with Model(DEMO) as model:
        yield model


@pytest.fixture(scope="module")
def spec(demo):
    with Speculator(demo, **SIZES) as made:
        yield made


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_a_seed_repeats_the_text_when_drafts_are_drawn(demo, spec, temperature):
    """Whatever was generated before, and however long it took; the adaptive length must not look at the clock."""
    different = 0
    for seed, text in enumerate(PROMPTS):
        prompt = chat_prompt(demo, text)
        options = {"max_tokens": 100, "temperature": temperature}
        first = spec.generate(prompt, seed=seed, **options)
        others = [spec.generate(prompt, **options) for _ in range(4)]
        with Speculator(demo, **SIZES) as fresh:
            again = [fresh.generate(prompt, seed=seed, **options), spec.generate(prompt, seed=seed, **options)]
        assert [result.tokens for result in again] == [first.tokens] * 2
        assert [result.stats.draft_n for result in again] == [first.stats.draft_n] * 2
        assert first.stats.draft_n > 0
        different += sum(other.tokens != first.tokens for other in others)
    assert different > 0


def test_ratio_accepts_more_than_match_where_the_text_is_open(demo):
    """An unsure head: at a high temperature the most probable token is seldom the one that the target draws."""
    rates = {}
    with Speculator(demo, draft=DraftParams(n_max=2, adaptive=False), **SIZES) as spec:
        for accept in ("ratio", "match"):
            drafted = accepted = 0
            for seed, text in enumerate(heldout_prompts()[::3]):
                stats = spec.generate(
                    chat_prompt(demo, text), max_tokens=60, temperature=1.6, top_k=20, seed=seed, accept=accept
                ).stats
                drafted, accepted = drafted + stats.draft_n, accepted + stats.draft_n_accepted
            rates[accept] = accepted / drafted
    assert rates["ratio"] > rates["match"] + 0.02


@pytest.mark.parametrize(
    "options", [{"accept": "ratio"}, {"accept": "match"}, {"accept": "ratio", "top_k": 20, "repeat_penalty": 1.1}]
)
def test_the_chain_is_applied_once_for_each_position(demo, options, monkeypatch):
    """Under both rules: to adjust the logits, and to cut them."""
    counts = {"adjusted": 0, "distribution": 0}

    def counted(name, call):
        def counting(*args):
            counts[name] += 1
            return call(*args)

        return counting

    for name in counts:
        monkeypatch.setattr(Chain, name, counted(name, getattr(Chain, name)))
    n_tokens = n_rejected = 0
    with Speculator(demo, draft=DraftParams(n_max=3, adaptive=False), **SIZES) as spec:
        for seed, text in enumerate(PROMPTS):
            result = spec.generate(
                chat_prompt(demo, text), max_tokens=60, ignore_eos=True, temperature=1.2, seed=seed, **options
            )
            n_tokens += len(result.tokens)
            n_rejected += result.stats.draft_n - result.stats.draft_n_accepted
    assert n_rejected > 0
    assert counts == {"adjusted": n_tokens, "distribution": n_tokens}


@pytest.mark.parametrize("temperature", [0.3, 0.7, 1.0])
def test_ratio_accepts_no_less_than_match_at_the_same_positions(demo, temperature, monkeypatch):
    """What each rule accepts as a rule, from p and q at every judged position; scripts/bench_acceptance.py has more."""
    shares = Shares()
    monkeypatch.setattr("nextn.accept.accept_ratio", shares.judge)
    with Speculator(demo, draft=DraftParams(n_max=4, adaptive=False), **SIZES) as spec:
        texts = [chat_prompt(demo, text) for text in heldout_prompts()] + BEGINNINGS
        for shares.prompt, text in enumerate(texts):
            spec.generate(text, max_tokens=100, temperature=temperature, seed=shares.prompt)
    n_positions, match, ratio = shares.means()
    assert n_positions > 2000
    assert ratio > match - 0.003
    assert 0.3 < match < 1


def constrained(model, prompt, text, n_predict):
    """Greedy tokens under a grammar by the shortest code there is: mask everything, then take the largest."""
    grammar, ids, out = Grammar(model, text), np.arange(model.n_vocab), []
    with Context(model, **SIZES) as context:
        context.decode(prompt)
        while len(out) < n_predict:
            row = np.where(grammar.allowed(ids), context.logits()[-1], -np.inf)
            out.append(int(row.argmax()))
            if model.is_eog(out[-1]):
                break
            grammar.accept(out[-1])
            context.decode([out[-1]])
    return out


GRAMMARS = [
    'root ::= [A-Z] [a-z ]{10,40} "."',
    r'root ::= "```" [a-z]* "\n" [^`]+ "```"',
    'root ::= ("yes" | "no") ", " [^.]* "."',
    'root ::= [0-9]+ (" " [0-9]+){5}',
]


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_a_greedy_constrained_text_is_the_plain_one(demo, spec, grammar):
    rng = np.random.default_rng(0)
    n_forced = 0
    for text in PROMPTS:
        prompt = chat_prompt(demo, text)
        expected = constrained(demo, prompt, grammar, 60)
        n_forced += expected != plain(demo, prompt, 60)
        script = corrupted(rng, expected, demo.n_vocab, 0.8)
        for draft in (DraftParams(n_max=5, adaptive=False), ScriptedDrafter(script, n_max=4)):
            with Speculator(demo, draft=draft, **SIZES) as other:
                result = other.generate(prompt, max_tokens=60, grammar=grammar)
            assert list(result.tokens) == expected
            assert result.stats.draft_n_accepted > 0 or isinstance(draft, DraftParams)
    assert n_forced > 0


def check_prefix(demo, tokens):
    """A grammar at its start lets every token pass."""
    grammar = Grammar.of_schema(demo, SCHEMA)
    for token in tokens:
        assert grammar.allows(token)
        if demo.is_eog(token):
            break
        grammar.accept(token)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 1.3, "accept": "ratio", "top_k": 50}])
def test_an_answer_that_is_cut_is_the_beginning_of_one(demo, spec, options):
    for seed, text in enumerate(PROMPTS):
        for n in (1, 2, 7, 20):
            result = spec.generate(chat_prompt(demo, text), max_tokens=n, json_schema=SCHEMA, seed=seed, **options)
            assert result.finish_reason == "length"
            assert len(result.tokens) == n
            check_prefix(demo, result.tokens)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"temperature": 1.3, "accept": "ratio", "top_k": 50}])
def test_json_conforms_to_its_schema(demo, spec, options):
    n_whole = 0
    for seed, text in enumerate(PROMPTS):
        result = spec.generate(chat_prompt(demo, text), max_tokens=250, json_schema=SCHEMA, seed=seed, **options)
        check_prefix(demo, result.tokens)
        if result.finish_reason == "length":
            continue
        value = json.loads(result.text)
        n_whole += 1
        assert list(value) == ["answer", "numbers", "sure"]
        assert isinstance(value["answer"], str) and len(value["answer"]) <= 30
        assert len(value["numbers"]) <= 3 and all(type(x) is int for x in value["numbers"])
        assert value["sure"] in ("yes", "no")
    assert n_whole >= 3


def test_a_seed_gives_the_same_constrained_text_with_and_without_speculation(demo, spec):
    with Speculator(demo, draft=None, **SIZES) as other:
        for seed, text in enumerate(PROMPTS):
            prompt, options = chat_prompt(demo, text), {"max_tokens": 80, "temperature": 1.2, "seed": seed}
            for more in ({"json_schema": SCHEMA}, {"grammar": GRAMMARS[0], "top_p": 0.9}):
                expected = other.generate(prompt, **options, **more)
                assert spec.generate(prompt, **options, **more).tokens == expected.tokens


def test_drafts_are_cut_where_the_grammar_forbids_them(demo):
    digits = [demo.tokenize(str(i), add_special=False)[0] for i in range(10)]
    script = [*digits[:4], demo.tokenize("x", add_special=False)[0], *digits[5:]]
    with Speculator(demo, draft=ScriptedDrafter(script, n_max=8), **SIZES) as spec:
        result = spec.generate([5, 6, 7], max_tokens=10, grammar="root ::= [0-9]+")
        first = demo.token_to_piece(result.tokens[0])
    assert first.isdigit()
    assert result.text.isdigit()
    assert result.stats.draft_n < 8 + 7  # the first round sent three of eight


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"grammar": "root ::= ("}, GrammarError, "line 1, column 11"),
        ({"json_schema": {"$ref": "#/x"}}, GrammarError, "the JSON schema cannot be used"),
        ({"logit_bias": {3072: 1.0}}, ValueError, "logit_bias must name token ids from 0 to 3071, not 3072"),
        ({"logit_bias": dict.fromkeys(range(3072), False)}, ValueError, "logit_bias bans every token"),
        ({"grammar": 'root ::= "a"', "logit_bias": {"a": False}}, TypeError, "a token id in logit_bias"),
    ],
)
def test_wrong_requests_cost_nothing(demo, spec, options, error, message):
    with pytest.raises(error, match=message):
        spec.generate([5, 6, 7], max_tokens=3, **options)
    assert len(spec.generate([5, 6, 7], max_tokens=3).tokens) == 3


def test_a_grammar_that_leaves_no_token_is_an_error_and_the_speculator_goes_on(demo, spec):
    banned = {i: False for i in range(demo.n_vocab) if b"a" in demo.token_to_piece(i)}
    for temperature in (0.0, 1.0):
        with pytest.raises(GrammarError, match="no token is left"):
            spec.generate([5, 6], max_tokens=5, grammar='root ::= "a"', logit_bias=banned, temperature=temperature)
    assert spec.generate([5, 6], max_tokens=5, grammar='root ::= "a"').text == "a"
