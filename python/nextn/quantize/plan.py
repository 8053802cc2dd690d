"""What a quantized file will be: the type of each tensor, decided before anything is written.

The engine's own choice comes first, then a recipe raises some types, then explicit types replace whatever was chosen.
The result is given to the engine as a type per tensor, so the plan that is shown is the file that is made.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nextn import _core
from nextn.errors import ModelFileError, NextnError
from nextn.gguf.heads import LEGACY_SUFFIX
from nextn.gguf.inspection import Inspection, describe, read_parts
from nextn.gguf.reader import DEFAULT_ALIGNMENT, GgufHeader, TensorInfo
from nextn.gguf.types import FILE_TYPES, TENSOR_TYPES, TensorType
from nextn.gguf.verification import check_loadable
from nextn.options import check_path
from nextn.quantize.recipes import DEFAULT_RECIPE, Recipe, read_recipe, tensor_type

__all__ = ["Plan", "PlannedTensor", "file_type", "make_plan"]

_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}
_NO_TARGET = ("NVFP4",)  # files come in it, but the engine does not make it
_UNQUANTIZED = ("F32", "F16", "BF16")
_CARRIER = "Q8_0"  # the engine takes a type per tensor only in a file of a quantized type
_NEEDS_IMATRIX = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS")
_OUTSIDE = ("token_embd.weight", "per_layer_token_embd.weight", "output.weight")  # these never need one
_BLOCK = re.compile(r"blk\.(\d{1,9})\.(.+)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class PlannedTensor:
    """One tensor before and after.

    Args:
        name: Its name.
        shape: Elements per dimension, the contiguous one first.
        source: Its type now.
        target: Its type in the new file.
        size: Bytes now.
        new_size: Bytes in the new file.
    """

    name: str
    shape: tuple[int, ...]
    source: TensorType
    target: TensorType
    size: int
    new_size: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A quantization that is ready to run.

    Args:
        files: The file to read, or all parts of a model in parts.
        file_type: Name of the file's type, for example "Q4_K_M".
        recipe: The recipe.
        given: Explicit types, as pattern and type.
        tensors: In the engine's order.
        needs_imatrix: Names of tensors that cannot be quantized without an importance matrix.
        requantized: Names of tensors that are quantized already and change their type.
    """

    files: tuple[Path, ...]
    file_type: str
    recipe: Recipe
    given: tuple[tuple[str, str], ...]
    tensors: tuple[PlannedTensor, ...]
    needs_imatrix: tuple[str, ...]
    requantized: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes of the tensors now."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def new_size(self) -> int:
        """Bytes of the tensors in the new file."""
        return sum(tensor.new_size for tensor in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        """Of the new file, over all tensors."""
        n_params = sum(_n_params(tensor.shape) for tensor in self.tensors)
        return 8 * self.new_size / n_params


def file_type(name: str) -> tuple[int, str]:
    """Number and proper name of a file type, from its name in any case; Q4_K means Q4_K_M.

    Raises:
        ValueError: No such type; names the nearest.
    """
    if not isinstance(name, str):
        raise TypeError(f"type must be a string, not {name!r}")
    wanted = _ALIASES.get(name.upper(), name.upper())
    numbers = {text: number for number, text in FILE_TYPES.items() if text not in _NO_TARGET}
    if wanted not in numbers:
        near = difflib.get_close_matches(wanted, numbers, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"type must be one of {', '.join(numbers)}, not {name!r}{hint}")
    return numbers[wanted], wanted


def make_plan(
    path: str | os.PathLike[str],
    type_name: str,
    *,
    recipe: str = DEFAULT_RECIPE,
    tensor_types: Sequence[tuple[str, str]] = (),
) -> Plan:
    """Decide the type of each tensor.

    Args:
        path: The model; of one in parts, the first part.
        type_name: Type of the file, for example "Q4_K_M".
        recipe: Name of a recipe: base, nextn, turbo-kv, combined.
        tensor_types: Pairs of a regular expression, which is searched in the tensors' names, and the type that they
            get; of several that fit the first counts. Norms and other tensors that the engine never quantizes stay.

    Raises:
        ModelFileError: The file is missing or damaged, or of a form that cannot be quantized.
        ValueError: A type or recipe that does not exist, a pattern that is none or fits no tensor.
    """
    check_path("path", path)
    number, name = file_type(type_name)
    chosen = read_recipe(recipe)
    _check_pairs(tensor_types)
    patterns = [(_compile(pattern), tensor_type(kind)) for pattern, kind in tensor_types]
    check_loadable(path)
    headers = read_parts(Path(path))
    found = describe(headers)
    _check_form(path, headers)
    tensors = sorted((tensor for header in headers for tensor in header.tensors), key=_engine_order)
    _check_patterns(patterns, tensors)
    types = _decide(found, headers[0], number, name, chosen, patterns, tensors)
    planned = tuple(_planned(tensor, kind) for tensor, kind in zip(tensors, types, strict=True))
    return Plan(
        files=tuple(header.path for header in headers),
        file_type=name,
        recipe=chosen,
        given=tuple((pattern.pattern, kind.name) for pattern, kind in patterns),
        tensors=planned,
        needs_imatrix=tuple(t.name for t in planned if _needs_imatrix(t, name)),
        requantized=tuple(t.name for t in planned if t.source is not t.target and t.source.name not in _UNQUANTIZED),
    )


def _check_pairs(tensor_types: object) -> None:
    """Accept a sequence of pairs of strings."""
    pairs = tensor_types if isinstance(tensor_types, Sequence) else [tensor_types]
    if not all(isinstance(pair, (tuple, list)) and [type(part) for part in pair] == [str, str] for pair in pairs):
        raise TypeError(f"tensor_types must be pairs of a pattern and a type, both strings, not {tensor_types!r}")


def engine_types(plan: Plan) -> tuple[int, list[tuple[str, int]]]:
    """The plan in the engine's terms: number of a file type, and type numbers by patterns of names."""
    name = _CARRIER if plan.file_type in _UNQUANTIZED else plan.file_type
    return file_type(name)[0], _as_patterns({tensor.name: tensor.target for tensor in plan.tensors})


def _decide(
    found: Inspection,
    header: GgufHeader,
    number: int,
    name: str,
    recipe: Recipe,
    patterns: Sequence[tuple[re.Pattern[str], TensorType]],
    tensors: Sequence[TensorInfo],
) -> list[TensorType]:
    """The engine's choice, changed by recipe and patterns, and once more through the engine, which knows what fits."""
    base = _ask_engine(found, header, number, tensors, {})
    wanted = {}
    for tensor, kind in zip(tensors, base, strict=True):
        explicit = next((given for pattern, given in patterns if pattern.search(tensor.name)), None)
        wanted[tensor.name] = explicit or _with_recipe(tensor, kind, recipe, found)
    carrier = file_type(_CARRIER)[0] if name in _UNQUANTIZED else number
    return _ask_engine(found, header, carrier, tensors, wanted)


def _with_recipe(tensor: TensorInfo, chosen: TensorType, recipe: Recipe, found: Inspection) -> TensorType:
    """The type that a recipe makes of the engine's choice; never more bits than the tensor has now."""
    match = _BLOCK.fullmatch(tensor.name)
    is_nextn = ".nextn." in tensor.name or (match is not None and int(match[1]) == found.head.block)
    for rule in recipe.rules:
        if (rule.block == "any" or is_nextn) and rule.tensors.search(tensor.name):
            if _bits(rule.at_least) > _bits(chosen):
                chosen = rule.at_least
            break
    return chosen if _bits(chosen) < _bits(tensor.type) or tensor.type.name in _UNQUANTIZED else tensor.type


def _ask_engine(
    found: Inspection,
    header: GgufHeader,
    number: int,
    tensors: Sequence[TensorInfo],
    wanted: Mapping[str, TensorType],
) -> list[TensorType]:
    """The types that the engine gives these tensors."""
    stated = found.architecture
    names = {
        "n_embd": "embedding_length",
        "n_ff": "feed_forward_length",
        "n_layer": "block_count",
        "n_head": "attention.head_count",
        "n_head_kv": "attention.head_count_kv",
        "n_expert": "expert_count",
        "n_embd_head_k": "attention.key_length",
        "n_embd_head_v": "attention.value_length",
    }
    values = {name: header.metadata.get(f"{stated}.{key}") for name, key in names.items()}
    sizes = {name: value for name, value in values.items() if isinstance(value, int)}
    sizes.setdefault("n_layer", 1)
    sizes.setdefault("n_head_kv", sizes.get("n_head", 0))
    try:
        numbers = _core.quantized_types(
            architecture=stated.removesuffix(LEGACY_SUFFIX),
            sizes=sizes,
            file_type=number,
            tensors=[(tensor.name, list(tensor.shape) or [1], tensor.type.id) for tensor in tensors],
            overrides=_as_patterns(wanted),
        )
    except RuntimeError as error:  # an architecture that the engine does not know, a type without a fallback
        raise ModelFileError(f"{header.path}: cannot be quantized: {error}") from None
    return [TENSOR_TYPES[number] for number in numbers]


def _as_patterns(types: Mapping[str, TensorType]) -> list[tuple[str, int]]:
    """A type per name, as few regular expressions as possible: one for all blocks that give a tensor the same type."""
    blocks: dict[tuple[str, int], list[str]] = {}
    patterns = []
    for name, kind in types.items():
        match = _BLOCK.fullmatch(name)
        if match:
            blocks.setdefault((match[2], kind.id), []).append(match[1])
        else:
            patterns.append((f"^{_escape(name)}$", kind.id))
    for (rest, number), blocks_of_it in blocks.items():
        patterns.append((rf"^blk\.({'|'.join(blocks_of_it)})\.{_escape(rest)}$", number))
    return patterns


def _escape(name: str) -> str:
    """A name as an ECMAScript regular expression."""
    return re.sub(r"([^\w])", r"\\\1", name, flags=re.ASCII)


def _engine_order(tensor: TensorInfo) -> tuple[int, bytes]:
    """The order in which the engine goes through tensors; its choices count them."""
    match = _BLOCK.match(tensor.name)
    return (int(match[1]) if match else -1, tensor.name.encode())


def _planned(tensor: TensorInfo, kind: TensorType) -> PlannedTensor:
    """A tensor with its new type."""
    new_size = tensor.n_params // kind.block_size * kind.block_bytes
    return PlannedTensor(
        name=tensor.name, shape=tensor.shape, source=tensor.type, target=kind, size=tensor.size, new_size=new_size
    )


def _needs_imatrix(tensor: PlannedTensor, name: str) -> bool:
    """Whether the engine refuses this tensor without an importance matrix."""
    if tensor.name in _OUTSIDE or tensor.source is tensor.target:
        return False
    return tensor.target.name in _NEEDS_IMATRIX or (name == "Q2_K_S" and tensor.target.name == "Q2_K")


def _check_form(path: str | os.PathLike[str], headers: Sequence[GgufHeader]) -> None:
    """What the engine's quantizer cannot write."""
    if headers[0].alignment != DEFAULT_ALIGNMENT:
        raise ModelFileError(
            f"{path}: has its data at multiples of {headers[0].alignment} bytes; the engine writes {DEFAULT_ALIGNMENT}"
        )


def _check_patterns(patterns: Sequence[tuple[re.Pattern[str], TensorType]], tensors: Iterable[TensorInfo]) -> None:
    """A pattern that fits nothing is a mistake."""
    names = [tensor.name for tensor in tensors]
    for pattern, _ in patterns:
        if not any(pattern.search(name) for name in names):
            raise ValueError(f"no tensor has a name that {pattern.pattern!r} fits")


def _compile(pattern: str) -> re.Pattern[str]:
    """A regular expression, or a ValueError."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is no regular expression: {error}") from None


def _bits(kind: TensorType) -> float:
    """Bits per weight."""
    return 8 * kind.block_bytes / kind.block_size


def _n_params(shape: Iterable[int]) -> int:
    """Number of elements."""
    n = 1
    for size in shape:
        n *= size
    return n


def check_ready(plan: Plan, *, has_imatrix: bool, allow_requantize: bool) -> None:
    """Raise NextnError for a plan that the engine would refuse halfway."""
    if plan.needs_imatrix and not has_imatrix:
        raise NextnError(
            f"{plan.file_type} needs an importance matrix for {len(plan.needs_imatrix)} tensors, "
            f"{plan.needs_imatrix[0]} among them: make one with nextn imatrix"
        )
    if plan.requantized and not allow_requantize:
        raise NextnError(
            f"{len(plan.requantized)} tensors are quantized already, {plan.requantized[0]} among them: quantizing them "
            "again loses more than quantizing the original; allow it with --allow-requantize (allow_requantize=True)"
        )
