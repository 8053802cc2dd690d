"""Recipes: which tensors keep more bits than the file's type gives them. They are data, nextn/recipes/*.json."""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nextn.gguf.types import TENSOR_TYPES, TensorType

__all__ = ["DEFAULT_RECIPE", "Recipe", "Rule", "read_recipe", "recipe_names", "tensor_type"]

DEFAULT_RECIPE = "combined"

# Types that matrices can be quantized to.
_MATRIX_TYPES = {
    kind.name: kind
    for kind in TENSOR_TYPES.values()
    if kind.name not in ("I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K")
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Tensors that get at least a type.

    Args:
        block: "nextn": only tensors of the NextN block; "any": of every block, and those outside.
        tensors: Regular expression that is searched in the tensor's name.
        at_least: Type that they get when the file's type gives them fewer bits per weight.
    """

    block: Literal["nextn", "any"]
    tensors: re.Pattern[str]
    at_least: TensorType


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A named list of rules, of which the first that fits a tensor counts."""

    name: str
    description: str
    rules: tuple[Rule, ...]


def recipe_names() -> list[str]:
    """Names of the recipes in the package."""
    return sorted(path.stem for path in _folder().glob("*.json"))


def read_recipe(name: str) -> Recipe:
    """A recipe of the package by its name.

    Raises:
        ValueError: There is none of that name; says which there are.
    """
    if not isinstance(name, str):
        raise TypeError(f"recipe must be one of {', '.join(recipe_names())}, not {name!r}")
    if name not in recipe_names():
        raise ValueError(f"recipe must be one of {', '.join(recipe_names())}, not {name!r}")
    data = json.loads((_folder() / f"{name}.json").read_text(encoding="utf-8"))
    rules = tuple(
        Rule(block=rule["block"], tensors=re.compile(rule["tensors"]), at_least=tensor_type(rule["at_least"]))
        for rule in data["rules"]
    )
    return Recipe(name=name, description=data["description"], rules=rules)


def tensor_type(name: str) -> TensorType:
    """A type that matrices can be stored in, by its name in any case.

    Raises:
        ValueError: No such type; names the nearest.
    """
    found = _MATRIX_TYPES.get(name.upper())
    if found is None:
        near = difflib.get_close_matches(name.upper(), _MATRIX_TYPES, n=1, cutoff=0.5)
        raise ValueError(f"{name!r} is no type of a matrix" + (f"; did you mean {near[0]}?" if near else ""))
    return found


def _folder() -> Path:
    """Where the recipes are."""
    return Path(__file__).resolve().parents[1] / "recipes"
