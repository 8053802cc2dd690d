"""Conversations and the small grammar helpers that all generators share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Message = dict[str, str]
Conversation = list[Message]

DATA = Path(__file__).resolve().parent.parent / "data"

FEMALE_NAMES = ["Anna", "Clara", "Emma", "Grace", "Iris", "Kate", "Maria", "Olivia", "Ruth", "Tina"]
MALE_NAMES = ["Ben", "David", "Felix", "Henry", "Jack", "Leo", "Noah", "Paul", "Sam", "Victor"]
NAMES = sorted(FEMALE_NAMES + MALE_NAMES)
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def load_table(name: str) -> Any:
    """Read one JSON table of the data folder."""
    return json.loads((DATA / name).read_text(encoding="utf-8"))


def chat(*turns: str) -> Conversation:
    """Turn alternating user and assistant texts into messages."""
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": t.strip()} for i, t in enumerate(turns)]


def with_article(word: str) -> str:
    """'owl' -> 'an owl'."""
    return ("an " if word[0].lower() in "aeiou" else "a ") + word


def capitalized(text: str) -> str:
    """Upper-case the first letter and leave the rest alone, unlike str.capitalize."""
    return text[0].upper() + text[1:]


def join_words(words: Iterable[str]) -> str:
    """['a', 'b', 'c'] -> 'a, b and c'."""
    words = list(words)
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def third_person(phrase: str) -> str:
    """'count the words' -> 'counts the words'."""
    verb, _, rest = phrase.partition(" ")
    if verb.endswith(("sh", "ch", "ss", "x", "z")):
        verb += "es"
    elif verb.endswith("y") and verb[-2] not in "aeiou":
        verb = verb[:-1] + "ies"
    else:
        verb += "s"
    return verb + " " + rest


def pronoun(name: str) -> str:
    """The pronoun of a person in NAMES."""
    return "she" if name in FEMALE_NAMES else "he"


def numbered(lines: Iterable[str]) -> str:
    """A numbered list, one item a line."""
    return "\n".join(f"{i}. {line}" for i, line in enumerate(lines, 1))
