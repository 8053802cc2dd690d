"""The tokenizer and the chat template of a file: whether the engine can read them.

Source: llama.cpp's src/llama-vocab.cpp, which asserts that tokens are distinct, and the recursive-descent parser of
templates in its common/jinja, whose depth only the template bounds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from nextn.gguf.cursor import Cursor, open_file, quote
from nextn.gguf.findings import Finding, damage
from nextn.gguf.reader import GgufHeader, MetadataArray
from nextn.gguf.types import ValueType

MAX_TEMPLATE_BYTES = 1 << 20  # published templates have up to 40 kB
MAX_TEMPLATE_DEPTH = (
    1000  # blocks, brackets and operators in each other; the parser's stack ends between 1,000 and 20,000
)

_PREFIX = "tokenizer.ggml."
_ARRAYS: dict[str, tuple[ValueType, ...]] = {
    "tokens": (ValueType.STRING,),
    "merges": (ValueType.STRING,),
    "token_type": (ValueType.INT32,),
    "scores": (ValueType.FLOAT32, ValueType.INT32),
}
_SPECIAL = ("bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "mask")  # (sic) as in the format
_WITHOUT_TOKENS = ("none", "no_vocab")


def check_tokenizer(header: GgufHeader, n_rows: int | None, *, needed: bool) -> Iterator[Finding]:
    """Look at the vocabulary.

    Args:
        header: Of the first file.
        n_rows: Rows of the token embedding, None when the file has none.
        needed: Whether the architecture cannot be without one.
    """
    model = header.metadata.get(_PREFIX + "model")
    if model is None and not needed:
        return
    if not isinstance(model, str):
        yield damage("tokenizer", f"metadata {quote(_PREFIX + 'model')} must be a text: it names the kind of tokenizer")
        return
    if model in _WITHOUT_TOKENS:
        return
    findings = list(_check_arrays(header, n_rows))
    yield from findings
    if not findings:
        yield from _check_tokens(header, model)
        yield from _check_special(header)


def _check_arrays(header: GgufHeader, n_rows: int | None) -> Iterator[Finding]:
    """The arrays: their kinds, and that they are as long as the vocabulary."""
    tokens = header.metadata.get(_PREFIX + "tokens")
    if not isinstance(tokens, MetadataArray) or tokens.count == 0:
        yield damage("tokenizer", f"metadata {quote(_PREFIX + 'tokens')} must be an array of texts")
        return
    for name, kinds in _ARRAYS.items():
        value = header.metadata.get(_PREFIX + name)
        if value is None:
            continue
        if not isinstance(value, MetadataArray) or value.type not in kinds:
            allowed = " or ".join(kind.name.lower() for kind in kinds)
            yield damage("tokenizer", f"metadata {quote(_PREFIX + name)} must be an array of {allowed}")
        elif name in ("token_type", "scores") and value.count < tokens.count:
            yield damage("tokenizer", f"{_PREFIX}{name} has {value.count:,} entries for {tokens.count:,} tokens")
    if n_rows is not None and n_rows != tokens.count:
        yield damage("tokenizer", f"token_embd.weight has {n_rows:,} rows for {tokens.count:,} tokens")


def _check_tokens(header: GgufHeader, model: str) -> Iterator[Finding]:
    """Byte-level BPE needs its merges; no token may occur twice."""
    if model == "gpt2" and _PREFIX + "merges" not in header.metadata:
        yield damage("tokenizer", f"metadata {quote(_PREFIX + 'merges')} is missing: byte-level BPE needs it")
    twice = _find_twice(header)
    if twice is not None:
        shown = quote(twice.decode(errors="replace"))
        yield damage("duplicate-token", f"token {shown} occurs twice in the vocabulary; the engine aborts")


def _find_twice(header: GgufHeader) -> bytes | None:
    """A token that occurs twice. Only hashes are kept, 8 bytes each: the names themselves would take ten times that."""
    place = header.metadata[_PREFIX + "tokens"]
    assert isinstance(place, MetadataArray)
    hashes = np.fromiter(map(hash, _names_in_the_engine(header, place)), np.int64, place.count)
    hashes.sort()
    twice = hashes[1:][hashes[1:] == hashes[:-1]]
    if not twice.size:
        return None
    wanted, first = int(twice[0]), None
    for name in _names_in_the_engine(header, place):
        if hash(name) == wanted:
            if name == first:
                return name
            first = name
    return None  # two names with one hash


def _names_in_the_engine(header: GgufHeader, place: MetadataArray) -> Iterator[bytes]:
    """The tokens as the engine keeps them: up to a zero byte, and empty ones under a name of their own."""
    with open_file(header.path) as file:
        cursor = Cursor(file, header.path, position=place.offset)
        for i, name in enumerate(cursor.strings(place.count, _PREFIX + "tokens")):
            yield name.partition(b"\0")[0] or b"[EMPTY_%d]" % i


def _check_special(header: GgufHeader) -> Iterator[Finding]:
    """Ids of special tokens lie in the vocabulary, and a token to be added to each text exists."""
    tokens = header.metadata[_PREFIX + "tokens"]
    assert isinstance(tokens, MetadataArray)
    for name in _SPECIAL:
        key = f"{_PREFIX}{name}_token_id"
        value = header.metadata.get(key)
        if value is None:
            continue
        if header.kinds[key] is not ValueType.UINT32 or not isinstance(value, int):
            yield damage("special-token", f"metadata {quote(key)} must be one uint32")
        elif value >= tokens.count:
            yield damage("special-token", f"{key} is {value:,}, outside the vocabulary of {tokens.count:,} tokens")
    for name in ("bos", "eos"):
        if (
            header.metadata.get(f"{_PREFIX}add_{name}_token") is True
            and f"{_PREFIX}{name}_token_id" not in header.metadata
        ):
            yield damage("special-token", f"{_PREFIX}add_{name}_token is set, but the file names no such token")


def check_template(header: GgufHeader) -> Iterator[Finding]:
    """Look at the chat template: there, short, and not nested deeper than its parser can follow."""
    key = "tokenizer.chat_template"
    template = header.metadata.get(key)
    if template is None:
        yield Finding(
            severity="note",
            about="file",
            code="no-chat-template",
            message="the file has no chat template",
            advice="chats need one; texts can be continued all the same (nextn generate --raw)",
        )
    elif not isinstance(template, str):
        yield damage("chat-template", f"metadata {quote(key)} must be a text")
    elif len(template) > MAX_TEMPLATE_BYTES:
        yield damage(
            "chat-template", f"the chat template has {len(template):,} characters, more than {MAX_TEMPLATE_BYTES:,}"
        )
    elif (depth := template_depth(template)) > MAX_TEMPLATE_DEPTH:
        yield damage("chat-template", f"the chat template is nested {depth:,} deep, more than {MAX_TEMPLATE_DEPTH}")


_TAGS = re.compile(r"\{#.*?(?:#\}|\Z)|\{%(?P<block>.*?)(?:%\}|\Z)|\{\{(?P<value>.*?)(?:\}\}(?!\})|\Z)", re.DOTALL)
_STRINGS = re.compile(r"'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?", re.DOTALL)
_OPENS = ("for", "if", "macro", "filter", "call", "set", "block", "generation")
# A chain of operators becomes a tree as deep as the chain is long.
_DEEPER = re.compile(r"\b(?:not|if|else|and|or|in|is)\b|[-+*/%~|.<>(\[{]|[=!]=")


def template_depth(template: str) -> int:
    """How deep the syntax tree of a Jinja template can be: an upper bound, found without parsing it."""
    deepest, open_blocks = 0, [0]
    for tag in _TAGS.finditer(template):
        body = tag["block"] if tag["block"] is not None else tag["value"]
        if body is None:
            continue
        code = _STRINGS.sub("''", body)
        word = re.match(r"[-+\s]*(\w*)", code)
        name = word[1] if word and tag["block"] is not None else ""
        if name.startswith("end") and len(open_blocks) > 1:
            open_blocks.pop()
        elif name in _OPENS and not (name == "set" and "=" in code):
            open_blocks.append(open_blocks[-1] + 1)
        elif name == "elif":
            open_blocks[-1] += 1  # lies inside the one before
        deepest = max(deepest, open_blocks[-1] + len(_DEEPER.findall(code)))
    return deepest
