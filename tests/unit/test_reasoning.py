"""Splitting thinking from the answer: the same however the text is cut into pieces."""

from __future__ import annotations

import pytest
from nextn.reasoning import ReasoningSplitter

CASES = [
    # prompt ends inside, text, reasoning, content
    (True, "Let me see.\n</think>\n\nParis.", "Let me see.", "Paris."),
    (True, "\n\nA  B\n\nC </think>Paris. </think> <think>x", "A  B\n\nC", "Paris. </think> <think>x"),
    (True, "never ends </thi", "never ends </thi", ""),
    (True, "</think>\n\nParis", "", "Paris"),
    (True, "a < b </ c\n", "a < b </ c", ""),
    (False, "<think>\nHm\n</think>\n\n Paris\n", "Hm", "Paris\n"),
    (False, "\n<think>Hm</think>", "Hm", ""),
    (False, "Paris <think>no</think>", "", "Paris <think>no</think>"),
    (False, "<thin air", "", "<thin air"),
    (False, "  Paris", "", "  Paris"),
    (False, "<thi", "", "<thi"),
    (False, "", "", ""),
    (True, "", "", ""),
]


def split(inside, pieces):
    splitter = ReasoningSplitter("<think>", "</think>", inside=inside)
    parts = [splitter.feed(piece) for piece in pieces] + [splitter.finish()]
    return "".join(part[0] for part in parts), "".join(part[1] for part in parts)


@pytest.mark.parametrize(("inside", "text", "reasoning", "content"), CASES)
def test_every_way_to_cut(inside, text, reasoning, content):
    assert split(inside, [text]) == (reasoning, content)
    assert split(inside, list(text)) == (reasoning, content)
    for i in range(len(text)):
        for j in range(i, len(text)):
            assert split(inside, [text[:i], text[i:j], text[j:]]) == (reasoning, content)


def test_what_is_certain_is_shown_at_once():
    splitter = ReasoningSplitter("<think>", "</think>", inside=True)
    assert splitter.feed("one two ") == ("one two", "")
    assert splitter.feed("three</th") == (" three", "")
    assert splitter.feed("ink>\nP") == ("", "P")
    assert splitter.feed("aris </think>") == ("", "aris </think>")
