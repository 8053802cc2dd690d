"""The NumPy reference by itself: properties that follow from the definitions."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from .qwen35_numpy import NextnHead, Trunk, Weights, delta_rule, feed_forward, rotate, shifted, swiglu


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_delta_rule_replaces_what_a_key_held() -> None:
    keys, values = np.linalg.qr(random(8, 8))[0], random(9, 5)
    state = np.zeros((8, 5))
    for k, v in zip(keys, values[:8], strict=True):
        delta_rule(state, k, k, v, g=0.0, beta=1.0)
    np.testing.assert_allclose(keys @ state, values[:8], atol=1e-12)
    out = delta_rule(state, keys[3], keys[3], values[8], g=0.0, beta=1.0)
    np.testing.assert_allclose(out, values[8], atol=1e-12)
    np.testing.assert_allclose(keys[4] @ state, values[4], atol=1e-12)


def test_delta_rule_decays_and_writes_in_part() -> None:
    key, old, new = np.eye(4)[0], random(3), random(3, seed=1)
    state = np.outer(key, old)
    out = delta_rule(state, key, key, new, g=np.log(0.5), beta=0.25)
    np.testing.assert_allclose(out, 0.75 * 0.5 * old + 0.25 * new)


def test_delta_rule_is_the_published_matrix_form() -> None:
    """S_t = S_{t-1} alpha (I - beta k k^T) + beta v k^T, with S as [value dim, key dim] (Gated Delta Networks)."""
    published, state = np.zeros((5, 6)), np.zeros((6, 5))
    for t in range(12):
        q, k, v = random(6, seed=3 * t), random(6, seed=3 * t + 1), random(5, seed=3 * t + 2)
        k /= np.linalg.norm(k)
        alpha, beta = np.random.default_rng(t).uniform(0, 1, 2)
        published = published @ (alpha * (np.eye(6) - beta * np.outer(k, k))) + beta * np.outer(v, k)
        np.testing.assert_allclose(delta_rule(state, q, k, v, np.log(alpha), beta), published @ q, atol=1e-12)


def test_rotation_keeps_length_and_depends_on_distance_alone() -> None:
    q, k = random(3, 16), random(3, 16, seed=1)
    turned = rotate(q, 5, 8, 100.0)
    np.testing.assert_array_equal(turned[:, 8:], q[:, 8:])
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(q, axis=1))
    near = (rotate(q, 7, 8, 100.0) * rotate(k, 4, 8, 100.0)).sum(axis=1)
    far = (rotate(q, 107, 8, 100.0) * rotate(k, 104, 8, 100.0)).sum(axis=1)
    np.testing.assert_allclose(near, far)
    assert not np.allclose(near, (rotate(q, 8, 8, 100.0) * rotate(k, 4, 8, 100.0)).sum(axis=1))


def test_all_experts_chosen_is_the_weighted_mean_of_all(tiny_model) -> None:
    w = Weights(tiny_model("moe"))
    c = dataclasses.replace(w.config(), n_expert_used=8)
    x = random(64)
    p = "blk.0."
    scores = np.exp(w(p + "ffn_gate_inp") @ x)
    names = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
    experts = [swiglu(x, *(w(p + n)[e] for n in names)) for e in range(8)]
    shared = swiglu(x, w(p + "ffn_gate_shexp"), w(p + "ffn_up_shexp"), w(p + "ffn_down_shexp"))
    expected = scores / scores.sum() @ np.stack(experts) + shared / (1 + np.exp(-w(p + "ffn_gate_inp_shexp") @ x))
    np.testing.assert_allclose(feed_forward(w, p, c, x), expected)


@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_a_position_depends_on_earlier_ones_only(tiny_model, kind: str) -> None:
    w = Weights(tiny_model(kind))
    tokens = [5, 6, 7, 8, 9, 10]
    a, b = Trunk(w).run(tokens), Trunk(w).run([*tokens[:4], 99, 10])
    np.testing.assert_array_equal(a.logits[:4], b.logits[:4])
    assert not np.allclose(a.logits[5], b.logits[5])


def test_a_chain_is_steps_on_its_own_tokens_and_rows(tiny_model) -> None:
    w = Weights(tiny_model("dense"))
    tokens = [40, 41, 42, 43, 44]
    trunk = Trunk(w).run(tokens)
    head = NextnHead(w)
    head.run(tokens, shifted(trunk.hidden))
    chain = head.chain(45, trunk.hidden[-1], 5, 4)
    head.block.mixer.forget(5)
    drafted = chain.logits.argmax(axis=1).tolist()
    again = head.run([45, *drafted[:3]], np.vstack([trunk.hidden[-1:], chain.hidden[:-1]]), first=5)
    np.testing.assert_array_equal(chain.logits, again.logits)


def test_positions_must_follow_each_other(tiny_model) -> None:
    head = NextnHead(Weights(tiny_model("dense")))
    with pytest.raises(ValueError, match="position 1 after 0 rows"):
        head.step(1, np.zeros(64), 1)
