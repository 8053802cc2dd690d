"""An inspection as text for people."""

from __future__ import annotations

from nextn.gguf.inspection import Head, Inspection


def format_inspection(found: Inspection) -> str:
    """Describe a model file in lines of at most about 100 characters.

    Args:
        found: What `inspect` returned.

    Returns:
        The text, without a final newline; names from the file are made safe to print.
    """
    facts = _facts(found)
    width = max(len(label) for label, _ in facts)
    lines = [_title(found), *(f"  {label:<{width}}  {value}" for label, value in facts), ""]
    return "\n".join(lines + _table(found))


def format_size(n_bytes: int) -> str:
    """A number of bytes in a unit that keeps it short (decimal: 1 MB = 1,000,000 bytes)."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{_three(n_bytes / scale)} {unit}"
    return f"{n_bytes} B"


def format_count(n: int) -> str:
    """A number of parameters in a unit that keeps it short."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= scale:
            return f"{_three(n / scale)} {unit}"
    return str(n)


def _three(value: float) -> str:
    """Three significant digits, never fewer than the whole number has."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def _safe(text: str) -> str:
    """A text from the file without control characters, at most 80 characters long."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 80 else text[:77] + "..."


def _number(n: int | None) -> str:
    """A number that the file may not give."""
    return "not given" if n is None else f"{n:,}"


def _title(found: Inspection) -> str:
    """The first line: which file, how large."""
    more = f" and {len(found.files) - 1} more" if len(found.files) > 1 else ""
    return f"{_safe(found.files[0])}{more}: {format_size(found.size)} ({found.size:,} bytes), GGUF {found.version}"


def _facts(found: Inspection) -> list[tuple[str, str]]:
    """Labels and values of the upper block."""
    tokenizer = found.tokenizer
    vocabulary = f"{_number(tokenizer.n_tokens)} tokens"
    named = ", ".join(_safe(name) for name in (tokenizer.model, tokenizer.pre) if name)
    facts = [
        ("name", _safe(found.name or "not given")),
        ("architecture", _safe(found.architecture) + (", draft head only" if found.kind == "draft head" else "")),
        ("parameters", f"{format_count(found.n_params)} ({found.n_params:,})"),
        ("file type", found.file_type or "not given"),
        ("layers", _layers(found)),
    ]
    if found.n_expert:
        facts.append(("experts", f"{found.n_expert:,} per layer, {found.n_expert_used:,} per token"))
    facts += [
        ("width", _number(found.n_embd)),
        ("context length", f"{_number(found.n_ctx_train)} tokens"),
        ("tokenizer", f"{vocabulary} ({named})" if named else vocabulary),
        ("chat template", "yes" if tokenizer.chat_template else "no"),
        ("draft head", _head(found.head)),
    ]
    return facts


def _layers(found: Inspection) -> str:
    """Number and kinds of the layers."""
    if found.n_layer is None:
        return "not given"
    if found.kind == "draft head":
        return f"the NextN layer of a model with {found.n_layer:,}"
    kinds = [f"{found.n_layer_attention} attention"] if found.n_layer_attention else []
    if found.n_layer_recurrent:
        recurrent = "delta net" if any(part.name == "delta net" for part in found.parts) else "recurrent"
        kinds.append(f"{found.n_layer_recurrent} {recurrent}")
    trunk = f"{found.n_layer:,} in the trunk" + (f" ({', '.join(kinds)})" if kinds else "")
    return trunk + (f", {found.n_layer_nextn:,} NextN" if found.n_layer_nextn else "")


def _head(head: Head) -> str:
    """State of the draft head in one line."""
    if head.state == "none":
        return "none (plain decoding only)"
    if head.state != "complete":
        return f"{head.state}: {_shorten(head.problem or '')}"
    own = f"complete: block {head.block}, {format_count(head.n_params)} parameters, mostly {next(iter(head.types))}"
    return own + (f"; logits through {head.output_tensor} ({head.output_type})" if head.output_tensor else "")


def _shorten(text: str, length: int = 400) -> str:
    """At most ``length`` printable characters."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= length else text[: length - 3] + "..."


def _table(found: Inspection) -> list[str]:
    """One line per part: tensors, parameters, size, types."""
    lines = [f"  {'part':<14}{'tensors':>8}{'parameters':>13}{'size':>10}  types (share of the part)"]
    for part in found.parts:
        shares = ", ".join(f"{name} {_share(size, part.size)}" for name, size in part.types.items())
        amounts = f"{part.n_tensors:>8,}{format_count(part.n_params):>13}{format_size(part.size):>10}"
        lines.append(f"  {part.name:<14}{amounts}  {shares}")
    return lines


def _share(size: int, whole: int) -> str:
    """A share in percent, without calling a rest nothing."""
    percent = 100 * size / whole
    return "<1 %" if percent < 0.5 else f"{percent:.0f} %"
