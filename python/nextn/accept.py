"""How much of a draft is kept: pure functions, and the rules made of them.

Words, for a round whose target batch was [id_last, d_1 .. d_n] with n = n_draft:

    drafted     d_1 .. d_n, the tokens proposed by the drafter                          # [n_draft]
    logits      row i is the target's opinion on what follows d_i (row 0: id_last)      # [n_draft + 1, n_vocab]
    p           the target's distribution at a position: its row after the sampler's chain
    q           the distribution that a drafted token was drawn from, when it was drawn
    accepted    the longest run d_1 .. d_a that the rule keeps
    recovered   the target's own token in the place of d_(a+1), the first rejected one
    bonus       the target's token after d_n, when every drafted token was accepted

A round emits the accepted tokens and then one more, recovered or bonus: a + 1 tokens for one target decode. Rows after
the first rejected token speak about a text that does not exist and are never read.

The rules, all of them exact (the emitted text has the target's own distribution, whatever was drafted):

    greedy      the target takes its arg-max; a drafted token is accepted when it is that
    match       sample-and-match: the target draws a token as in plain decoding; a drafted token is accepted when it is
                that. The text for a seed is the plain one.
    ratio       d_i was drawn from q: it is accepted with probability min(1, p(d_i) / q(d_i)), and the recovered token
                is drawn from the normalised positive part of p - q (Leviathan et al. 2023, Chen et al. 2023). No rule
                accepts more of drawn tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from nextn.context import Context, FloatArray
from nextn.drafting import Draws
from nextn.options import SamplingParams
from nextn.sampling import Distribution, FloatRow, Grammar, Sampler

__all__ = [
    "AcceptRule",
    "Accepted",
    "GreedyRule",
    "MatchRule",
    "RatioRule",
    "accept_greedy",
    "accept_match",
    "accept_ratio",
    "make_rule",
]


class Accepted(NamedTuple):
    """What a rule decided.

    Attributes:
        n_accepted: How many of the drafted tokens are kept, from the first on.
        id_next: The token after them: recovered, or bonus when all were kept.
    """

    n_accepted: int
    id_next: int


def accept_greedy(draft: Sequence[int], target: Sequence[int]) -> Accepted:
    """Accept while the drafted token is the target's arg-max; target holds that of each row [n_draft + 1]."""
    n_accepted = 0
    for drafted, wanted in zip(draft, target, strict=False):  # the last of target follows the whole draft
        if drafted != wanted:
            break
        n_accepted += 1
    return Accepted(n_accepted, target[n_accepted])


def accept_match(draft: Sequence[int], logits: FloatArray, sampler: Sampler) -> Accepted:
    """Accept while the drafted token is the one that the target draws there.

    The sampler is called once per emitted token and in their order, so random numbers are used up as in plain decoding.
    """
    for i, drafted in enumerate(draft):
        token = sampler.sample(logits[i])
        if token != drafted:
            return Accepted(i, token)
    return Accepted(len(draft), sampler.sample(logits[len(draft)]))


def accept_ratio(
    draft: Sequence[int],
    logits: FloatArray,
    sampler: Sampler,
    q: Sequence[Distribution],
    *,
    is_cut: bool = False,
    saw: Callable[[FloatRow], object] = lambda p: None,
) -> Accepted:
    """Accept each drafted token with probability min(1, p / q).

    Args:
        draft: The drafted tokens [n_draft].
        logits: The target's rows [n_draft + 1, n_vocab].
        sampler: Gives p at each position; it is told of every emitted token, in their order.
        q: What each token was drawn from, at least n_draft; beyond it, all the probability was on the drafted token.
        is_cut: One more token was drawn, from q[n_draft], and left out because p gives it nothing: it counts as
            rejected, so that the last token is a recovered one.
        saw: Is told of each q that a token was judged by what p gives to its ids.
    """
    random = sampler.random
    for i, drafted in enumerate(draft):
        p = sampler.distribution(logits[i])
        q_here = q[i] if i < len(q) else Distribution.certain(drafted)
        if i < len(q):
            saw(p.of_ids(q_here.ids))
        if random.random() * q_here[drafted] >= p[drafted]:
            return Accepted(i, _draw(sampler, p.minus(q_here)))
        sampler.note(drafted)
    n_draft = len(draft)
    p = sampler.distribution(logits[n_draft])
    return Accepted(n_draft, _draw(sampler, p.minus(q[n_draft]) if is_cut and len(q) > n_draft else p))


def _draw(sampler: Sampler, p: Distribution) -> int:
    """Draw a token that is emitted."""
    token = p.draw(sampler.random.random())
    sampler.note(token)
    return token


class AcceptRule(Protocol):
    """A rule with the state of one request."""

    by_argmax: bool
    """Whether it reads the arg-max of each row alone, so that no row need be copied."""
    draws: Draws | None
    """How the drafter shall draw its tokens; None: it takes its best ones."""
    seen: Sequence[FloatRow]
    """What the target gave to the ids of q, for each token that was judged last by its q."""

    def cut(self, draft: Sequence[int]) -> Sequence[int]:
        """The part of a draft [n_draft] that is worth verifying: what follows could not be accepted."""
        ...

    def __call__(self, draft: Sequence[int], ctx_tgt: Context, q: Sequence[Distribution]) -> Accepted:
        """Judge a draft [n_draft] by the target's last decode, of n_draft + 1 rows; q as in accept_ratio()."""
        ...


class GreedyRule:
    """Nothing but the arg-max of the rows, which the engine finds without handing out a row."""

    by_argmax = True
    draws: Draws | None = None
    seen: Sequence[FloatRow] = ()

    def cut(self, draft: Sequence[int]) -> Sequence[int]:
        """All of it."""
        return draft

    def __call__(self, draft: Sequence[int], ctx_tgt: Context, q: Sequence[Distribution]) -> Accepted:
        """See accept_greedy()."""
        return accept_greedy(draft, ctx_tgt.argmax())


class MatchRule:
    """Sample-and-match, or greedy when the sampler is."""

    by_argmax = False
    draws: Draws | None = None
    seen: Sequence[FloatRow] = ()

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def cut(self, draft: Sequence[int]) -> Sequence[int]:
        """Up to the first token that the grammar forbids."""
        return draft[: self._sampler.n_possible(draft)]

    def __call__(self, draft: Sequence[int], ctx_tgt: Context, q: Sequence[Distribution]) -> Accepted:
        """See accept_match()."""
        return accept_match(draft, ctx_tgt.logits_view(), self._sampler)


class RatioRule:
    """Acceptance by probability ratio, of tokens drawn as `draws` says; best tokens are right, too."""

    by_argmax = False

    def __init__(self, sampler: Sampler, draws: Draws) -> None:
        self.draws: Draws | None = draws
        self.seen: Sequence[FloatRow] = ()
        self._sampler = sampler
        self._is_cut = False

    def cut(self, draft: Sequence[int]) -> Sequence[int]:
        """Up to the first token that the grammar forbids."""
        n_possible = self._sampler.n_possible(draft)
        self._is_cut = n_possible < len(draft)
        return draft[:n_possible]

    def __call__(self, draft: Sequence[int], ctx_tgt: Context, q: Sequence[Distribution]) -> Accepted:
        """See accept_ratio()."""
        is_cut, self._is_cut = self._is_cut, False
        seen: list[FloatRow] = []
        self.seen = seen
        return accept_ratio(draft, ctx_tgt.logits_view(), self._sampler, q, is_cut=is_cut, saw=seen.append)


def make_rule(params: SamplingParams, prompt: Iterable[int] = (), grammar: Grammar | None = None) -> AcceptRule:
    """The rule for these options, with a sampler of its own for one request.

    Args:
        params: The options; accept="auto" takes ratio when tokens are drawn, unless there is a grammar: p is needed as
            a whole then, and to ask the grammar about every token of the vocabulary takes longer than a decode.
        prompt: The prompt [n_prompt], for the penalties.
        grammar: What the text must conform to.
    """
    if params.temperature == 0.0 and grammar is None and not params.changes_logits:
        return GreedyRule()
    sampler = Sampler(params, prompt, grammar=grammar)
    ratio = params.accept == "ratio" or (params.accept == "auto" and grammar is None)
    if params.temperature == 0.0 or not ratio:
        return MatchRule(sampler)
    # the draws of the drafter and of the rule must not depend on each other
    seed = int(np.random.SeedSequence(params.seed, spawn_key=(1,)).generate_state(1, np.uint64)[0])
    return RatioRule(sampler, Draws.like(params, seed))
