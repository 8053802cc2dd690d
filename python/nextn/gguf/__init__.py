"""What is in a GGUF file, read without loading it: a bounded header reader and a summary of a model's parts.

A leaf package: it needs NumPy, nextn.errors and the checks of nextn.options, not the native module.
"""

from __future__ import annotations

from nextn.gguf.findings import Finding, Report, format_report
from nextn.gguf.headfiles import extract_head, graft_head
from nextn.gguf.inspection import Head, Inspection, Part, Tokenizer, inspect
from nextn.gguf.reader import GgufHeader, MetadataArray, MetadataValue, TensorInfo, read_array, read_header
from nextn.gguf.report import format_inspection
from nextn.gguf.types import TensorType, ValueType
from nextn.gguf.verification import check_loadable, verify

__all__ = [
    "Finding",
    "GgufHeader",
    "Head",
    "Inspection",
    "MetadataArray",
    "MetadataValue",
    "Part",
    "Report",
    "TensorInfo",
    "TensorType",
    "Tokenizer",
    "ValueType",
    "check_loadable",
    "extract_head",
    "format_inspection",
    "format_report",
    "graft_head",
    "inspect",
    "read_array",
    "read_header",
    "verify",
]
