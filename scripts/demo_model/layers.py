"""Layers of the demo model, for rows that hold several conversations.

One row of a batch packs several documents, told apart by `doc` ids. State,
convolution and attention never cross from one document to the next.
"""
# mypy: disable-error-code="import-not-found,no-any-return"
# mypy: allow-subclassing-any, allow-untyped-calls

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .config import Config
from .delta_net import delta_rule_chunked


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Masks that all layers of one forward pass share."""

    doc: Tensor  # [B, T] document ids
    start: Tensor  # [B, T] 1.0 where a document begins
    taps: list[Tensor]  # convolution taps 1..k-1: [B, T, 1] 1.0 where token t-i is in the same document
    attn: Tensor  # [B, 1, T, T] additive causal mask within documents
    cos: Tensor  # [T, rope_dim/2]
    sin: Tensor  # [T, rope_dim/2]


def make_packing(doc: Tensor, cfg: Config) -> Packing:
    """Masks for document ids [B, T]."""
    b, t = doc.shape
    taps = []
    for i in range(1, cfg.conv_kernel):
        back = F.pad(doc, (i, 0), value=-2)[:, :t]
        taps.append((doc == back).float().unsqueeze(-1))
    same = doc[:, :, None] == doc[:, None, :]
    causal = torch.ones(t, t, dtype=torch.bool, device=doc.device).tril()
    attn = torch.zeros(b, t, t, device=doc.device).masked_fill_(~(same & causal), float("-inf")).unsqueeze(1)
    freq = cfg.rope_base ** (-torch.arange(0, cfg.rope_dim, 2, device=doc.device).float() / cfg.rope_dim)
    angle = torch.arange(t, device=doc.device).float()[:, None] * freq[None, :]
    start = 1.0 - taps[0].squeeze(-1)
    return Packing(doc=doc, start=start, taps=taps, attn=attn, cos=angle.cos(), sin=angle.sin())


class RMSNorm(nn.Module):
    """Root-mean-square norm with a weight."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last dimension."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


def l2_normalize(x: Tensor, eps: float) -> Tensor:
    """Scale the last dimension to length one."""
    return x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + eps)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + rope_dim/2) of the leading rope_dim entries of x [B, H, T, D]."""
    h = cos.shape[-1]
    a, b, rest = x[..., :h], x[..., h : 2 * h], x[..., 2 * h :]
    return torch.cat([a * cos - b * sin, a * sin + b * cos, rest], dim=-1)


class DeltaNet(nn.Module):
    """Gated delta net: a short causal convolution, the delta rule, a gated norm."""

    RESET = -40.0  # log decay that empties the state at a document's first token

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        assert cfg.n_key_heads == cfg.n_value_heads
        self.cfg = cfg
        h, d = cfg.n_value_heads, cfg.state_size
        inner = h * d
        self.qkv = nn.Linear(cfg.n_embd, 3 * inner, bias=False)
        self.gate = nn.Linear(cfg.n_embd, inner, bias=False)
        self.alpha = nn.Linear(cfg.n_embd, h, bias=False)
        self.beta = nn.Linear(cfg.n_embd, h, bias=False)
        self.conv = nn.Parameter(torch.empty(3 * inner, cfg.conv_kernel))
        self.a_log = nn.Parameter(torch.log(torch.linspace(0.3, 4.0, h)))
        dt = torch.exp(torch.linspace(math.log(0.01), math.log(0.1), h))
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        self.norm = RMSNorm(d, cfg.eps)
        self.out = nn.Linear(inner, cfg.n_embd, bias=False)

    def convolve(self, x: Tensor, pk: Packing) -> Tensor:
        """Causal convolution over the tokens of each document."""
        t = x.shape[1]
        y = x * self.conv[:, -1]
        for i, same in enumerate(pk.taps, start=1):
            y = y + F.pad(x, (0, 0, i, 0))[:, :t] * (same * self.conv[:, -1 - i])
        return y

    def forward(self, x: Tensor, pk: Packing) -> Tensor:
        """Mix the tokens of x [B, T, C]."""
        c = self.cfg
        b, t, _ = x.shape
        h, d = c.n_value_heads, c.state_size
        y = F.silu(self.convolve(self.qkv(x), pk))
        q, k, v = (p.reshape(b, t, h, d).transpose(1, 2) for p in y.split(h * d, dim=-1))
        q = l2_normalize(q, c.eps) * d**-0.5
        k = l2_normalize(k, c.eps)
        beta = torch.sigmoid(self.beta(x)).transpose(1, 2)
        g = F.softplus(self.alpha(x) + self.dt_bias) * -self.a_log.exp()
        g = torch.where(pk.start.unsqueeze(-1) > 0, torch.full_like(g, self.RESET), g).transpose(1, 2)
        o = delta_rule_chunked(q, k, v, g, beta, c.chunk)
        o = self.norm(o.transpose(1, 2)) * F.silu(self.gate(x).reshape(b, t, h, d))
        return self.out(o.reshape(b, t, h * d))


class Attention(nn.Module):
    """Gated full attention: per head the query projection yields [query | gate]."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.q = nn.Linear(cfg.n_embd, cfg.n_head * cfg.head_dim * 2, bias=False)
        self.k = nn.Linear(cfg.n_embd, cfg.n_head_kv * cfg.head_dim, bias=False)
        self.v = nn.Linear(cfg.n_embd, cfg.n_head_kv * cfg.head_dim, bias=False)
        self.out = nn.Linear(cfg.n_head * cfg.head_dim, cfg.n_embd, bias=False)
        self.q_norm = RMSNorm(cfg.head_dim, cfg.eps)
        self.k_norm = RMSNorm(cfg.head_dim, cfg.eps)

    def project(self, x: Tensor, pk: Packing) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries, gates [B, T, H, D], keys and values; all but the gates [B, H, T, D]."""
        c = self.cfg
        b, t, _ = x.shape
        q, gate = self.q(x).reshape(b, t, c.n_head, 2, c.head_dim).unbind(3)
        k = self.k(x).reshape(b, t, c.n_head_kv, c.head_dim)
        v = self.v(x).reshape(b, t, c.n_head_kv, c.head_dim).transpose(1, 2)
        q = rope(self.q_norm(q).transpose(1, 2), pk.cos, pk.sin)
        k = rope(self.k_norm(k).transpose(1, 2), pk.cos, pk.sin)
        repeats = c.n_head // c.n_head_kv
        return q, gate, k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)

    def finish(self, o: Tensor, gate: Tensor) -> Tensor:
        """Gate what the heads read, o [B, H, T, D], and project it to [B, T, C]."""
        b, t = gate.shape[:2]
        o = o.transpose(1, 2).reshape(b, t, -1)
        return self.out(o * torch.sigmoid(gate.reshape(b, t, -1)))

    def forward(self, x: Tensor, pk: Packing) -> Tensor:
        """Mix the tokens of x [B, T, C]."""
        q, gate, k, v = self.project(x, pk)
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=pk.attn)
        return self.finish(o, gate)


class FeedForward(nn.Module):
    """SwiGLU feed-forward."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.gate = nn.Linear(cfg.n_embd, cfg.n_ff, bias=False)
        self.up = nn.Linear(cfg.n_embd, cfg.n_ff, bias=False)
        self.down = nn.Linear(cfg.n_ff, cfg.n_embd, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each token of x [B, T, C]."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Layer(nn.Module):
    """Norm, attention or delta net, norm, feed-forward; both halves on the residual stream."""

    def __init__(self, cfg: Config, *, full: bool) -> None:
        super().__init__()
        self.full = full
        self.attn_norm = RMSNorm(cfg.n_embd, cfg.eps)
        self.attn = Attention(cfg) if full else DeltaNet(cfg)
        self.ffn_norm = RMSNorm(cfg.n_embd, cfg.eps)
        self.ffn = FeedForward(cfg)

    def forward(self, x: Tensor, pk: Packing) -> Tensor:
        """Hidden states [B, T, C] after this layer."""
        x = x + self.attn(self.attn_norm(x), pk)
        return x + self.ffn(self.ffn_norm(x))
