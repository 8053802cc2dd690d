"""What a quantization costs: perplexity on a text, acceptance of its drafts, speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from nextn.context import Context, FloatArray
from nextn.errors import NextnError
from nextn.gguf.writer import Progress
from nextn.model import Model
from nextn.options import DraftParams
from nextn.speculator import Speculator

__all__ = ["Drafting", "measure_drafting", "perplexity"]

_SEQ_ID = 0
_ROWS = 64  # rows of logits at a time: a vocabulary of 250,000 takes 64 MB


@dataclass(frozen=True, kw_only=True)
class Drafting:
    """How drafting went.

    Args:
        draft_n: Drafted tokens.
        draft_n_accepted: Those that were accepted.
        tokens_per_second: Median over the prompts; None when every answer was too short.
    """

    draft_n: int
    draft_n_accepted: int
    tokens_per_second: float | None

    @property
    def acceptance_rate(self) -> float | None:
        """Accepted by drafted tokens; None when nothing was drafted."""
        return self.draft_n_accepted / self.draft_n if self.draft_n else None


def perplexity(
    model: Model, text: str, *, n_ctx: int = 512, n_threads: int | None = None, progress: Progress | None = None
) -> float:
    """Perplexity of a text: exp of the mean negative log-likelihood of its tokens.

    As in llama.cpp's llama-perplexity the text is cut into chunks of n_ctx, and the tokens of each chunk's second half
    count, so that each has at least n_ctx / 2 tokens before it.

    Raises:
        NextnError: The text has fewer than n_ctx tokens.
    """
    tokens = model.tokenize(text)
    starts = range(0, len(tokens) - n_ctx + 1, n_ctx)
    if not starts:
        raise NextnError(f"the text has {len(tokens)} tokens, fewer than one chunk of {n_ctx}; give a longer one")
    total, n_counted, half = 0.0, 0, n_ctx // 2
    with Context(model, n_ctx=n_ctx, n_batch=n_ctx, n_threads=n_threads) as context:
        for i, start in enumerate(starts):
            chunk = tokens[start : start + n_ctx]
            context.seq_rm(_SEQ_ID, -1, -1)
            context.decode(chunk[:half], outputs="none")
            for at in range(half, n_ctx - 1, _ROWS):
                end = min(at + _ROWS, n_ctx - 1)
                context.decode(chunk[at:end])
                total += _surprise(context.logits(), np.array(chunk[at + 1 : end + 1]))
                n_counted += end - at
            if progress:
                progress((i + 1) / len(starts))
    return math.exp(total / n_counted)


def _surprise(logits: FloatArray, tokens: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> float:
    """Sum of the negative log-likelihoods of tokens [n] under logits [n, n_vocab]."""
    top = logits.max(axis=1)
    sums = np.exp(logits - top[:, None], dtype=np.float64).sum(axis=1)
    chosen = logits[np.arange(len(tokens)), tokens]
    return float((np.log(sums) + top - chosen).sum())


def measure_drafting(
    model: Model, prompts: Sequence[str], *, n_draft: int = 3, max_tokens: int = 128, n_threads: int | None = None
) -> Drafting:
    """Answer prompts greedily with drafts of a fixed length.

    Args:
        model: A model with a draft head.
        prompts: Questions, which go through the chat template when the file has one.
        n_draft: Length of the drafts.
        max_tokens: Most tokens of an answer.
        n_threads: Threads; None takes the physical cores this process may use.
    """
    draft = DraftParams(n_max=n_draft, adaptive=False)
    drafted = accepted = 0
    speeds = []
    with Speculator(model, draft=draft, n_threads=n_threads) as speculator:
        for prompt in prompts:
            if model.chat_template is None:
                stats = speculator.generate(prompt, max_tokens=max_tokens).stats
            else:
                stats = speculator.chat([{"role": "user", "content": prompt}], max_tokens=max_tokens).stats
            drafted += stats.draft_n
            accepted += stats.draft_n_accepted
            if stats.tokens_per_second:
                speeds.append(stats.tokens_per_second)
    return Drafting(draft_n=drafted, draft_n_accepted=accepted, tokens_per_second=median(speeds) if speeds else None)
