"""The training text of the demo model: what the shipped model was trained on, and what was held out."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from demo_model import corpus, heldout
from demo_model.corpus import arithmetic, code, phrases

# sha256 over one JSON line per conversation, computed with the scripts that made the shipped model
ORIGINAL = {
    (20000, 1): "4ce3b912362aceab7e797fc7b922501036c9b9730a841850a15f083c65962879",
    (500, 7): "71f29fc0544bcd9b7d3f86af991b85791496584162762e571ca3c0fe76727e7c",
}


@pytest.fixture(scope="module")
def conversations() -> list[tuple[str, corpus.Conversation]]:
    return corpus.training_set(20000, 1)


def digest(rows: list[tuple[str, corpus.Conversation]]) -> str:
    lines = (json.dumps([arm, conversation]) + "\n" for arm, conversation in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_corpus_is_the_original_one(conversations: list[tuple[str, corpus.Conversation]]) -> None:
    assert digest(conversations) == ORIGINAL[20000, 1]


def test_another_seed_gives_the_original_conversations_too() -> None:
    assert digest(corpus.training_set(500, 7)) == ORIGINAL[500, 7]


def test_every_generator_occurs() -> None:
    rng = random.Random(0)
    for arm, generators in corpus.GENERATORS.items():
        for generator in generators:
            conversation = generator(rng)
            roles = [m["role"] for m in conversation]
            assert roles == ["user", "assistant"] * (len(roles) // 2), (arm, generator)
            assert all(m["content"] for m in conversation)


def test_the_arms_have_their_shares(conversations: list[tuple[str, corpus.Conversation]]) -> None:
    counts = Counter(arm for arm, _ in conversations)
    for arm, share in corpus.ARM_SHARE.items():
        assert counts[arm] / len(conversations) == pytest.approx(share, abs=0.02)


def test_no_held_out_message_is_trained_on(conversations: list[tuple[str, corpus.Conversation]]) -> None:
    prompts = {row.prompt for row in heldout.read()}
    asked = [m["content"] for _, c in conversations for m in c if m["role"] == "user"]
    assert not any(corpus.is_held_out(text) for text in asked)
    assert not prompts & set(asked)


def test_held_out_conversations_begin_with_a_held_out_message() -> None:
    rows = corpus.heldout_conversations("math", 5, random.Random(0))
    assert len(rows) == 5
    assert all(corpus.is_held_out(c[0]["content"]) for c in rows)


def test_the_held_out_files_are_what_the_generator_gives(tmp_path: Path) -> None:
    rows = heldout.heldout_set()
    assert rows == heldout.read()
    heldout.write(rows, tmp_path)
    for name in (heldout.PROMPTS, heldout.REFERENCES):
        assert (tmp_path / name).read_bytes() == (phrases.DATA / name).read_bytes()


def test_rendering_is_chat_ml() -> None:
    text = corpus.render([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}])
    assert text == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n"


@pytest.mark.parametrize("hints", [True, False])
@pytest.mark.parametrize("docstring", [True, False])
def test_every_function_of_the_table_runs(hints: bool, docstring: bool) -> None:
    for f in code.FUNCTIONS:
        f = f.with_constant(str(f.constants[0])) if f.constants else f
        source = f.source("some_name", hints=hints, docstring=docstring)
        assert code.evaluate(source, f"some_name({f.example})")
        assert ('"""' in source) == docstring
        assert ("->" in source) == hints
        assert "{k}" not in source + f.explanation + "".join(f.names + f.tasks)


@pytest.mark.parametrize(
    ("phrase", "third"),
    [
        ("count the words", "counts the words"),
        ("multiply a by b", "multiplies a by b"),
        ("play it", "plays it"),
        ("swap", "swaps "),
        ("search a list", "searches a list"),
    ],
)
def test_third_person(phrase: str, third: str) -> None:
    assert phrases.third_person(phrase) == third


def test_phrases() -> None:
    assert phrases.with_article("owl") == "an owl"
    assert phrases.with_article("bear") == "a bear"
    assert phrases.join_words(["a"]) == "a"
    assert phrases.join_words(str(i) for i in range(3)) == "0, 1 and 2"
    assert phrases.capitalized("the Nile") == "The Nile"
    assert (phrases.pronoun("Anna"), phrases.pronoun("Ben")) == ("she", "he")
    assert phrases.numbered(["x", "y"]) == "1. x\n2. y"


def test_worked_steps_are_right() -> None:
    steps = arithmetic.split_addition(47, 38)
    assert steps == "Add the tens: 40 + 30 = 70. Add the ones: 7 + 8 = 15. Together: 70 + 15 = 85."
