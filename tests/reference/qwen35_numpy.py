"""Qwen3.5-class models with a NextN draft head, in NumPy, one token at a time.

Written from the published architecture, to be read and to check the engine against; it is slow and exact (float64).
Three architectures: `qwen35` (dense), `qwen35moe`, `qwen3next`.

The trunk is a pre-norm decoder. With x the residual stream at one position:

    x = x + mixer(norm(x))             gated delta net; in every fourth layer gated attention
    x = x + feed_forward(norm(x))      SwiGLU, or a mixture of experts
    hidden = norm(x);  logits = LM_head @ hidden

The NextN block (DeepSeek-V3 report, section 2.2) predicts one token further than the trunk: at position p it reads
token x_p and the hidden row h of position p - 1, and gives logits for x_{p+1}:

    x = eh_proj @ [norm_e(embedding(x_p)) ; norm_h(h)]
    then one decoder block with gated attention and its own keys and values
    hidden = norm(x);  logits = LM_head @ hidden

Its own hidden row is the h of the next step of a draft chain.

Sources: Yang, Kautz, Hatamizadeh, "Gated Delta Networks" (2024), for the delta net; the Qwen3-Next model card and blog
post for the gates, the partial rotary embedding and the shared expert; Su et al., "RoFormer" (2021), for the rotation.
Tensor names, shapes and orders are those of GGUF files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import gguf
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Row(NamedTuple):
    """What one position gives: `pre_norm` [n_embd], `hidden` [n_embd] after the final norm, `logits` [n_vocab]."""

    pre_norm: Array
    hidden: Array
    logits: Array


# small functions ----------------------------------------------------------------------------------------------------


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def softplus(x: Array) -> Array:
    return np.logaddexp(0.0, x)


def softmax(x: Array) -> Array:
    e: Array = np.exp(x - x.max(axis=-1, keepdims=True))
    total: Array = e.sum(axis=-1, keepdims=True)
    return e / total


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Scale rows to mean square 1. GGUF stores the factor itself (for Qwen: 1 + the checkpoint's weight)."""
    mean_square: Array = (x * x).mean(axis=-1, keepdims=True)
    return x / np.sqrt(mean_square + eps) * weight


def l2_norm(x: Array, eps: float) -> Array:
    square: Array = (x * x).sum(axis=-1, keepdims=True)
    return x / np.sqrt(square + eps)


def rotate(x: Array, position: int, n_rot: int, base: float) -> Array:
    """Rotary embedding of the first `n_rot` numbers of each row: number i pairs with number i + n_rot / 2.

    Qwen3.5 splits the pairs among three position axes (time, height, width). In text all three are the token's
    position, so the split has no effect.
    """
    half = n_rot // 2
    angle = position * base ** (-np.arange(half) / half)
    a, b, rest = x[..., :half], x[..., half:n_rot], x[..., n_rot:]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([a * cos - b * sin, a * sin + b * cos, rest], axis=-1)


# the file -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Config:
    """Sizes read from the file's metadata; `n_layer` is without the NextN block."""

    arch: str
    n_layer: int
    n_layer_nextn: int
    full_attention_interval: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_rot: int
    rope_base: float
    key_heads: int
    value_heads: int
    state_size: int
    n_expert_used: int
    eps: float


class Weights:
    """The tensors of a GGUF file as float64 arrays, rows first; `weights("blk.0.attn_q")` adds the suffix itself."""

    def __init__(self, path: Path | str) -> None:
        self._reader = gguf.GGUFReader(path)
        self._tensors = {t.name: t for t in self._reader.tensors}
        self._arrays: dict[str, Array] = {}

    def meta(self, key: str, default: Any = None) -> Any:
        field = self._reader.get_field(key)
        return default if field is None else field.contents()

    def find(self, name: str) -> Array | None:
        for full in (name + ".weight", name + ".bias", name):
            if full in self._tensors:
                if full not in self._arrays:
                    t = self._tensors[full]
                    self._arrays[full] = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64)
                return self._arrays[full]
        return None

    def __call__(self, name: str) -> Array:
        found = self.find(name)
        if found is None:
            raise KeyError(f"no tensor {name}")
        return found

    def config(self) -> Config:
        arch = self.meta("general.architecture")

        def m(key: str, default: Any = None) -> Any:
            return self.meta(f"{arch}.{key}", default)

        nextn = m("nextn_predict_layers", 0)
        return Config(
            arch=arch, n_layer=m("block_count") - nextn, n_layer_nextn=nextn,
            full_attention_interval=m("full_attention_interval", 4), n_head=m("attention.head_count"),
            n_head_kv=m("attention.head_count_kv"), head_dim=m("attention.key_length"),
            n_rot=m("rope.dimension_count"), rope_base=m("rope.freq_base"), key_heads=m("ssm.group_count"),
            value_heads=m("ssm.time_step_rank"), state_size=m("ssm.state_size"),
            n_expert_used=m("expert_used_count", 0), eps=m("attention.layer_norm_rms_epsilon"),
        )  # fmt: skip


# token mixers: they remember earlier positions ----------------------------------------------------------------------


class Mixer(Protocol):
    """The part of a layer that looks at other positions. Steps must come in order of position."""

    def step(self, x: Array, position: int) -> Array: ...


def delta_rule(state: Array, q: Array, k: Array, v: Array, g: float, beta: float) -> Array:
    """One token of one head; changes `state` [key dim, value dim] in place and returns the output [value dim].

    S <- exp(g) S                     decay, 0 < exp(g) < 1
    S <- S + k (beta (v - S^T k))^T   store v under key k in place of a share beta of what k held
    out = S^T q
    """
    state *= np.exp(g)
    state += np.outer(k, beta * (v - state.T @ k))
    out: Array = state.T @ q
    return out


class GatedDeltaNet:
    """Linear attention: each value head keeps a state matrix that the delta rule changes and reads at each token.

    Queries, keys and values first pass a short causal convolution over time. The output is normed and gated.
    """

    def __init__(self, w: Weights, prefix: str, c: Config) -> None:
        self.w, self.p, self.c = w, prefix, c
        channels, taps = w(prefix + "ssm_conv1d").shape
        self.window = np.zeros((taps, channels))  # the newest `taps` inputs of the convolution, newest last
        self.state = np.zeros((c.value_heads, c.state_size, c.state_size))

    def beta_and_alpha(self, x: Array) -> tuple[Array, Array]:
        """Write strength and decay, before their non-linearities: [value_heads] each."""
        if self.c.arch != "qwen3next":
            return self.w(self.p + "ssm_beta") @ x, self.w(self.p + "ssm_alpha") @ x
        # Qwen3-Next: one matrix; the rows of a key head are the betas of its value heads, then their alphas
        both = (self.w(self.p + "ssm_ba") @ x).reshape(self.c.key_heads, 2, -1)
        return both[:, 0].reshape(-1), both[:, 1].reshape(-1)

    def key_head(self, value_head: int) -> int:
        """Which key head serves a value head: in turn for Qwen3.5 GGUF files, neighbors share for Qwen3-Next."""
        if self.c.arch == "qwen3next":
            return value_head // (self.c.value_heads // self.c.key_heads)
        return value_head % self.c.key_heads

    def step(self, x: Array, position: int) -> Array:
        c, w, p = self.c, self.w, self.p
        self.window = np.vstack([self.window[1:], w(p + "attn_qkv") @ x])
        mixed = silu((self.window * w(p + "ssm_conv1d").T).sum(axis=0))
        n_key = c.key_heads * c.state_size
        q, k, v = (part.reshape(-1, c.state_size) for part in np.split(mixed, [n_key, 2 * n_key]))
        q = l2_norm(q, c.eps) / np.sqrt(c.state_size)
        k = l2_norm(k, c.eps)
        beta, alpha = self.beta_and_alpha(x)
        beta = sigmoid(beta)
        g = w(p + "ssm_a") * softplus(alpha + w(p + "ssm_dt"))  # ssm_a is -exp(A_log), so g < 0
        out = np.empty((c.value_heads, c.state_size))
        for h in range(c.value_heads):
            kh = self.key_head(h)
            out[h] = delta_rule(self.state[h], q[kh], k[kh], v[h], g[h], beta[h])
        gate = silu(w(p + "attn_gate") @ x).reshape(out.shape)
        mixed = (rms_norm(out, w(p + "ssm_norm"), c.eps) * gate).reshape(-1)
        return w(p + "ssm_out") @ mixed


class GatedAttention:
    """Softmax attention with normed queries and keys, grouped KV heads and an output gate per number.

    The query projection yields, head by head, the query and then the gate.
    """

    def __init__(self, w: Weights, prefix: str, c: Config) -> None:
        self.w, self.p, self.c = w, prefix, c
        self.keys: list[Array] = []  # one [n_head_kv, head_dim] per position
        self.values: list[Array] = []

    def forget(self, position: int) -> None:
        """Drop what positions `position` and later left behind."""
        del self.keys[position:], self.values[position:]

    def step(self, x: Array, position: int) -> Array:
        c, w, p = self.c, self.w, self.p
        if position != len(self.keys):
            raise ValueError(f"position {position} after {len(self.keys)} rows")
        q, gate = np.split((w(p + "attn_q") @ x).reshape(c.n_head, 2 * c.head_dim), 2, axis=1)
        k = (w(p + "attn_k") @ x).reshape(c.n_head_kv, c.head_dim)
        q = rotate(rms_norm(q, w(p + "attn_q_norm"), c.eps), position, c.n_rot, c.rope_base)
        k = rotate(rms_norm(k, w(p + "attn_k_norm"), c.eps), position, c.n_rot, c.rope_base)
        self.keys.append(k)
        self.values.append((w(p + "attn_v") @ x).reshape(c.n_head_kv, c.head_dim))
        share = c.n_head // c.n_head_kv  # query heads per KV head, neighbors
        keys = np.repeat(np.stack(self.keys, axis=1), share, axis=0)  # [n_head, positions, head_dim]
        values = np.repeat(np.stack(self.values, axis=1), share, axis=0)
        scores = np.einsum("hd,hpd->hp", q, keys) / np.sqrt(c.head_dim)
        out: Array = np.einsum("hp,hpd->hd", softmax(scores), values)
        return w(p + "attn_output") @ (out * sigmoid(gate)).reshape(-1)


# feed-forward: position by position ---------------------------------------------------------------------------------


def swiglu(x: Array, gate: Array, up: Array, down: Array) -> Array:
    return down @ (silu(gate @ x) * (up @ x))


def feed_forward(w: Weights, p: str, c: Config, x: Array) -> Array:
    """SwiGLU; or the best experts weighted by their renormalized probabilities, plus a gated shared expert."""
    if c.n_expert_used == 0:
        return swiglu(x, w(p + "ffn_gate"), w(p + "ffn_up"), w(p + "ffn_down"))
    probability = softmax(w(p + "ffn_gate_inp") @ x)
    chosen = np.argsort(-probability)[: c.n_expert_used]
    share: Array = probability[chosen] / probability[chosen].sum()
    names = ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")
    experts = [swiglu(x, *(w(p + n)[e] for n in names)) for e in chosen]
    routed = share @ np.stack(experts)
    shared = swiglu(x, w(p + "ffn_gate_shexp"), w(p + "ffn_up_shexp"), w(p + "ffn_down_shexp"))
    return routed + sigmoid(w(p + "ffn_gate_inp_shexp") @ x) * shared


class Block:
    """One decoder layer: mixer and feed-forward, each on the normed stream and added to it."""

    def __init__(self, w: Weights, il: int, c: Config) -> None:
        self.w, self.p, self.c = w, f"blk.{il}.", c
        full = il >= c.n_layer or (il + 1) % c.full_attention_interval == 0
        self.mixer: Mixer = (GatedAttention if full else GatedDeltaNet)(w, self.p, c)

    def step(self, x: Array, position: int) -> Array:
        w, p, eps = self.w, self.p, self.c.eps
        x = x + self.mixer.step(rms_norm(x, w(p + "attn_norm"), eps), position)
        return x + feed_forward(w, p, self.c, rms_norm(x, w(p + "post_attention_norm"), eps))


# the two models in a file -------------------------------------------------------------------------------------------


def lm_head(w: Weights) -> Array:
    """A model without a head of its own uses its embedding (tied weights)."""
    output = w.find("output")
    return w("token_embd") if output is None else output


class Trunk:
    """The model proper. It has no rollback: a wrong token needs a new Trunk."""

    def __init__(self, w: Weights) -> None:
        self.w, self.c = w, w.config()
        self.blocks = [Block(w, il, self.c) for il in range(self.c.n_layer)]
        self.n_past = 0

    def step(self, token: int) -> Row:
        """Read the next token."""
        x = self.w("token_embd")[token]
        for block in self.blocks:
            x = block.step(x, self.n_past)
        self.n_past += 1
        hidden = rms_norm(x, self.w("output_norm"), self.c.eps)
        return Row(x, hidden, lm_head(self.w) @ hidden)

    def run(self, tokens: list[int]) -> Row:
        """Read tokens; rows of the result are positions."""
        return stack([self.step(t) for t in tokens])


class NextnHead:
    """The draft head; `step` at position p takes x_p and the hidden row of position p - 1 (zeros at position 0)."""

    def __init__(self, w: Weights) -> None:
        self.w, self.c = w, w.config()
        self.p = f"blk.{self.c.n_layer}.nextn."
        self.block = Block(w, self.c.n_layer, self.c)

    def _own(self, name: str, fallback: Array) -> Array:
        """A tensor of the head, or the trunk's when the file has none."""
        own = self.w.find(self.p + name)
        return fallback if own is None else own

    def step(self, token: int, hidden: Array, position: int) -> Row:
        w, p, eps = self.w, self.p, self.c.eps
        embedding = self._own("embed_tokens", w("token_embd"))[token]
        both = np.concatenate([rms_norm(embedding, w(p + "enorm"), eps), rms_norm(hidden, w(p + "hnorm"), eps)])
        x = self.block.step(w(p + "eh_proj") @ both, position)
        hidden = rms_norm(x, self._own("shared_head_norm", w("output_norm")), eps)
        return Row(x, hidden, self._own("shared_head_head", lm_head(w)) @ hidden)

    def run(self, tokens: list[int], hidden: Array, first: int = 0) -> Row:
        """Read tokens at positions first, first + 1, … with one hidden row each; rows of the result are positions."""
        return stack([self.step(t, h, first + i) for i, (t, h) in enumerate(zip(tokens, hidden, strict=True))])

    def chain(self, token: int, hidden: Array, position: int, steps: int, tap: str = "post") -> Row:
        """Draft `steps` tokens after `token`, each step reading the arg-max and the hidden row of the one before.

        Qwen's heads were trained on hidden rows after the norm; `tap` "pre" hands on those before it.
        """
        rows = []
        for i in range(steps):
            rows.append(self.step(token, hidden, position + i))
            token, hidden = int(rows[-1].logits.argmax()), rows[-1].hidden if tap == "post" else rows[-1].pre_norm
        return stack(rows)


def stack(rows: list[Row]) -> Row:
    return Row(*(np.stack(part) for part in zip(*rows, strict=True)))


def shifted(hidden: Array) -> Array:
    """The rows that the head reads next to a prompt's tokens: zeros, then each position's hidden row but the last."""
    return np.vstack([np.zeros_like(hidden[:1]), hidden[:-1]])
