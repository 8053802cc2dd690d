"""Load a file in a process of its own and draft a few tokens: whatever the engine does to that process, this one lives.

``python -m nextn.gguf.trial FILE`` is that process: it prints one JSON object.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nextn.gguf.findings import Finding, damage
from nextn.gguf.inspection import Inspection

if TYPE_CHECKING:
    from nextn.model import Model
    from nextn.stats import Stats

_N_TOKENS = 8
_N_CTX = 256


def try_loading(path: str | os.PathLike[str], found: Inspection) -> Iterator[Finding]:
    """What loading the file and drafting with it shows.

    Args:
        path: The file; of a model in parts, the first.
        found: Its description.
    """
    if found.kind == "draft head":
        return  # drafts need the model it belongs to
    done = subprocess.run(
        [sys.executable, "-m", "nextn.gguf.trial", os.fspath(path)],
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
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


if __name__ == "__main__":
    print(json.dumps(_main(sys.argv[1])))
