"""Acceptance by given rates: entry j (from 1) is the share of rounds in which the first j tokens are all accepted."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["RATES_VOCAB", "conditional", "shares"]

RATES_VOCAB = 32768
"""Ids that our head scores then, as it starts with on any model: random text would widen the shortlist without end."""


def conditional(rates: Sequence[float], position: int) -> float:
    """The chance that the token at a position (from 0) is accepted when those before it are; the last rate goes on."""
    if position >= len(rates):
        return rates[-1] / rates[-2] if len(rates) > 1 else rates[-1]
    return rates[position] / rates[position - 1] if position else rates[0]


def shares(rates: Sequence[float], length: int) -> list[float]:
    """The rates of a draft of this length, as llama-server's --spec-synth-rates takes them."""
    found, share = [], 1.0
    for position in range(length):
        share *= conditional(rates, position)
        found.append(share)
    return found
