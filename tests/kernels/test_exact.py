"""What the engine says about exactness, and what exact=True makes of it. That it is so: see the other files here."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from ggml_ctypes import TYPES
from nextn import Context, DraftParams, InexactError, Model, Speculator, _core
from nextn.bundled import bundled_model
from nextn.cli import main
from nextn.drafting import ScriptedDrafter

from kernels.products import NAMED

SIZES = {"n_ctx": 512, "n_threads": 1}


def test_the_widths_of_drafts_are_exact_and_wider_batches_are_not():
    with Model(bundled_model()) as model, Context(model, n_rs_seq=9, **SIZES) as context:
        for n_tokens in range(1, 10):
            assert context.inexact(n_tokens) is None
        for n_tokens in (65, 256, 512):
            why = context.inexact(n_tokens)
            assert why == (
                "MUL_MAT of blk.0.attn_qkv.weight (q8_0 in CPU_Mapped memory) on CPU: so many tokens at once are"
                " computed as a prompt is"
            )


@pytest.mark.parametrize("n_tokens", [0, 513, 2**40])
def test_batches_that_cannot_be(n_tokens):
    with Model(bundled_model()) as model, Context(model, **SIZES) as context, pytest.raises(ValueError, match="n_tok"):
        context.inexact(n_tokens)


def test_asking_changes_nothing():
    with Model(bundled_model()) as model, Context(model, n_rs_seq=4, **SIZES) as context:
        context.decode([1, 2, 3, 4], outputs="all")
        context.decode([5], outputs="all")
        expected = context.logits()
        for ask in (False, True):
            context.seq_rm(0, -1, -1)
            context.decode([1, 2, 3, 4], outputs="all")
            if ask:
                assert context.inexact(3) is None
            context.decode([5], outputs="all")
            assert context.logits().tobytes() == expected.tobytes()
            assert context.max_rollback() == 0


def test_a_speculator_that_is_exact():
    prompt = [1, 2, 3]
    with Speculator(bundled_model(), exact=True, **SIZES) as exact, Speculator(bundled_model(), **SIZES) as speculator:
        assert exact.generate(prompt, max_tokens=20).tokens == speculator.generate(prompt, max_tokens=20).tokens
    for draft in (None, DraftParams(n_max=8), ScriptedDrafter([], n_max=8)):
        Speculator(bundled_model(), draft=draft, exact=True, **SIZES).close()


def test_a_speculator_that_would_not_be():
    draft = ScriptedDrafter([], n_max=64)
    with pytest.raises(InexactError, match=r"blk\.0\.attn_qkv\.weight.* so many tokens.*Shorter drafts .n_max"):
        Speculator(bundled_model(), draft=draft, exact=True, **SIZES)
    Speculator(bundled_model(), draft=draft, **SIZES).close()


def test_wrong_arguments():
    with pytest.raises(TypeError, match="exact must be"):
        Speculator(bundled_model(), exact=1, **SIZES)


def test_the_command_line(capsys):
    assert main(["generate", "--exact", "-n", "3", "-t", "1", "Hi"]) == 0
    capsys.readouterr()
    command = [sys.executable, "-m", "nextn", "generate", "--exact", "-t", "1", "Hi"]
    env = dict(os.environ, GGML_NEXTN_NARROW="0")
    run = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (1, "")
    last = run.stderr.splitlines()[-1]
    assert "GGML_NEXTN_NARROW=0 in the environment" in last
    assert "Shorter drafts (--draft-max) with everything on the CPU (-ngl 0) can be exact" in last
    assert "--no-draft" in last


def test_the_kernels_of_this_machine():
    """NAMED lists what the documentation promises for x86 with AVX2."""
    shared = set(_core.shared_types())
    features = {name for backend in _core.engine_info()["backends"] for name in backend["features"]}
    assert shared <= set(TYPES)
    assert set(NAMED) <= shared if "AVX2" in features else shared <= {"F32", "F16", "BF16"}


ASK = """
import json
from nextn import Context, Model, _core
from nextn.bundled import bundled_model
with Model(bundled_model()) as model:
    answers = []
    for flash_attn in (True, False):
        with Context(model, n_ctx=512, n_threads=1, flash_attn=flash_attn) as context:
            answers.append([context.inexact(1), context.inexact(4)])
print(json.dumps([_core.shared_types(), answers]))
"""


@pytest.mark.parametrize("level", [0, 1])
def test_kernels_that_are_switched_off(level):
    env = dict(os.environ, GGML_NEXTN_NARROW=str(level))
    run = subprocess.run([sys.executable, "-c", ASK], env=env, capture_output=True, text=True, check=True)
    shared, answers = json.loads(run.stdout)
    assert shared == []
    for alone, several in answers:
        assert several is None if level == 1 else "GGML_NEXTN_NARROW=0" in several
        assert alone is None or level == 0
