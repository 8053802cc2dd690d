"""The engine computes what the published architecture says: all outputs against the NumPy reference, in F32."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nextn
import numpy as np
import pytest

from . import qwen35_numpy as reference
from .qwen35_numpy import NextnHead, Row, Trunk, Weights, shifted

TOLERANCE = 1e-4  # largest difference against the largest value; measured: 1e-5
N_TOKENS = 48
N_CHAIN = 4
OWN = ("shared_head_norm", "shared_head_head", "embed_tokens")
CASES: dict[str, dict[str, Any]] = {
    "dense": {"kind": "dense"},
    "dense-untied": {"kind": "dense", "tied": False, "seed": 1},
    "dense-own-head": {"kind": "dense", "tied": False, "head_tensors": OWN},
    "dense-shared-norm": {"kind": "dense", "head_tensors": ()},
    "moe": {"kind": "moe"},
    "moe-untied": {"kind": "moe", "tied": False, "seed": 1},
    "moe-own-head": {"kind": "moe", "tied": False, "head_tensors": OWN},
    "next": {"kind": "next"},
    "odd": {"kind": "odd", "tied": False},
    "odd-moe": {"kind": "odd-moe"},
}
CHUNKS = {"one batch": [48], "single tokens": [1] * 48, "ragged": [1, 7, 30, 2, 8]}


def context(model: nextn.Model, **options: Any) -> nextn.Context:
    c = nextn.Context(model, n_ctx=256, n_threads=1, type_k="f32", type_v="f32", flash_attn=False, **options)
    c.set_embeddings_pre_norm(True)
    return c


def decode(c: nextn.Context, tokens: list[int], hidden: np.ndarray | None = None) -> Row:
    """All outputs of one decode."""
    rows = None if hidden is None else hidden.astype(np.float32)
    assert c.decode(tokens, hidden=rows) == len(tokens)
    return Row(c.embeddings_pre_norm(), c.hidden(), c.logits())


def join(parts: list[Row]) -> Row:
    return Row(*(np.concatenate(p) for p in zip(*parts, strict=True)))


def chain(c: nextn.Context, token: int, hidden: np.ndarray, steps: int) -> Row:
    """Draft greedily, one decode per step; `hidden` is the first step's row [n_embd]."""
    parts: list[Row] = []
    for _ in range(steps):
        parts.append(decode(c, [token], hidden[None]))
        token, hidden = int(parts[-1].logits[0].argmax()), parts[-1].hidden[0]
    return join(parts)


def difference(actual: Row, expected: Row) -> float:
    """Largest relative difference over the three kinds of rows; infinite when an arg-max differs."""
    if (actual.logits.argmax(axis=1) != expected.logits.argmax(axis=1)).any():
        return np.inf
    return max(float(np.abs(a - e).max() / np.abs(e).max()) for a, e in zip(actual, expected, strict=True))


@dataclass
class Case:
    """A model with its engine and what the reference says about a random text."""

    path: Path
    model: nextn.Model
    weights: Weights
    tokens: list[int]
    trunk: Row

    @property
    def next_token(self) -> int:
        return int(self.trunk.logits[-1].argmax())


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest, tiny_model) -> Iterator[Case]:
    yield from load(tiny_model, request.param)


@pytest.fixture(scope="module")
def moe(tiny_model) -> Iterator[Case]:
    yield from load(tiny_model, "moe")


def load(tiny_model, name: str) -> Iterator[Case]:
    path = tiny_model(**CASES[name])
    weights = Weights(path)
    n_vocab = len(weights("token_embd"))
    tokens = np.random.default_rng(7).integers(0, n_vocab, N_TOKENS).tolist()
    with nextn.Model(path) as model:
        yield Case(path, model, weights, tokens, Trunk(weights).run(tokens))


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_trunk(case: Case, chunks: list[int]) -> None:
    ends = np.cumsum(chunks)
    with context(case.model) as target:
        rows = join([decode(target, case.tokens[end - n : end]) for n, end in zip(chunks, ends, strict=True)])
    assert difference(rows, case.trunk) < TOLERANCE


def test_head_over_the_prompt(case: Case) -> None:
    hidden = shifted(case.trunk.hidden)
    with context(case.model, nextn_draft=True) as draft:
        rows = join([decode(draft, case.tokens[i:j], hidden[i:j]) for i, j in ((0, 1), (1, 40), (40, 48))])
    assert difference(rows, NextnHead(case.weights).run(case.tokens, hidden)) < TOLERANCE


@pytest.mark.parametrize("tap", ["post", "pre"])
def test_draft_chain(case: Case, tap: str) -> None:
    """Prompt, then four steps, each fed by the engine's own rows; the reference is fed by its own."""
    with (
        context(case.model, hidden_tap=tap) as target,
        context(case.model, nextn_draft=True, hidden_tap=tap) as draft,
    ):
        trunk = decode(target, case.tokens)
        decode(draft, case.tokens, shifted(trunk.hidden))
        rows = chain(draft, int(trunk.logits[-1].argmax()), trunk.hidden[-1], N_CHAIN)
    assert difference(rows, expected_chain(case, tap)) < TOLERANCE


def expected_chain(case: Case, tap: str = "post") -> Row:
    """What the engine gives under a tap: `hidden` is the row that is handed on."""
    hidden = case.trunk.hidden if tap == "post" else case.trunk.pre_norm
    head = NextnHead(case.weights)
    head.run(case.tokens, shifted(hidden))
    rows = head.chain(case.next_token, hidden[-1], N_TOKENS, N_CHAIN, tap=tap)
    return rows if tap == "post" else rows._replace(hidden=rows.pre_norm)


@pytest.mark.parametrize("part", ["head", "legacy-head"])
@pytest.mark.parametrize("name", ["dense-untied", "dense-own-head", "moe", "odd-moe"])
def test_head_only_file_beside_the_trunk(tiny_model, name: str, part: str) -> None:
    for case in load(tiny_model, name):
        hidden = shifted(case.trunk.hidden)
        with nextn.Model(tiny_model(**CASES[name], part=part)) as head, context(head, nextn_draft=True) as draft:
            decode(draft, case.tokens, hidden)
            rows = chain(draft, case.next_token, case.trunk.hidden[-1], N_CHAIN)
        assert difference(rows, expected_chain(case)) < TOLERANCE


def altered(monkeypatch: pytest.MonkeyPatch, suffix: str, change: Any) -> None:
    """Let the reference see other numbers in the tensors of one name."""
    find = Weights.find

    def wrong(self: Weights, name: str) -> Any:
        found = find(self, name)
        return change(found) if name.endswith(suffix) else found

    monkeypatch.setattr(Weights, "find", wrong)


def _swap_norms(m: pytest.MonkeyPatch) -> None:
    find, other = Weights.find, {"enorm": "hnorm", "hnorm": "enorm"}
    m.setattr(Weights, "find", lambda w, name: find(w, name[:-5] + other.get(name[-5:], name[-5:])))


def _swap_query_and_gate(m: pytest.MonkeyPatch) -> None:
    altered(m, "attn_q", lambda a: a.reshape(4, 2, 32, 64)[:, ::-1].reshape(a.shape))


def _queries_then_gates(m: pytest.MonkeyPatch) -> None:
    altered(m, "attn_q", lambda a: a.reshape(2, 4, 32, 64).swapaxes(0, 1).reshape(a.shape))


DEFECTS = {
    "enorm and hnorm swapped": _swap_norms,
    "hidden before embedding": lambda m: altered(m, "eh_proj", lambda a: np.roll(a, 64, axis=1)),
    "query and gate swapped": _swap_query_and_gate,
    "queries, then gates": _queries_then_gates,
    "rotary embedding of all dims": lambda m: wrap(
        m, "rotate", lambda f, x, pos, n, base: f(x, pos, x.shape[-1], base)
    ),
    "convolution backwards": lambda m: altered(m, "ssm_conv1d", lambda a: a[:, ::-1]),
    "norm weights plus one": lambda m: wrap(m, "rms_norm", lambda f, x, weight, eps: f(x, 1 + weight, eps)),
    "no length-1 keys": lambda m: m.setattr(reference, "l2_norm", lambda x, eps: x),
    "neighbors share key heads": lambda m: m.setattr(reference.GatedDeltaNet, "key_head", lambda self, h: h // 2),
    "decay after the write": lambda m: m.setattr(reference, "delta_rule", _late_decay),
    "router a hundred times as sure": lambda m: altered(m, "ffn_gate_inp", lambda a: a * 100),
    "no gate of the shared expert": lambda m: altered(m, "ffn_gate_inp_shexp", lambda a: a * 0),
    "chain fed before the norm": lambda m: wrap(m, "chain", _pre_norm_chain, NextnHead),
}


def wrap(m: pytest.MonkeyPatch, name: str, around: Any, owner: Any = reference) -> None:
    inner = getattr(owner, name)
    m.setattr(owner, name, lambda *args, **options: around(inner, *args, **options))


def _late_decay(state: Any, q: Any, k: Any, v: Any, g: float, beta: float) -> Any:
    state += np.outer(k, beta * (v - state.T @ k))
    state *= np.exp(g)
    return state.T @ q


def _pre_norm_chain(inner: Any, *args: Any, **options: Any) -> Row:
    return inner(*args, **{**options, "tap": "pre"})


@pytest.mark.parametrize("plant", DEFECTS.values(), ids=DEFECTS)
def test_a_defect_shows(moe: Case, monkeypatch: pytest.MonkeyPatch, plant: Any) -> None:
    """The comparison can fail: with a wrong convention in the reference some row differs a hundred times the limit."""
    with context(moe.model) as target, context(moe.model, nextn_draft=True) as draft:
        trunk = decode(target, moe.tokens)
        decode(draft, moe.tokens, shifted(trunk.hidden))
        rows = chain(draft, moe.next_token, trunk.hidden[-1], N_CHAIN)
    assert difference(rows, expected_chain(moe)) < TOLERANCE
    plant(monkeypatch)
    wrong = Case(moe.path, moe.model, moe.weights, moe.tokens, Trunk(moe.weights).run(moe.tokens))
    worst = max(difference(trunk, wrong.trunk), difference(rows, expected_chain(wrong)))
    assert worst > 100 * TOLERANCE
