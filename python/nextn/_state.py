"""What one request is: the state that its rounds change, and what each of them adds to the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from nextn.accept import AcceptRule
from nextn.drafting import IntArray
from nextn.logprobs import LogprobRecorder, TokenLogprobs
from nextn.reasoning import ReasoningSplitter
from nextn.stats import Counters, FinishReason
from nextn.text import TextStream

__all__ = ["Emitted", "PromptProgress", "State"]

PromptProgress: TypeAlias = Callable[[int, int], object]
"""Called with the tokens of the prompt that were read and with all of them; returning False cancels."""


@dataclass
class State:
    """Everything that one request changes, apart from what the two contexts and the drafter remember.

    Between rounds the target has decoded the positions 0 .. n_past - 1, and id_last, chosen but not decoded, belongs
    to position n_past.
    """

    prompt: IntArray  # [n_prompt]
    n_left: int  # tokens that may still be emitted
    rule: AcceptRule
    text: TextStream
    counters: Counters
    eog_tokens: frozenset[int] = frozenset()  # those that end this generation
    logprobs: LogprobRecorder | None = None
    reasoning: ReasoningSplitter | None = None
    progress: PromptProgress | None = None
    n_past: int = 0
    id_last: int = -1
    finish_reason: FinishReason | None = None


@dataclass
class Emitted:
    """What one round adds to the result."""

    text: str
    tokens: list[int]
    logprobs: list[TokenLogprobs]  # one per token, when they are wanted
    reasoning: str = ""  # the thinking before the answer, once it is told from the text
