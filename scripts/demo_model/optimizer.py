"""Momentum with orthogonalized updates for weight matrices, Adam for the rest.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024); its Newton-Schulz coefficients.
"""
# mypy: disable-error-code="import-not-found,no-any-return"
# mypy: allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

NOT_MATRICES = ("embed", "conv", "alpha", "beta")
MOMENTUM = 0.95


def orthogonalize(g: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration on a stack of matrices [N, R, C]: about the nearest orthogonal ones."""
    tall = g.shape[-2] > g.shape[-1]
    x = g.transpose(-1, -2) if tall else g
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.transpose(-1, -2)
        b = -4.7750 * a + 2.0315 * (a @ a)
        x = 3.4445 * x + b @ x
    return x.transpose(-1, -2) if tall else x


class Optimizer:
    """One optimizer over all given parameters."""

    def __init__(
        self, named: Iterable[tuple[str, nn.Parameter]], *, lr_matrix: float, lr_other: float, decay: float = 0.02
    ) -> None:
        self.matrices: dict[tuple[int, ...], list[nn.Parameter]] = {}  # by shape: stacks are quicker
        self.other: list[nn.Parameter] = []
        for name, p in named:
            if p.dim() == 2 and not any(s in name for s in NOT_MATRICES):
                self.matrices.setdefault(tuple(p.shape), []).append(p)
            else:
                self.other.append(p)
        self.lr_matrix, self.lr_other, self.decay = lr_matrix, lr_other, decay
        self.momentum = {p: torch.zeros_like(p) for group in self.matrices.values() for p in group}
        self.adam = torch.optim.Adam(self.other, lr=lr_other, betas=(0.9, 0.98), eps=1e-9)

    @torch.no_grad()
    def step(self, scale: float) -> None:
        """Update the parameters from their gradients; `scale` is the learning rate's factor."""
        lr = self.lr_matrix * scale
        for shape, params in self.matrices.items():
            updates = []
            for p in params:
                assert p.grad is not None
                m = self.momentum[p].mul_(MOMENTUM).add_(p.grad, alpha=1 - MOMENTUM)
                updates.append(p.grad.lerp(m, MOMENTUM))
            size = max(1.0, shape[0] / shape[1]) ** 0.5
            for p, u in zip(params, orthogonalize(torch.stack(updates)), strict=True):
                p.mul_(1 - lr * self.decay).add_(u, alpha=-lr * size)
        for group in self.adam.param_groups:
            group["lr"] = self.lr_other * scale
        self.adam.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for group in self.matrices.values():
            for p in group:
                p.grad = None
        self.adam.zero_grad(set_to_none=True)
