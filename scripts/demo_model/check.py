"""Self-checks of the PyTorch model before a long training."""
# mypy: disable-error-code="import-not-found"
# mypy: allow-untyped-calls

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from .config import Config
from .delta_net import delta_rule_chunked, delta_rule_recurrent
from .layers import l2_normalize, make_packing
from .model import Model

CFG = Config(vocab_size=128, n_layer=4)


def largest(difference: Tensor) -> float:
    """The largest absolute entry."""
    return float(difference.abs().max())


def require(what: str, error: float, limit: float) -> None:
    """Print one check and fail if the error is too large."""
    print(f"{what}: {error:.1e}")
    if not error < limit:
        raise RuntimeError(f"{what}: {error:.1e} is not below {limit:.0e}")


def check_delta_rule() -> None:
    """The chunked delta rule equals the recurrence, also with similar keys and a reset."""
    q, k, v = (torch.randn(2, 4, 128, 64) for _ in range(3))
    q, k = l2_normalize(q, 1e-6) / 8, l2_normalize(k + 2 * k[:, :, :1], 1e-6)
    g, beta = -torch.rand(2, 4, 128), torch.rand(2, 4, 128)
    g[:, :, 50] = -40.0
    error = largest(delta_rule_chunked(q, k, v, g, beta, 32) - delta_rule_recurrent(q, k, v, g, beta))
    require("chunked against recurrent", error, 1e-5)


def check_packing(model: Model, tokens: Tensor) -> None:
    """A document gives the same in a row with another one as alone."""
    doc = torch.cat([torch.zeros(1, 40), torch.ones(1, 56)], dim=1).long()
    alone_doc = torch.cat([torch.zeros(1, 56), -torch.ones(1, 8)], dim=1).long()
    both = model.trunk(tokens, make_packing(doc, CFG))
    alone = model.trunk(F.pad(tokens[:, 40:], (0, 8)), make_packing(alone_doc, CFG))
    require("packed against alone", largest(both[:, 40:] - alone[:, :56]), 1e-3)


def check_chain(model: Model, tokens: Tensor) -> None:
    """A chain equals drafting with a growing cache: hide everything that a draft cannot see."""
    packing = make_packing(torch.zeros(1, 96).long(), CFG)
    h = model.trunk(tokens, packing)
    chain = model.nextn_chain(tokens, h, packing, 4)
    begin = 70  # the draft starts here; its last step sits at begin + 3
    hidden_tokens, hidden_h = tokens.clone(), h.clone()
    hidden_tokens[:, begin + 4 :] = 0
    hidden_h[:, begin:] = 1e3
    again = model.nextn_chain(hidden_tokens, hidden_h, packing, 4)
    for j, (rows, rows_again) in enumerate(zip(chain, again, strict=True)):
        require(f"chain step {j}", largest(rows[:, begin + j] - rows_again[:, begin + j]), 1e-4)


def check_gradients(model: Model, tokens: Tensor) -> None:
    """Every parameter gets a finite gradient."""
    packing = make_packing(torch.zeros(1, 96).long(), CFG)
    h = model.trunk(tokens, packing)
    states = [h, *model.nextn_chain(tokens, h.detach(), packing, 4)]
    torch.stack([model.logits(o).logsumexp(-1).mean() for o in states]).sum().backward()
    bad = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    if bad:
        raise RuntimeError(f"no finite gradient: {', '.join(bad)}")
    print("all gradients are finite")


def check() -> None:
    """Run all checks; raises RuntimeError at the first that fails."""
    torch.manual_seed(0)
    check_delta_rule()
    model = Model(CFG)
    tokens = torch.randint(0, CFG.vocab_size, (1, 96))
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(3)  # larger weights than at the start of training make errors visible
        check_packing(model, tokens)
        check_chain(model, tokens)
    check_gradients(model, tokens)
