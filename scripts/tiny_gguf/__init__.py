"""Random GGUF models with a NextN draft head, and projectors for them, made from a seed."""

from .projector import make_projector
from .shapes import PRESETS, Shape
from .writer import PARTS, TYPES, make

__all__ = ["PARTS", "PRESETS", "TYPES", "Shape", "make", "make_projector"]
