"""The held-out prompts: what the model is measured on."""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

from .corpus import ARMS, is_held_out, render, sample
from .corpus.phrases import DATA

PROMPTS = "heldout_prompts.jsonl"
REFERENCES = "heldout_references.jsonl"


@dataclass(frozen=True, kw_only=True)
class HeldOutPrompt:
    """A prompt that no training conversation contains, with the generator's answer."""

    id: str
    arm: str
    prompt: str
    answer: str

    @property
    def chat(self) -> str:
        """What the model is given: the prompt in its chat form, up to where the answer begins."""
        return render([{"role": "user", "content": self.prompt}]) + "<|im_start|>assistant\n"


def heldout_set(size: int = 50, seed: int = 2) -> list[HeldOutPrompt]:
    """Held-out prompts of all arms, no two of an arm with the same shape of answer.

    The shape is the beginning of the answer without its numbers; "What is 3 + 4?"
    and "What is 5 + 2?" are one shape.
    """
    rng = random.Random(seed)
    wanted = {"code": size // 3, "math": size // 3, "general": size - 2 * (size // 3)}
    rows: list[HeldOutPrompt] = []
    for arm in ARMS:
        shapes: set[str] = set()
        while len(shapes) < wanted[arm]:
            conversation = sample(arm, rng)
            prompt, answer = conversation[0]["content"], conversation[1]["content"]
            shape = re.sub(r"\d+", "#", answer)[:60]
            if not is_held_out(prompt) or len(prompt) < 8 or shape in shapes:
                continue
            shapes.add(shape)
            rows.append(HeldOutPrompt(id=f"a{len(rows):02d}-{arm}", arm=arm, prompt=prompt, answer=answer))
    return rows


def read(folder: Path = DATA) -> list[HeldOutPrompt]:
    """The prompts and reference answers of a folder, by default the published ones."""

    def lines(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]

    answers = {row["id"]: row["answer"] for row in lines(REFERENCES)}
    return [HeldOutPrompt(**row, answer=answers[row["id"]]) for row in lines(PROMPTS)]


def write(rows: list[HeldOutPrompt], folder: Path) -> None:
    """Write prompts and reference answers as the two files that `read` reads."""
    prompts = [{"id": row.id, "arm": row.arm, "prompt": row.prompt} for row in rows]
    answers = [{"id": row.id, "answer": row.answer} for row in rows]
    for name, objects in ((PROMPTS, prompts), (REFERENCES, answers)):
        (folder / name).write_text("".join(json.dumps(o) + "\n" for o in objects), encoding="utf-8")
