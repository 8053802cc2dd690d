"""What is in a GGUF file, read without loading it: a bounded header reader and a summary of a model's parts.

A leaf package: it needs NumPy and nextn.errors, not the native module.
"""

from __future__ import annotations

from nextn.gguf.inspection import Head, Inspection, Part, Tokenizer, inspect
from nextn.gguf.reader import GgufHeader, MetadataArray, MetadataValue, TensorInfo, read_array, read_header
from nextn.gguf.report import format_inspection
from nextn.gguf.types import TensorType, ValueType

__all__ = [
    "GgufHeader",
    "Head",
    "Inspection",
    "MetadataArray",
    "MetadataValue",
    "Part",
    "TensorInfo",
    "TensorType",
    "Tokenizer",
    "ValueType",
    "format_inspection",
    "inspect",
    "read_array",
    "read_header",
]
