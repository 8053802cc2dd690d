"""Deterministic generator of the demo model's training conversations.

Three arms (code, math, general) are built from templates and tables written
for this project. Every code answer is executed while it is generated, so the
example values it quotes are real; every math answer is computed.

A user message whose hash falls into the held-out share never appears in a
training conversation, in any turn. Held-out prompts therefore are unseen
wordings of known kinds of task: a model can answer them only by generalizing.

The order of the random draws is part of the format: a changed order gives
another corpus, and a model trained on it is another model.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

from . import arithmetic, code, daily, knowledge, problems
from .phrases import Conversation as Conversation

Generator = Callable[[random.Random], Conversation]

ARMS = ("code", "math", "general")
ARM_SHARE = {"code": 0.24, "math": 0.46, "general": 0.30}
HELD_OUT = 40  # one prompt in HELD_OUT is held out
SYSTEM_MESSAGE = "You are a helpful assistant."
SYSTEM_SHARE = 0.08

# arm: generator and weight
GENERATORS: dict[str, dict[Generator, int]] = {
    "code": {code.gen_function: 84, code.gen_class: 6, code.gen_snippet: 10},
    "math": {
        arithmetic.gen_drill: 16,
        arithmetic.gen_addition: 11,
        arithmetic.gen_subtraction: 11,
        arithmetic.gen_multiplication: 13,
        arithmetic.gen_division: 9,
        problems.gen_story: 18,
        problems.gen_units: 8,
        problems.gen_sequence: 9,
        arithmetic.gen_percent: 6,
        problems.gen_equation: 7,
        problems.gen_geometry: 7,
        arithmetic.gen_number_question: 13,
        arithmetic.gen_table: 3,
        arithmetic.gen_sum_and_product: 4,
    },
    "general": {
        knowledge.gen_country: 13,
        knowledge.gen_element: 12,
        knowledge.gen_planet: 4,
        knowledge.gen_animal: 9,
        knowledge.gen_two_animals: 4,
        knowledge.gen_concept: 16,
        knowledge.gen_two_concepts: 6,
        knowledge.gen_device: 7,
        daily.gen_howto: 14,
        daily.gen_list: 6,
        knowledge.gen_word: 10,
        knowledge.gen_calendar: 3,
        daily.gen_small_talk: 9,
        daily.gen_summary: 7,
        daily.gen_tale: 4,
        daily.gen_email: 4,
        daily.gen_memory: 4,
    },
}


def is_held_out(text: str) -> bool:
    """Does the hash of a user message fall into the held-out share?"""
    digest = hashlib.sha256(("nextn-demo:" + text).encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_OUT == 0


def sample(arm: str, rng: random.Random) -> Conversation:
    """One conversation of an arm, held out or not."""
    generators = GENERATORS[arm]
    return rng.choices(list(generators), list(generators.values()))[0](rng)


def training_set(n: int, seed: int = 1) -> list[tuple[str, Conversation]]:
    """Generate n conversations as (arm, messages) in which no held-out message occurs."""
    rng = random.Random(seed)
    conversations: list[tuple[str, Conversation]] = []
    while len(conversations) < n:
        arm = rng.choices(list(ARM_SHARE), list(ARM_SHARE.values()))[0]
        conversation = sample(arm, rng)
        if any(m["role"] == "user" and is_held_out(m["content"]) for m in conversation):
            continue
        if rng.random() < SYSTEM_SHARE:
            conversation = [{"role": "system", "content": SYSTEM_MESSAGE}, *conversation]
        conversations.append((arm, conversation))
    return conversations


def heldout_conversations(arm: str, n: int, rng: random.Random) -> list[Conversation]:
    """Generate n conversations of an arm that begin with a held-out message."""
    conversations: list[Conversation] = []
    while len(conversations) < n:
        conversation = sample(arm, rng)
        if is_held_out(conversation[0]["content"]):
            conversations.append(conversation)
    return conversations


def render(conversation: Conversation) -> str:
    """ChatML, as the model's embedded chat template renders it."""
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in conversation)
