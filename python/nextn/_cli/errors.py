"""Errors in one line and in the words of the command line."""

from __future__ import annotations

import re

from nextn.errors import (
    ChatTemplateError,
    ContextCreateError,
    ContextOverflowError,
    InexactError,
    NextnError,
    NoNextnLayerError,
)

# What to do about an error.
_HINTS: dict[type[NextnError], str] = {
    InexactError: "--no-draft decodes plainly",
    ChatTemplateError: "--raw continues a text without a template",
    NoNextnLayerError: "--no-draft decodes without a draft head",
}

# The library's errors name its arguments; here they are options.
_OPTIONS = {
    "flash_attn": "-fa",
    "draft_model": "-md",
    "logit_bias": "--logit-bias",
    "max_tokens": "-n",
    "min_p": "--min-p",
    "top_k": "--top-k",
    "top_p": "--top-p",
    "n_batch": "-b",
    "n_ctx": "-c",
    "n_gpu_layers": "-ngl",
    "n_max": "--draft-max",
    "n_min": "--draft-min",
    "n_threads": "-t",
    "n_threads_batch": "-tb",
    "n_ubatch": "-ub",
    "None takes": "-1 takes",
    "p_min": "--draft-p-min",
    "rpc_servers": "--rpc",
    "temperature": "--temp",
    "type_k": "-ctk",
    "type_v": "-ctv",
    "vocab": "--draft-vocab",
}
# As words of their own, not in a path such as vocab.txt.
_NAMES = re.compile(rf"(?<![\w./-])({'|'.join(_OPTIONS)})(?![\w./-])(=?)")


def describe(error: Exception) -> str:
    """The error in one line."""
    if isinstance(error, ValueError | NextnError):
        names_arguments = isinstance(error, ValueError | ContextOverflowError | ContextCreateError | InexactError)
        message = name_options(str(error)) if names_arguments else str(error)
        return message + next((f" ({hint})" for kind, hint in _HINTS.items() if isinstance(error, kind)), "")
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return "out of memory"
    return f"{type(error).__name__}: {error} (this should not happen; --debug shows where)"


def name_options(message: str) -> str:
    """The message with options in the place of arguments: "n_ctx=100" becomes "-c 100"."""
    return _NAMES.sub(lambda match: _OPTIONS[match[1]] + (" " if match[2] else ""), message)
