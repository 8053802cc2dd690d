"""How much of a draft is kept: pure functions over arrays.

Words, for a round whose target batch was [id_last, d_1 .. d_n] with n = n_draft:

    drafted     d_1 .. d_n, the tokens proposed by the drafter                          # [n_draft]
    logits      row i is the target's opinion on what follows d_i (row 0: id_last)      # [n_draft + 1, n_vocab]
    accepted    the longest run d_1 .. d_a that the target would have produced itself
    recovered   the target's own token in the place of d_(a+1), the first rejected one
    bonus       the target's token after d_n, when every drafted token was accepted

A round emits the accepted tokens and then one more, recovered or bonus: a + 1 tokens for one target decode. Rows after
the first rejected token speak about a text that does not exist and are never read.

Both rules here are sample-and-match: the target chooses a token at each position exactly as in plain decoding, and a
drafted token is accepted when it is that token. The emitted text is therefore the plain one, whatever was drafted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from nextn.context import FloatArray
from nextn.drafting import IntArray
from nextn.options import SamplingParams
from nextn.sampling import GreedySampler, Sampler, argmax_rows, make_sampler

__all__ = ["AcceptRule", "Accepted", "accept_greedy", "accept_sampled", "make_rule"]


class Accepted(NamedTuple):
    """What a rule decided.

    Attributes:
        n_accepted: How many of the drafted tokens are kept, from the first on.
        id_next: The token after them: recovered, or bonus when all were kept.
    """

    n_accepted: int
    id_next: int


AcceptRule = Callable[[IntArray, FloatArray], Accepted]
"""A rule: draft [n_draft] and logits [n_draft + 1, n_vocab] to what is accepted."""


def accept_greedy(draft: IntArray, logits: FloatArray) -> Accepted:
    """Accept while the drafted token is the target's arg-max; of equal logits the lowest id is the arg-max."""
    target = argmax_rows(logits)  # [n_draft + 1]
    n_accepted = 0
    for drafted, wanted in zip(draft.tolist(), target, strict=False):  # the last of target follows the whole draft
        if drafted != wanted:
            break
        n_accepted += 1
    return Accepted(n_accepted, target[n_accepted])


def accept_sampled(draft: IntArray, logits: FloatArray, sampler: Sampler) -> Accepted:
    """Accept while the drafted token is the one that the target draws there.

    The sampler is called once per emitted token and in their order, so random numbers are used up as in plain decoding.
    """
    for i, drafted in enumerate(draft.tolist()):
        token = sampler.sample(logits[i])
        if token != drafted:
            return Accepted(i, token)
    return Accepted(len(draft), sampler.sample(logits[len(draft)]))


def make_rule(params: SamplingParams) -> AcceptRule:
    """The rule for these options, with a sampler of its own for one request."""
    sampler = make_sampler(params)
    if isinstance(sampler, GreedySampler):
        return accept_greedy
    return lambda draft, logits: accept_sampled(draft, logits, sampler)
