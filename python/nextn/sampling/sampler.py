"""The sampler of one request: chain, grammar and random numbers, and the tokens so far."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from nextn.errors import GrammarError
from nextn.options import SamplingParams
from nextn.sampling.chain import Chain
from nextn.sampling.distribution import Distribution
from nextn.sampling.grammar import Grammar
from nextn.sampling.rows import FloatRow, top_positions

__all__ = ["Sampler"]

_FIRST_TRIES = 4  # tokens that are shown to the grammar one by one, before it looks at all
_FIRST_LOOKS = 64  # when greedy: how many of the best it looks at, before it looks at all


class Sampler:
    """Chooses tokens for one text. What it chose, or was told of with note(), is what the next choice depends on.

    Without a grammar sample() uses one random number per call, and with one as many as the row asks for. That is what
    makes text that is sampled by it the same with and without speculation: the same rows meet the same numbers.

    A grammar forbids tokens of the distribution that the chain gives; when it forbids all of them, the chain is applied
    to the logits of the tokens that it allows.

    Args:
        params: The chain's parameters and the seed.
        prompt: The prompt [n_prompt]: penalties count its last tokens.
        grammar: What the text must conform to; the sampler moves it on.
        logit_bias: More biases, besides those of params; -inf bans a token.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt: Iterable[int] = (),
        *,
        grammar: Grammar | None = None,
        logit_bias: Mapping[int, float] | None = None,
    ) -> None:
        self.random = np.random.default_rng(params.seed)
        self._chain = Chain(params, prompt, logit_bias)
        self._grammar = grammar
        self._greedy = params.temperature == 0.0

    def sample(self, logits: FloatRow) -> int:
        """Choose the next token from logits [n_vocab], and note it."""
        logits = self._chain.adjusted(logits)
        p = self._chain.distribution(logits)
        token = self._first_allowed(p) if self._grammar else p.draw(self.random.random())
        if token is None:
            token = self._allowed(p, logits).draw(self.random.random())
        self.note(token)
        return token

    def distribution(self, logits: FloatRow) -> Distribution:
        """The distribution of the next token for logits [n_vocab]."""
        logits = self._chain.adjusted(logits)
        p = self._chain.distribution(logits)
        return self._allowed(p, logits) if self._grammar else p

    def note(self, token: int) -> None:
        """A token was added to the text."""
        self._chain.note(token)
        if self._grammar:
            self._grammar.accept(token)

    def n_possible(self, tokens: Iterable[int]) -> int:
        """How many of these next tokens the grammar would let pass, from the first on."""
        n = 0
        ahead = self._grammar.clone() if self._grammar else None
        for token in tokens:
            if ahead and not ahead.allows(token):
                break
            n += 1
            if ahead:
                ahead.accept(token)
        return n

    def _first_allowed(self, p: Distribution) -> int | None:
        """Draw from p until the grammar allows it: what is allowed has its probabilities. None after a few tries."""
        assert self._grammar
        for _ in range(1 if p.ids.size == 1 else _FIRST_TRIES):
            token = p.draw(self.random.random())
            if self._grammar.allows(token):
                return token
        return None

    def _allowed(self, p: Distribution, logits: FloatRow) -> Distribution:
        """What of p the grammar allows; when that is nothing, what the chain gives among all that it allows."""
        assert self._grammar
        within = p.only(self._grammar.allowed(p.ids))
        if within is not None:
            return within
        if self._greedy:
            looks = [_FIRST_LOOKS, logits.size]
        else:
            looks = [logits.size]
        for n_looks in looks:
            ids = np.sort(top_positions(logits, n_looks)) if n_looks < logits.size else np.arange(logits.size)
            ids = ids[self._grammar.allowed(ids)]
            ids = ids[np.isfinite(logits[ids])]
            if ids.size:
                return self._chain.distribution(logits[ids], ids)
        raise GrammarError("no token is left to go on with: the grammar and logit_bias together forbid all of them")
