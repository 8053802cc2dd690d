"""Grammar constraints: llama.cpp's grammar engine says which tokens may come next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nextn import _core
from nextn.errors import GrammarError
from nextn.model import Model
from nextn.sampling.rows import IdRow

__all__ = ["Grammar"]


class Grammar:
    """How far a text has come in a grammar.

    Args:
        model: Whose tokens the text is made of.
        text: The grammar in GBNF, llama.cpp's notation (its grammars/README.md).
        root: The rule that a text starts with.

    Raises:
        GrammarError: The grammar is wrong; the message says where and why.
    """

    def __init__(self, model: Model, text: str, *, root: str = "root") -> None:
        if "\0" in text:
            raise GrammarError(f"the grammar is wrong at character {text.index(chr(0)) + 1}: it holds a zero byte")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise GrammarError(f"the grammar is wrong at character {error.start + 1}: it is no valid text") from None
        self._core = _core.Grammar(model._core, text, root)

    @classmethod
    def of_schema(cls, model: Model, schema: Mapping[str, Any]) -> Grammar:
        """The grammar of the JSON texts that fit a JSON schema.

        Raises:
            GrammarError: The schema cannot be turned into a grammar.
        """
        try:
            text = json.dumps(schema, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise GrammarError(f"the JSON schema cannot be written as JSON: {error}") from None
        return cls(model, _core.json_schema_to_grammar(text))

    def clone(self) -> Grammar:
        """A second one in the same place."""
        twin = object.__new__(Grammar)
        twin._core = self._core.clone()
        return twin

    def allows(self, token: int) -> bool:
        """Whether a token may come next; the end of the text may when the grammar is complete."""
        return bool(self._core.allowed([token])[0])

    def allowed(self, ids: IdRow) -> npt.NDArray[np.bool_]:
        """Which of the tokens ids [n] may come next, bool [n]."""
        return self._core.allowed(ids)

    def accept(self, token: int) -> None:
        """Go on by a token that is allowed here; any other is a ValueError."""
        self._core.accept(token)
