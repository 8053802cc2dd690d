"""The prompts that a benchmark runs, and earlier turns of a conversation that make them longer."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["TOPICS", "Message", "Prompt", "Suite", "load_suite", "with_history"]

DATA = Path(__file__).parent / "data"
TOPICS = ("code", "math", "general")
_KEYS = ("id", "topic", "prompt")

Message = dict[str, str]
"""One message of a conversation: "role" and "content"."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One task.

    Attributes:
        id: Its name, unique within the suite.
        topic: The group in which it is counted: code, math or general in the suite that is shipped.
        prompt: What the user says, or in raw mode the text to be continued.
    """

    id: str
    topic: str
    prompt: str


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The prompts of a benchmark.

    Attributes:
        name: "nextn" for the one that is shipped, otherwise the name of the file.
        prompts: In the order of the file.
    """

    name: str
    prompts: tuple[Prompt, ...]

    @property
    def sha256(self) -> str:
        """Changes with the prompts, their names, topics and order, and with nothing else."""
        text = json.dumps([asdict(prompt) for prompt in self.prompts], ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics in the order of their first prompts."""
        return tuple(dict.fromkeys(prompt.topic for prompt in self.prompts))

    def part(self, n_prompts: int | None = None, topics: Sequence[str] = ()) -> Suite:
        """A smaller suite: of these topics only, and of each topic as many of n_prompts as of the others.

        Raises:
            ValueError: A topic that no prompt has.
        """
        for topic in topics:
            if topic not in self.topics:
                raise ValueError(f"no prompt of the suite has the topic {topic!r}; it has {', '.join(self.topics)}")
        kept = [prompt for prompt in self.prompts if not topics or prompt.topic in topics]
        if n_prompts is not None and n_prompts < len(kept):
            kept = _take_evenly(kept, n_prompts)
        return Suite(name=self.name, prompts=tuple(kept))


def load_suite(path: str | os.PathLike[str] | None = None) -> Suite:
    """Read a suite: JSON lines, each an object with "prompt" and, if wanted, "id" and "topic".

    Args:
        path: The file; None takes the suite that is shipped.

    Raises:
        ValueError: The file is no such suite; says which line and why.
        OSError: The file cannot be read.
    """
    file = DATA / "suite.jsonl" if path is None else Path(path)
    prompts = tuple(_read(file))
    if not prompts:
        raise ValueError(f"{file} holds no prompt")
    ids = [prompt.id for prompt in prompts]
    double = next((name for name in ids if ids.count(name) > 1), None)
    if double is not None:
        raise ValueError(f"{file} has several prompts with the id {double!r}")
    return Suite(name="nextn" if path is None else file.name, prompts=prompts)


def with_history(prompt: str, n_context: int, count: Callable[[list[Message]], int]) -> list[Message]:
    """The prompt as the last message of a conversation of about n_context tokens.

    The turns before it are written once and for all, so that every model reads the same ones; they are repeated when
    there are too few of them.

    Args:
        prompt: The last message.
        n_context: Tokens that the conversation should have; it has at most one turn less.
        count: Tokens of a conversation.
    """
    turns = [json.loads(line) for line in (DATA / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    messages: list[Message] = [{"role": "user", "content": prompt}]
    n_tokens, n_turns = 0, 0
    while True:
        turn = turns[n_turns % len(turns)]
        before = [
            {"role": "user", "content": turn["question"]},
            {"role": "assistant", "content": turn["answer"]},
        ]
        longer = [*messages[:-1], *before, messages[-1]]
        n_longer = count(longer)
        if n_longer > n_context:
            return messages
        if n_longer <= n_tokens:
            raise ValueError(
                f"a conversation of {len(longer)} messages counts {n_longer} tokens, no more than a shorter one"
            )
        messages, n_tokens, n_turns = longer, n_longer, n_turns + 1


def _read(file: Path) -> Iterator[Prompt]:
    """The prompts of a file; empty lines are skipped."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{file} is not UTF-8 text") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            found: Any = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{where}: no JSON: {error}") from None
        if not isinstance(found, dict) or not isinstance(found.get("prompt"), str) or not found["prompt"].strip():
            raise ValueError(f'{where}: needs a "prompt" with text in it')
        unknown = next((key for key in found if key not in _KEYS), None)
        if unknown is not None:
            raise ValueError(f"{where}: unknown key {unknown!r}; a prompt has {', '.join(_KEYS)}")
        for key in ("id", "topic"):
            if not isinstance(found.get(key, ""), str):
                raise ValueError(f"{where}: {key} must be text, not {found[key]!r}")
        yield Prompt(
            id=found.get("id") or f"{number:03d}", topic=found.get("topic") or "general", prompt=found["prompt"]
        )


def _take_evenly(prompts: list[Prompt], n_prompts: int) -> list[Prompt]:
    """As many of each topic as can be, each topic's first ones, in the order of the suite."""
    of_topic: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        of_topic.setdefault(prompt.topic, []).append(prompt)
    ranked = sorted(range(len(prompts)), key=lambda i: of_topic[prompts[i].topic].index(prompts[i]))
    return [prompts[i] for i in sorted(ranked[:n_prompts])]
