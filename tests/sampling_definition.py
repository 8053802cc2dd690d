"""What the steps of sampling mean, token by token: {id: logit} in, {id: probability} out. And the chi-square test."""

from __future__ import annotations

import math

import numpy as np


def probabilities(logits, temperature=1.0):
    largest = max(logits.values())
    weights = {i: math.exp((x - largest) / temperature) for i, x in logits.items()}
    total = math.fsum(weights.values())
    return {i: w / total for i, w in weights.items()}


def take(order, p, enough, strictly=False):
    kept, total = [], 0.0
    for i in order:
        kept.append(i)
        total += p[i]
        if total > enough or (total == enough and not strictly):
            break
    return kept


def expected(row, params, before=()):
    logits = {i: float(np.float32(x)) for i, x in enumerate(row)}
    for i, bias in params.logit_bias.items():
        logits[i] += bias
    last = list(before)[-params.repeat_last_n :] if params.repeat_last_n > 0 else list(before)
    if params.repeat_last_n == 0:
        last = []
    for i in set(last):
        x = logits[i]
        x = x * params.repeat_penalty if x <= 0 else x / params.repeat_penalty
        logits[i] = x - last.count(i) * params.frequency_penalty - params.presence_penalty
    by_logit = sorted(logits, key=lambda i: (-logits[i], i))
    if params.top_k:
        by_logit = by_logit[: params.top_k]
    logits = {i: logits[i] for i in by_logit}
    if params.typical_p < 1:
        p = probabilities(logits)
        entropy = -sum(x * math.log(x) for x in p.values() if x > 0)
        order = sorted(p, key=lambda i: (abs(-math.log(p[i]) - entropy), i))
        logits = {i: logits[i] for i in take(order, p, params.typical_p, strictly=True)}
    if params.top_p < 1:
        p = probabilities(logits)
        logits = {i: logits[i] for i in take(sorted(p, key=lambda i: (-p[i], i)), p, params.top_p)}
    if params.min_p > 0:
        largest = max(logits.values())
        logits = {i: x for i, x in logits.items() if x >= largest + math.log(params.min_p)}
    return probabilities(logits, params.temperature)


def chi_square_p(counts, expected):
    """Probability of counts at least this far from what is expected, both [n_cells]."""
    x, df = float(((counts - expected) ** 2 / expected).sum()), len(expected) - 1
    # the closed forms for whole degrees of freedom: Poisson sums, from erfc when they are odd
    half, total = x / 2, math.erfc(math.sqrt(x / 2)) if df % 2 else 0.0
    for k in range(df // 2):
        total += math.exp((k + df % 2 / 2) * math.log(half) - half - math.lgamma(k + df % 2 / 2 + 1))
    return min(total, 1.0)
