"""The demo model in PyTorch: a qwen35 trunk and one NextN layer, independent of the nextn package.

It computes what llama.cpp's `qwen35` graph computes. Weights have the form
that the GGUF file wants, so the exporter only has to rename them.
"""
# mypy: disable-error-code="import-not-found,no-any-return"
# mypy: allow-subclassing-any, allow-untyped-calls

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from .config import Config
from .layers import Attention, Layer, Packing, RMSNorm

KeysAndValues = tuple[Tensor, Tensor]  # [B, H, T, D] each


class NextN(nn.Module):
    """The draft head, applied to its own output again and again.

    At position p it reads the token x_p and a hidden state for position p-1
    (the trunk's normed output, or this head's own output further down a draft
    chain) and predicts x_{p+1}.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.enorm = RMSNorm(cfg.n_embd, cfg.eps)
        self.hnorm = RMSNorm(cfg.n_embd, cfg.eps)
        self.eh_proj = nn.Linear(2 * cfg.n_embd, cfg.n_embd, bias=False)
        self.layer = Layer(cfg, full=True)
        self.head_norm = RMSNorm(cfg.n_embd, cfg.eps)

    def chain_attention(self, q: Tensor, pk: Packing, cache: list[KeysAndValues]) -> Tensor:
        """What the last step's queries read, [B, H, T, D]; `cache` ends with the last step's own rows.

        Step j of a draft that began at position p sits at position p + j. It sees the
        rows of step 0 (true hidden states) up to p, and of each later step just the
        row on its own chain: exactly what a drafting engine's KV cache holds.
        """
        (k0, v0), later = cache[0], cache[1:]
        j, t = len(later), q.shape[2]
        if j == 0:
            return F.scaled_dot_product_attention(q, k0, v0, attn_mask=pk.attn)
        scale = self.cfg.head_dim**-0.5
        # the causal mask, j rows further down: step 0 is visible up to t - j
        mask = F.pad(pk.attn, (0, 0, j, 0), value=float("-inf"))[:, :, :t]
        scores = [q @ k0.transpose(-1, -2) * scale + mask]
        values = []
        for i, (k, v) in enumerate(later, start=1):
            k, v = (F.pad(x, (0, 0, j - i, 0))[:, :, :t] for x in (k, v))
            scores.append((q * k).sum(-1, keepdim=True) * scale)
            values.append(v)
        p = torch.cat(scores, dim=-1).softmax(-1)
        o = p[..., :t] @ v0
        for i, v in enumerate(values):
            o = o + p[..., t + i : t + i + 1] * v
        return o

    def forward(self, emb: Tensor, h_prev: Tensor, pk: Packing, cache: list[KeysAndValues]) -> Tensor:
        """One chain step: hidden states [B, T, C]; `cache` grows by this step's rows."""
        x = self.eh_proj(torch.cat([self.enorm(emb), self.hnorm(h_prev)], dim=-1))
        attn = self.layer.attn
        assert isinstance(attn, Attention)
        q, gate, k, v = attn.project(self.layer.attn_norm(x), pk)
        cache.append((k, v))
        x = x + attn.finish(self.chain_attention(q, pk, cache), gate)
        x = x + self.layer.ffn(self.layer.ffn_norm(x))
        return self.head_norm(x)


class Model(nn.Module):
    """Trunk and draft head over one embedding, which is the LM head too."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg = cfg
        self.embed = nn.Embedding(cfg.vocab_size, cfg.n_embd)
        self.layers = nn.ModuleList(Layer(cfg, full=cfg.is_full(i)) for i in range(cfg.n_layer))
        self.norm = RMSNorm(cfg.n_embd, cfg.eps)
        self.nextn = NextN(cfg)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Random weights; norms and the delta nets' decay keep what their constructors set."""
        for name, p in self.named_parameters():
            if name.endswith("conv"):
                nn.init.normal_(p, std=0.25)
                with torch.no_grad():
                    p[:, -1] += 0.5
            elif p.dim() == 2:
                std = 0.02 if "embed" in name else 0.7 * p.shape[1] ** -0.5
                if name.endswith(("out.weight", "down.weight")):
                    std /= math.sqrt(2 * self.cfg.n_layer)
                if name.endswith(("alpha.weight", "beta.weight")):
                    std = 0.02
                nn.init.normal_(p, std=std)

    def trunk(self, tokens: Tensor, pk: Packing) -> Tensor:
        """Hidden states after the final norm, [B, T, C]."""
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x, pk)
        return self.norm(x)

    def logits(self, h: Tensor) -> Tensor:
        """Scores of all tokens, [..., V], from hidden states [..., C]."""
        return h @ self.embed.weight.t()

    def shift(self, h: Tensor, pk: Packing) -> Tensor:
        """Move h[p] to position p+1; zero at each document's first token."""
        return F.pad(h, (0, 0, 1, 0))[:, : h.shape[1]] * pk.taps[0]

    def nextn_chain(self, tokens: Tensor, h: Tensor, pk: Packing, steps: int) -> list[Tensor]:
        """Hidden states of draft chains that start at every position; entry j at position t predicts x_{t+1}."""
        emb = self.embed(tokens).detach()
        cache: list[KeysAndValues] = []
        chain = []
        for _ in range(steps):
            h = self.nextn(emb, self.shift(h, pk), pk, cache)
            chain.append(h)
        return chain
