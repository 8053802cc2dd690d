"""A batch of few tokens gives the logits and hidden rows of one token at a time and leaves its state, bit by bit."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from ggml_ctypes import library_dir
from nextn.context import Context
from nextn.gguf import read_header
from nextn.model import Model
from nextn.quantize import quantize

from kernels.conftest import MOST, WIDTHS, assert_same_bits

DEMO = Path(__file__).resolve().parents[2] / "python" / "nextn" / "models" / "nextn-demo-q8_0.gguf"
# Heads that share keys, rows that are no multiple of 8, experts, other architectures; types the tiny rows allow.
MODELS = [
    ("dense", "f32"),
    ("odd", "f16"),
    ("odd", "bf16"),
    ("moe", "q8_0"),
    ("odd-moe", "f32"),
    ("next", "q4_0"),
    ("wide", "q4_0"),
]
# llama.cpp's numbers of file types
FILE_TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 7, "Q3_K_M": 12, "Q4_K_M": 15, "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25,
    "BF16": 32,
}  # fmt: skip
# (K and V type, flash attention)
MEMORIES = [("f16", True), ("f16", False), ("q8_0", True)]


class Widths:
    """One sequence decoded behind the same prompt, a token or several at a time."""

    def __init__(self, model, prompt, **options):
        self.prompt, self.rng = prompt, np.random.default_rng(0)
        self.tokens = self.rng.integers(0, min(model.n_vocab, 1000), MOST + 2).tolist()
        self.context = Context(model, n_ctx=1024, n_batch=1024, **options)

    def rows(self, *widths):
        """Logits and hidden rows of the next tokens, in batches of these widths, and the state after each batch."""
        self.context.seq_rm(0, 0, -1)
        self.context.decode(self.prompt, outputs="none")
        logits, hidden, states, start = [], [], [], 0
        for width in widths:
            self.context.decode(self.tokens[start : start + width])
            logits.append(self.context.logits())
            hidden.append(self.context.hidden())
            states.append(self.context.save_state())
            start += width
        return np.concatenate(logits), np.concatenate(hidden), states


def check(path, prompt_length, **options):
    """Compare every width, the tokens decoded after the batch, and one number of threads with another."""
    with Model(path) as model:
        prompt = np.random.default_rng(1).integers(0, min(model.n_vocab, 1000), prompt_length).tolist()
        run = Widths(model, prompt, **options)
        *alone, states = run.rows(*[1] * (MOST + 2))
        assert len(set(states)) == len(states)

        def compare(run, m, what):
            *batch, after = run.rows(m, 1, 1)
            for name, actual, expected in zip(("logits", "hidden rows"), batch, alone, strict=True):
                assert_same_bits(actual, expected[: m + 2], f"{name}, {m} tokens and two more, {what}")
            for i, state in enumerate(after):
                assert state == states[m - 1 + i], f"state after {m} and {i} tokens, {what}"

        for m in WIDTHS:
            assert run.context.inexact(m) is None  # what the engine says of itself, next to what is so
            compare(run, m, "same threads")
        run.context.close()
        run = Widths(model, prompt, **{**options, "n_threads": 3 - options["n_threads"]})
        for m in (1, 4, 9):
            compare(run, m, "other threads")
        run.context.close()


@pytest.mark.parametrize(("kind", "type_name"), MODELS)
@pytest.mark.parametrize(("kv", "flash_attn"), MEMORIES)
@pytest.mark.parametrize("n_threads", [1, 2])
def test_random_models(tiny_model, kind, type_name, kv, flash_attn, n_threads):
    if kv == "q8_0" and kind.startswith("odd"):
        pytest.skip("its heads are no multiple of 32")
    snapshots = 0 if kind == "next" else MOST  # the engine keeps none for this architecture
    options = {"type_k": kv, "type_v": kv, "flash_attn": flash_attn, "n_threads": n_threads, "n_rs_seq": snapshots}
    check(tiny_model(kind, type=type_name), 40, **options)


# 253 and 509: the memory is padded further within the batch, and at 512 cells the engine would change its way.
@pytest.mark.parametrize("prompt_length", [100, 253, 509, 700])
@pytest.mark.parametrize(("kv", "flash_attn"), MEMORIES)
def test_demo_model(prompt_length, kv, flash_attn):
    check(DEMO, prompt_length, type_k=kv, type_v=kv, flash_attn=flash_attn, n_threads=2, n_rs_seq=MOST)


@pytest.mark.parametrize(
    ("type_k", "type_v"),
    [
        *(("bf16", "bf16"), ("q4_0", "q4_0"), ("f16", "q8_0"), ("q8_0", "f16")),
        *(pytest.param(t, t, marks=pytest.mark.long) for t in ("f32", "q5_1", "q5_0", "q4_1", "iq4_nl")),
    ],
)
def test_every_type_of_memory(type_k, type_v):
    check(DEMO, 509, type_k=type_k, type_v=type_v, n_threads=2, n_rs_seq=9)


def test_keys_in_blocks_without_flash_attention():
    check(DEMO, 509, type_k="q8_0", flash_attn=False, n_threads=2, n_rs_seq=9)


class QuantizeParams(ctypes.Structure):
    """llama_model_quantize_params"""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("nthread", "ftype", "output_type", "embedding_type")),
        *(
            (name, ctypes.c_bool)
            for name in ("allow_requantize", "output", "only_copy", "pure", "keep_split", "dry_run")
        ),
        *((name, ctypes.c_void_p) for name in ("imatrix", "kv_overrides", "tt_overrides", "prune_layers")),
        ("max_buf_size", ctypes.c_size_t),
    ]


@pytest.fixture(scope="module")
def quantized_demo(tmp_path_factory):
    """Return a function that makes the demo model in another file type."""
    llama = ctypes.CDLL(str(next(library_dir().glob("libllama.so*"))))
    llama.llama_model_quantize_default_params.restype = QuantizeParams
    llama.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(QuantizeParams)]
    llama.llama_model_quantize.restype = ctypes.c_uint32

    def make(name):
        path = tmp_path_factory.mktemp("quantized") / f"{name}.gguf"
        params = llama.llama_model_quantize_default_params()
        params.nthread, params.ftype, params.allow_requantize = 1, FILE_TYPES[name], True
        assert llama.llama_model_quantize(str(DEMO).encode(), str(path).encode(), params) == 0
        return path

    return make


@pytest.mark.parametrize("name", FILE_TYPES)
@pytest.mark.parametrize(("kv", "flash_attn", "n_threads"), [("f16", True, 2), ("f16", False, 1), ("q8_0", True, 1)])
def test_demo_model_in_every_type(quantized_demo, name, kv, flash_attn, n_threads):
    path = quantized_demo(name)
    check(path, 100, type_k=kv, type_v=kv, flash_attn=flash_attn, n_threads=n_threads, n_rs_seq=MOST)


@pytest.mark.parametrize("name", ["Q4_K_M", "Q6_K"])
@pytest.mark.parametrize(("kv", "flash_attn"), MEMORIES)
def test_experts_of_whole_blocks(tiny_model, tmp_path, name, kv, flash_attn):
    """Rows of 256, so that experts are K-quants, too."""
    sizes = {"n_embd": 256, "n_ff_exp": 256, "n_ff_shexp": 256, "key_heads": 4, "state_size": 64}
    path = tmp_path / "experts.gguf"
    quantize(tiny_model("moe", type="bf16", **sizes), path, name, recipe="base", n_threads=1)
    experts = {t.type.name for t in read_header(path).tensors if "_exps" in t.name}
    assert experts <= {"Q4_K", "Q6_K"}
    check(path, 40, type_k=kv, type_v=kv, flash_attn=flash_attn, n_threads=2, n_rs_seq=MOST)
