"""Opening what a Speculator works with: models, the two contexts, the drafter; and the checks that need no engine."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from nextn.context import Context
from nextn.drafting import Drafter, HeadDrafter, IntArray, NoDrafter
from nextn.errors import ContextCreateError, InexactError, NoNextnLayerError
from nextn.model import Model
from nextn.options import DraftParams, SamplingParams, check_int
from nextn.sampling import Grammar

__all__ = [
    "check_bias",
    "check_draft",
    "check_exact",
    "check_tokens",
    "choose_n_ctx",
    "make_grammar",
    "make_pair",
    "open_model",
]

_MOST_CTX_BY_DEFAULT = 8192


def check_draft(draft: object, draft_model: object, n_batch: object, n_ubatch: object) -> None:
    """Refuse drafts of a wrong type, a head without a draft, and drafts that no batch can verify."""
    if draft is not None and not isinstance(draft, (DraftParams, Drafter)):
        raise TypeError(f"draft must be a DraftParams, a Drafter or None, not {type(draft).__name__}")
    if draft_model is not None and not isinstance(draft, DraftParams):
        raise ValueError(f"draft_model holds a draft head, which draft={draft!r} does not use: give DraftParams()")
    n_max = 0 if draft is None else draft.n_max
    for name, value in (("n_batch", n_batch), ("n_ubatch", n_ubatch)):
        # rolling back within a verified draft needs all of it in one ubatch; the head reads as many rows and one more
        if check_int(name, value, 1, 2**31 - 1) < n_max + 2 and draft is not None:
            raise ValueError(f"{name} must be at least n_max + 2 = {n_max + 2} to verify a draft at once, not {value}")


def open_model(
    name: str,
    model: object,
    load_nextn: bool,
    owned: ExitStack,
    *,
    n_gpu_layers: int | None = None,
    rpc_servers: Sequence[str] = (),
) -> Model:
    """The model given as the argument called name; when it is a path the file is loaded and owned closes it.

    Args:
        name: For messages.
        model: A Model or a path.
        load_nextn: Load the draft head too.
        owned: Closes what is loaded here.
        n_gpu_layers: Of a path, as for Model; None takes its default.
        rpc_servers: Of a path, as for Model.
    """
    if isinstance(model, Model):
        for option, is_given in (("n_gpu_layers", n_gpu_layers is not None), ("rpc_servers", bool(rpc_servers))):
            if is_given:
                raise TypeError(f"{option} is for a {name} given as a path; a Model has it from its own call")
        return model
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(f"{name} must be a Model or a path, not {type(model).__name__}")
    layers = -1 if n_gpu_layers is None else n_gpu_layers
    loaded = Model(model, load_nextn=load_nextn, n_gpu_layers=layers, rpc_servers=rpc_servers)
    owned.callback(loaded.close)
    return loaded


def choose_n_ctx(n_ctx: object, model: Model) -> int:
    """Context length in tokens: as asked, 0 for the model's own, None for that but not more than memory likes."""
    if n_ctx is None:
        return min(model.n_ctx_train, _MOST_CTX_BY_DEFAULT)
    return check_int("n_ctx", n_ctx, 0, 2**31 - 1) or model.n_ctx_train


def check_bias(params: SamplingParams, n_vocab: int) -> None:
    """Refuse biases of tokens that the model does not have, and those that ban every token."""
    largest = max(params.logit_bias, default=0)
    if largest >= n_vocab:
        raise ValueError(f"logit_bias must name token ids from 0 to {n_vocab - 1}, not {largest}")
    if list(params.logit_bias.values()).count(-math.inf) == n_vocab:
        raise ValueError("logit_bias bans every token; at least one must be left")


def make_grammar(model: Model, params: SamplingParams) -> Grammar | None:
    """The grammar that these options ask for, at its start."""
    if params.json_schema is not None:
        return Grammar.of_schema(model, params.json_schema)
    return None if params.grammar is None else Grammar(model, params.grammar)


def make_pair(
    model: Model, head: Model, draft: DraftParams | Drafter | None, make_context: Callable[..., Context]
) -> tuple[Context, Context | None, Drafter]:
    """Make the target, the draft context when the head drafts, and the drafter.

    Args:
        model: The model that decides.
        head: The model that holds the head: the same one, or a second file.
        draft: What drafts.
        make_context: Makes a context over a model; further keywords say which kind.
    """
    if not isinstance(draft, DraftParams):
        drafter = NoDrafter() if draft is None else draft
        return _make_target(model, drafter.n_max, make_context), None, drafter
    if not head.has_nextn_layer:
        raise NoNextnLayerError(
            f"{head.path} has no NextN layer to draft with (or was loaded without it): nextn inspect {head.path} lists"
            " what it has; draft=None decodes plainly"
        )
    ctx_tgt = _make_target(model, draft.n_max, make_context)
    ctx_dft = make_context(head, nextn_draft=True)
    ctx_tgt.pair(ctx_dft)
    return ctx_tgt, ctx_dft, HeadDrafter(ctx_tgt, ctx_dft, draft)


def _make_target(model: Model, n_max: int, make_context: Callable[..., Context]) -> Context:
    """The target, with as many snapshots of its recurrent state as a draft may have tokens."""
    try:
        return make_context(model, n_rs_seq=n_max)
    except ContextCreateError as error:
        if n_max == 0:
            raise
        raise ContextCreateError(f"{error}; draft=None decodes plainly and keeps none") from None


def check_exact(ctx_tgt: Context, n_max: int) -> None:
    """Refuse a target that does not give the tokens of a verify batch the bits they have one at a time."""
    why = ctx_tgt.inexact(n_max + 1) if n_max > 0 else None
    if why is not None:
        raise InexactError(
            f"speculation may differ from plain decoding here, though exact output was asked for: {why}. Shorter drafts"
            " (n_max) with everything on the CPU (n_gpu_layers=0) can be exact; draft=None always is"
        )


def check_tokens(tokens: Any, n_vocab: int) -> IntArray:
    """Token ids as an array [n_tokens], each within the vocabulary."""
    allowed = f"a string or a sequence of token ids from 0 to {n_vocab - 1}"
    if isinstance(tokens, (bytes, dict, set, frozenset)):
        raise TypeError(f"prompt must be {allowed}, not {type(tokens).__name__}")
    try:
        array = np.asarray(tokens)
    except ValueError:  # rows of different lengths
        raise TypeError(f"prompt must be {allowed}, not {type(tokens).__name__} of sequences") from None
    if array.ndim != 1:
        raise TypeError(f"prompt must be {allowed}, not {type(tokens).__name__} of {array.ndim} dimensions")
    if array.size == 0:
        return np.empty(0, dtype=np.int32)
    if array.dtype == object and all(isinstance(token, int) for token in array):  # an int beyond 64 bits
        raise ValueError(f"prompt must be {allowed}, not one with {max(array, key=abs)}")
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"prompt must be {allowed}, not a sequence of {array.dtype}")
    outside = array[(array < 0) | (array >= n_vocab)]
    if outside.size:
        raise ValueError(f"prompt must be {allowed}, not one with {outside[0]}")
    return array.astype(np.int32)
