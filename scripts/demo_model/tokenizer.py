"""Byte-level BPE with the pre-tokenizer that llama.cpp calls "qwen35"."""
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from .config import SPECIAL_TOKENS, UNUSED_PREFIX

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|"
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def new_tokenizer() -> Tokenizer:
    """An untrained tokenizer with the right pre-tokenizer."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    return tok


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train on the texts; the special tokens are the last entries of exactly `vocab_size`."""
    tok = new_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tok.train_from_iterator(texts, trainer)
    # few texts give few merges: entries that no text reaches fill up the rest
    missing = vocab_size - len(SPECIAL_TOKENS) - tok.get_vocab_size()
    tok.add_tokens([AddedToken(f"{UNUSED_PREFIX}{i}|>", normalized=False) for i in range(missing)])
    tok.add_special_tokens([AddedToken(s, normalized=False) for s in SPECIAL_TOKENS])
    assert tok.get_vocab_size() == vocab_size
    return tok
