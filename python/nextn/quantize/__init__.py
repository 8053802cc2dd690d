"""Quantize models without harming their draft heads: recipes, importance matrices, and a comparison of types."""

from __future__ import annotations

from nextn.quantize.imatrix import Entry, ImportanceMatrix, read_imatrix, write_imatrix
from nextn.quantize.plan import Plan, PlannedTensor, make_plan
from nextn.quantize.recipes import DEFAULT_RECIPE, Recipe, Rule, read_recipe, recipe_names
from nextn.quantize.run import quantize, run_plan

__all__ = [
    "DEFAULT_RECIPE",
    "Entry",
    "ImportanceMatrix",
    "Plan",
    "PlannedTensor",
    "Recipe",
    "Rule",
    "make_plan",
    "quantize",
    "read_imatrix",
    "read_recipe",
    "recipe_names",
    "run_plan",
    "write_imatrix",
]
