"""Random GGUF models with a NextN draft head, made from a seed."""

from .shapes import PRESETS, Shape
from .writer import PARTS, TYPES, make

__all__ = ["PARTS", "PRESETS", "TYPES", "Shape", "make"]
