"""llama-cli, which has the server inside itself: drafting does not change its greedy text."""

from __future__ import annotations

import subprocess

import nextn
import pytest


def answer(spec_type: str, prompt: str) -> str:
    """What it prints for one message, without its line about speed."""
    command = [
        nextn.server_binary().with_name("llama-cli"), "-m", nextn.bundled_model(), "-c", "1024", "-t", "1",
        "--spec-type", spec_type, "--temp", "0", "-n", "80", "--single-turn", "-p", prompt, "-lv", "4",
    ]  # fmt: skip
    ended = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    text = ended.stdout.partition(f"> {prompt}")[2].partition("\n[ Prompt:")[0].strip()
    assert len(text) > 80
    assert ("draft acceptance" in ended.stderr) == (spec_type == "nextn")
    return text


@pytest.mark.parametrize("prompt", ["How do I reverse a list in Python?", "What is the capital of France?"])
def test_drafting_gives_the_plain_text(prompt) -> None:
    assert answer("nextn", prompt) == answer("none", prompt)
