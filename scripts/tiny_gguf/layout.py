"""Which tensors a model has: names, shapes and the size of their random values."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .shapes import Shape


@dataclass(frozen=True)
class Tensor:
    """A tensor to write: `shape` is rows first; values are uniform around `mean` with standard deviation `std`."""

    name: str
    shape: tuple[int, ...]
    std: float
    mean: float = 0.0
    role: str = "plain"  # plain: always F32; body; embd; output
    exact: npt.NDArray[np.float32] | None = None  # these values instead
    diagonal: float = 0.0  # added to the elements [i, i]


def _matrix(name: str, *shape: int, gain: float = 1.0, role: str = "body") -> Tensor:
    return Tensor(name, shape, gain / math.sqrt(shape[-1]), role=role)


def _norm(name: str, n: int, mean: float = 1.0) -> Tensor:
    return Tensor(name, (n,), 0.2 * mean, mean)


def _delta_net(p: str, s: Shape) -> Iterator[Tensor]:
    """One gated-delta-net layer; `p` is the tensors' prefix."""
    value_dim, heads = s.value_heads * s.state_size, s.value_heads
    conv_dim = 2 * s.key_heads * s.state_size + value_dim
    yield _matrix(p + "attn_qkv.weight", conv_dim, s.n_embd)
    yield _matrix(p + "attn_gate.weight", value_dim, s.n_embd)
    yield Tensor(p + "ssm_conv1d.weight", (conv_dim, s.conv_kernel), 0.5)
    decay = -np.linspace(0.3, 4.0, heads, dtype=np.float32)
    step = np.geomspace(0.02, 0.3, heads).astype(np.float32)[::-1]
    yield Tensor(p + "ssm_a", (heads,), 0.0, exact=decay)
    yield Tensor(p + "ssm_dt.bias", (heads,), 0.0, exact=np.log(np.expm1(step)))
    if s.arch == "qwen3next":
        yield _matrix(p + "ssm_ba.weight", 2 * heads, s.n_embd, role="plain")
    else:
        yield _matrix(p + "ssm_alpha.weight", heads, s.n_embd, role="plain")
        yield _matrix(p + "ssm_beta.weight", heads, s.n_embd, role="plain")
    yield _norm(p + "ssm_norm.weight", s.state_size)
    yield _matrix(p + "ssm_out.weight", s.n_embd, value_dim, gain=1.0 - s.agreement)


def _attention(p: str, s: Shape) -> Iterator[Tensor]:
    yield _matrix(p + "attn_q.weight", 2 * s.n_head * s.head_dim, s.n_embd)  # per head: query, gate
    yield _matrix(p + "attn_k.weight", s.n_head_kv * s.head_dim, s.n_embd)
    yield _matrix(p + "attn_v.weight", s.n_head_kv * s.head_dim, s.n_embd)
    yield _norm(p + "attn_q_norm.weight", s.head_dim, 1.5)
    yield _norm(p + "attn_k_norm.weight", s.head_dim, 1.5)
    yield _matrix(p + "attn_output.weight", s.n_embd, s.n_head * s.head_dim, gain=2.0 * (1.0 - s.agreement))


def _feed_forward(p: str, s: Shape) -> Iterator[Tensor]:
    if not s.is_moe:
        yield _matrix(p + "ffn_gate.weight", s.n_ff, s.n_embd)
        yield _matrix(p + "ffn_up.weight", s.n_ff, s.n_embd)
        yield _matrix(p + "ffn_down.weight", s.n_embd, s.n_ff, gain=1.5 * (1.0 - s.agreement))
        return
    yield _matrix(p + "ffn_gate_inp.weight", s.n_expert, s.n_embd, gain=2.0, role="plain")
    yield _matrix(p + "ffn_gate_exps.weight", s.n_expert, s.n_ff_exp, s.n_embd)
    yield _matrix(p + "ffn_up_exps.weight", s.n_expert, s.n_ff_exp, s.n_embd)
    yield _matrix(p + "ffn_down_exps.weight", s.n_expert, s.n_embd, s.n_ff_exp, gain=1.5 * (1.0 - s.agreement))
    yield _matrix(p + "ffn_gate_inp_shexp.weight", s.n_embd, role="plain")
    yield _matrix(p + "ffn_gate_shexp.weight", s.n_ff_shexp, s.n_embd)
    yield _matrix(p + "ffn_up_shexp.weight", s.n_ff_shexp, s.n_embd)
    yield _matrix(p + "ffn_down_shexp.weight", s.n_embd, s.n_ff_shexp, gain=1.5 * (1.0 - s.agreement))


def _block(il: int, s: Shape, *, full: bool) -> Iterator[Tensor]:
    p = f"blk.{il}."
    yield _norm(p + "attn_norm.weight", s.n_embd)
    yield from _attention(p, s) if full else _delta_net(p, s)
    yield _norm(p + "post_attention_norm.weight", s.n_embd)
    yield from _feed_forward(p, s)


def tensors(s: Shape, part: str) -> Iterator[Tensor]:
    """All tensors of the file, in file order.

    Logits have a standard deviation of about 3, so that the largest stands clear of the second. A tied embedding is
    small against what the layers add, or the model would repeat its last token. With `agreement` the layers add less,
    and the head passes the token's embedding on: both then guess much by the last token alone, and often alike.
    """
    logit_std, embd_std = 3.0, 0.25 if s.tied else 0.5
    final = logit_std / (embd_std * math.sqrt(s.n_embd)) if s.tied else 1.0
    vocab = (s.n_vocab, s.n_embd)
    yield Tensor("token_embd.weight", vocab, embd_std, role="output" if s.tied else "embd")
    yield _norm("output_norm.weight", s.n_embd, final)
    if not s.tied:
        yield _matrix("output.weight", *vocab, gain=logit_std, role="output")
    if part in ("full", "trunk"):
        for il in range(s.n_layer):
            yield from _block(il, s, full=(il + 1) % s.full_attention_interval == 0)
    if part == "trunk":
        return
    yield from _block(s.n_layer, s, full=True)
    p = f"blk.{s.n_layer}.nextn."
    yield _norm(p + "enorm.weight", s.n_embd)
    yield _norm(p + "hnorm.weight", s.n_embd)
    mix = _matrix(p + "eh_proj.weight", s.n_embd, 2 * s.n_embd, gain=1.0 - s.agreement)
    yield dataclasses.replace(mix, diagonal=embd_std) if s.agreement else mix
    if "shared_head_norm" in s.head_tensors:
        yield _norm(p + "shared_head_norm.weight", s.n_embd, final)
    if "shared_head_head" in s.head_tensors:
        yield _matrix(p + "shared_head_head.weight", *vocab, gain=logit_std / final, role="output")
    if "embed_tokens" in s.head_tensors:
        yield Tensor(p + "embed_tokens.weight", vocab, embd_std, role="embd")
