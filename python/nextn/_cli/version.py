"""Which nextn this is: version, engine, source stamp."""

from __future__ import annotations


def version_text() -> str:
    """One line for people and for bug reports."""
    import nextn
    from nextn import _core

    engine = _core.engine_info()
    return f"nextn {nextn.__version__} (llama.cpp {engine['upstream_commit']}, stamp {engine['stamp']})"
