"""Greedy text with speculation equals plain decoding over 20,000 tokens of every type that a model can be quantized to.

The demo model is quantized to each: `make test-long ARGS="tests/loop/test_exact_types.py -s"` prints the counts.
"""

from __future__ import annotations

import pytest
from engine import DEMO, ROOT, SIZES, chat_prompt, heldout_prompts
from nextn.model import Model
from nextn.options import DraftParams
from nextn.quantize import quantize, write_imatrix
from nextn.quantize.collect import collect
from nextn.speculator import Speculator

LEAST = 20_000
FILE_TYPES = [
    *("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q5_1", "Q4_K_M", "Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS"),
    *("Q3_K_M", "Q2_K"),
    *("IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ1_0", "TQ2_0", "MXFP4"),
]
DRAFTS = [
    *(DraftParams(n_max=n_max, adaptive=False) for n_max in (1, 2, 3, 4, 5, 6, 7, 8)),
    DraftParams(n_max=8),
]


@pytest.fixture(scope="module")
def imatrix(tmp_path_factory):
    """An importance matrix, without which some types cannot be made."""
    path = tmp_path_factory.mktemp("imatrix") / "imatrix.gguf"
    with Model(DEMO) as model:
        write_imatrix(path, collect(model, (ROOT / "docs" / "python.md").read_text(), max_chunks=8, n_threads=1))
    return path


@pytest.mark.long
@pytest.mark.parametrize("type_name", FILE_TYPES)
def test_speculation_writes_what_plain_decoding_writes(type_name, imatrix, tmp_path):
    path = tmp_path / f"{type_name}.gguf"
    quantize(DEMO, path, type_name, imatrix=imatrix, recipe="base", allow_requantize=True, n_threads=1)
    n_compared = n_drafted = n_accepted = 0
    with Model(path) as model:
        prompts = [chat_prompt(model, text) for text in heldout_prompts()]
        with Speculator(model, draft=None, **SIZES) as speculator:
            expected = [speculator.generate(prompt, max_tokens=128).tokens for prompt in prompts]
        for draft in DRAFTS:
            with Speculator(model, draft=draft, exact=True, **SIZES) as speculator:
                for prompt, tokens in zip(prompts, expected, strict=True):
                    result = speculator.generate(prompt, max_tokens=128)
                    assert result.tokens == tokens, f"{draft}, prompt of {len(prompt)}"
                    n_compared += len(tokens)
                    n_drafted += result.stats.draft_n
                    n_accepted += result.stats.draft_n_accepted
    print(f"\n{type_name}: {n_compared:,} tokens compared, {n_accepted:,} of {n_drafted:,} drafted ones accepted")
    assert n_compared >= LEAST
    assert 0 < n_accepted < n_drafted
