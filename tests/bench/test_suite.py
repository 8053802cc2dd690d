"""The prompts that come with nextn, suites of one's own, and conversations of a wanted length."""

from __future__ import annotations

import json

import nextn
import pytest
from nextn.bench import load_suite
from nextn.bench.suite import TOPICS, with_history
from nextn.chat import ChatPrompter


def test_the_shipped_suite():
    suite = load_suite()
    assert len(suite.prompts) == 50
    assert suite.topics == TOPICS
    assert min(sum(p.topic == topic for p in suite.prompts) for topic in TOPICS) >= 16
    assert len({p.prompt for p in suite.prompts}) == 50


def test_the_bundled_model_answers_it():
    """The suite is within what the small model knows: nearly all answers end by themselves and have some length."""
    prompts = load_suite().prompts[::5]
    with nextn.Speculator(nextn.bundled_model(), n_threads=1, n_ctx=512) as speculator:
        results = [speculator.chat([{"role": "user", "content": p.prompt}], max_tokens=200) for p in prompts]
    assert sum(result.finish_reason == "stop" for result in results) >= 9
    assert sum(result.stats.completion_tokens >= 20 for result in results) >= 8


def test_a_part_takes_topics_alike():
    part = load_suite().part(7)
    counts = [sum(p.topic == topic for p in part.prompts) for topic in TOPICS]
    assert sum(counts) == 7 and max(counts) - min(counts) <= 1
    assert {p.topic for p in load_suite().part(5, ["math"]).prompts} == {"math"}
    assert load_suite().part(99) == load_suite()
    with pytest.raises(ValueError, match="no prompt of the suite has the topic 'maths'; it has code, math, general"):
        load_suite().part(None, ["maths"])


def test_the_hash_follows_the_prompts_only(tmp_path):
    lines = [json.dumps({"prompt": p.prompt, "topic": p.topic, "id": p.id}) for p in load_suite().prompts]
    copy = tmp_path / "copy.jsonl"
    copy.write_text("\n\n".join(lines))
    assert load_suite(copy).sha256 == load_suite().sha256
    copy.write_text("\n".join(lines[1:]))
    assert load_suite(copy).sha256 != load_suite().sha256


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: no JSON"),
        ("[]", 'line 2: needs a "prompt"'),
        ('{"prompt": " "}', 'line 2: needs a "prompt"'),
        ('{"prompt": "a", "arm": "code"}', "line 2: unknown key 'arm'; a prompt has id, topic, prompt"),
        ('{"prompt": "a", "id": 3}', "line 2: id must be text"),
        ('{"prompt": "a", "id": "001"}', "several prompts with the id '001'"),
    ],
)
def test_a_bad_suite_names_the_line(tmp_path, line, message):
    file = tmp_path / "suite.jsonl"
    file.write_text(f'{{"prompt": "Hello", "id": "001"}}\n{line}\n')
    with pytest.raises(ValueError, match=message):
        load_suite(file)


def test_no_prompt_at_all(tmp_path):
    file = tmp_path / "suite.jsonl"
    file.write_text("\n")
    with pytest.raises(ValueError, match="holds no prompt"):
        load_suite(file)


def test_a_count_that_does_not_grow_is_an_error():
    with pytest.raises(ValueError, match="no more than a shorter one"):
        with_history("Hello", 100, lambda messages: 3)


@pytest.mark.parametrize("n_context", [10, 256, 1500])
def test_history_fills_a_conversation(n_context):
    with nextn.Model(nextn.bundled_model()) as model:
        chat = ChatPrompter(model)
        messages = with_history("What is 2 + 2?", n_context, lambda m: len(chat.prompt(m).tokens))
        n_tokens = len(chat.prompt(messages).tokens)
    assert messages[-1] == {"role": "user", "content": "What is 2 + 2?"}
    assert [m["role"] for m in messages] == ["user", "assistant"] * (len(messages) // 2) + ["user"]
    assert n_tokens <= max(n_context, 40)
    assert n_context < 100 or n_tokens > n_context - 250  # the longest turn is shorter
