"""The gated delta rule, one token at a time and in parallel over chunks.

Source: Yang, Kautz and Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with Delta Rule" (2024).
"""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import torch
from torch import Tensor


def delta_rule_recurrent(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor) -> Tensor:
    """Reference for `delta_rule_chunked`: the recurrence as it is defined.

    Args:
        q: Scaled, normalized queries [B, H, T, D].
        k: Normalized keys [B, H, T, D].
        v: Values [B, H, T, D].
        g: Log decay [B, H, T].
        beta: Writing strength in 0..1 [B, H, T].

    Returns:
        What the queries read from the state [B, H, T, D].
    """
    state = q.new_zeros(*q.shape[:2], q.shape[-1], v.shape[-1])
    out = []
    for t in range(q.shape[2]):
        state = state * g[:, :, t, None, None].exp()
        read = torch.einsum("bhkv,bhk->bhv", state, k[:, :, t])
        delta = (v[:, :, t] - read) * beta[:, :, t, None]
        state = state + k[:, :, t, :, None] * delta[:, :, None, :]
        out.append(torch.einsum("bhkv,bhk->bhv", state, q[:, :, t]))
    return torch.stack(out, dim=2)


def delta_rule_chunked(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, chunk: int) -> Tensor:
    """The same as `delta_rule_recurrent`, in parallel within chunks; T must be a multiple of `chunk`."""
    b, h, t, dk = q.shape
    dv = v.shape[-1]
    n = t // chunk
    q, k, v = (x.reshape(b * h, n, chunk, x.shape[-1]) for x in (q, k, v))
    total = g.reshape(b * h, n, chunk).cumsum(-1)  # log decay since the chunk's start
    beta = beta.reshape(b * h, n, chunk, 1)
    lower = torch.ones(chunk, chunk, dtype=torch.bool, device=q.device).tril()
    decay = (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(~lower, float("-inf")).exp()
    kb = k * beta
    kt = k.transpose(-1, -2)
    # each token's delta depends on the deltas before it in the chunk: a triangular system
    a = (kb @ kt) * decay
    rhs = torch.cat([v * beta, kb * total.exp().unsqueeze(-1)], dim=-1)
    solved = torch.linalg.solve_triangular(a.tril(-1), rhs, upper=False, unitriangular=True)
    u, w = solved[..., :dv], solved[..., dv:]
    qk = (q @ kt) * decay
    qg = q * total.exp().unsqueeze(-1)
    end = total[..., -1:]
    kg = (k * (end - total).exp().unsqueeze(-1)).transpose(-1, -2)
    carried = end.exp().unsqueeze(-1)
    state = q.new_zeros(b * h, dk, dv)
    out = []
    for i in range(n):
        delta = u[:, i] - w[:, i] @ state
        out.append(qg[:, i] @ state + qk[:, i] @ delta)
        state = state * carried[:, i] + kg[:, i] @ delta
    return torch.stack(out, dim=1).reshape(b, h, t, dv)
