"""Load a file in a process of its own and draft a few tokens: whatever the engine does to that process, this one lives.

``python -m nextn.gguf.trial FILE BYTES`` is that process: it limits its own memory by the size of the model, and prints
one JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from nextn.gguf.findings import Finding, damage
from nextn.gguf.inspection import Inspection

if TYPE_CHECKING:
    from nextn.model import Model
    from nextn.stats import Stats

_N_TOKENS = 8
_N_CTX = 256

# More than any file needs: ten minutes and a minute for each GB, read from a slow disk; and, besides the mapped file,
# the weights once in another layout, once more while that is made, and 4 GiB for contexts and Python.
_SECONDS, _BYTES_PER_SECOND = 600.0, 16e6
_MEMORY_BYTES = 4 << 30


def try_loading(path: str | os.PathLike[str], found: Inspection) -> Iterator[Finding]:
    """What loading the file and drafting with it shows.

    Args:
        path: The file; of a model in parts, the first.
        found: Its description.
    """
    if found.kind == "draft head":
        yield Finding(
            severity="note",
            about="file",
            code="load-skipped",
            message="nothing was loaded: a file with a draft head alone drafts only beside the model it belongs to",
            advice="nextn generate -m MODEL -md FILE tries both together",
        )
        return
    seconds = _SECONDS + found.size / _BYTES_PER_SECOND
    try:
        done = subprocess.run(
            [sys.executable, "-m", "nextn.gguf.trial", os.fspath(path), str(found.size)],
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        yield damage(
            "load-hung",
            f"the engine was not done after {seconds:.0f} s with the file and {_N_TOKENS} tokens, and was ended",
            "try it on an idle machine with nextn generate -n 8; if that hangs, download or convert the file again",
        )
        return
    try:
        result = json.loads(done.stdout)
    except ValueError:
        yield damage("load-crashed", f"the engine ended the process that loaded the file ({_how(done.returncode)})")
        return
    if "error" in result:
        yield damage("load-failed", f"the engine does not load it: {result['error']}")
    elif found.head.state == "complete" and result["draft_n"] == 0:
        yield Finding(
            severity="warning",
            about="head",
            code="no-drafts",
            message="the draft head is there, but nothing was drafted",
            advice="nextn generate --no-draft decodes plainly",
        )


def _how(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _main(path: str) -> dict[str, object]:
    """Load, draft, and say how it went."""
    import nextn

    try:
        with nextn.Model(path) as model:
            stats = _generate(model, drafting=model.has_nextn_layer)
    except (nextn.NextnError, ValueError) as error:
        return {"error": str(error)}
    return {"draft_n": stats.draft_n, "draft_n_accepted": stats.draft_n_accepted}


def _generate(model: Model, *, drafting: bool) -> Stats:
    """A few tokens after a prompt of a few; plain where the engine has no snapshots to roll back to."""
    import nextn

    prompt = [token % model.n_vocab for token in range(1, 9)]
    draft = nextn.DraftParams(n_max=2, adaptive=False) if drafting else None
    try:
        speculator = nextn.Speculator(model, draft=draft, n_ctx=_N_CTX, n_batch=64, n_ubatch=64, n_threads=1)
    except nextn.ContextCreateError:
        if not drafting:
            raise
        return _generate(model, drafting=False)
    with speculator:
        return speculator.generate(prompt, max_tokens=_N_TOKENS).stats


def _limit_memory(n_bytes: int) -> None:
    """Let this process allocate so much, beside files that it maps; on Windows there is no such limit."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = n_bytes if most == resource.RLIM_INFINITY else min(n_bytes, most)
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _limit_memory(_MEMORY_BYTES + 2 * int(sys.argv[2]))
    print(json.dumps(_main(sys.argv[1])))
