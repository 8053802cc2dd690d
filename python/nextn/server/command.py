"""The command line and the environment of llama-server, from what a Server is given."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from nextn._workers import check_rpc_servers
from nextn.errors import NoNextnLayerError
from nextn.gguf import inspect
from nextn.options import DraftParams, check_choice, check_int

__all__ = ["SpecType", "build_command", "build_environment", "choose_spec_type"]

SpecType = Literal["auto", "nextn", "draft-mtp", "none"]
SPEC_TYPES: tuple[str, ...] = ("auto", "nextn", "draft-mtp", "none")


def choose_spec_type(spec_type: str, draft: DraftParams | None, model: Path, draft_model: Path | None) -> str:
    """Resolve "auto": nextn when there is a head to draft with; none without a draft.

    Raises:
        ModelFileError: A file is missing, damaged, or no model.
        NoNextnLayerError: A head is asked for and there is none.
        TypeError, ValueError: A draft that is none, an unknown type, or arguments that do not go together.
    """
    check_choice("spec_type", spec_type, SPEC_TYPES)
    if draft is None:
        if spec_type not in ("auto", "none"):
            raise ValueError(f"spec_type={spec_type!r} drafts, which draft=None forbids: give DraftParams()")
        if draft_model is not None:
            raise ValueError("draft_model holds a draft head, which draft=None does not use: give DraftParams()")
        spec_type = "none"
    elif not isinstance(draft, DraftParams):
        raise TypeError(f"draft must be a DraftParams or None, not {type(draft).__name__}")
    elif spec_type == "draft-mtp" and draft.vocab != "auto":
        raise ValueError('draft-mtp scores the whole vocabulary: vocab goes with spec_type="nextn"')
    found = inspect(model)
    head = (found if draft_model is None else inspect(draft_model)).head
    can_draft = head.state == "complete"
    if spec_type == "auto":
        # of qwen3next llama.cpp keeps no state to roll back to
        return "nextn" if can_draft and found.architecture != "qwen3next" else "none"
    if spec_type != "none" and not can_draft:
        raise NoNextnLayerError(
            f"{draft_model or model} has no draft head that can run ({head.problem or 'none is in the file'}):"
            ' spec_type="none" decodes without one; nextn inspect FILE lists what is there'
        )
    return spec_type


def build_command(
    binary: Path,
    model: Path,
    *,
    spec_type: str,
    draft: DraftParams,
    draft_model: Path | None,
    vocab_file: str | None,
    host: str,
    port: int,
    n_ctx: int | None,
    n_parallel: int,
    n_threads: int | None,
    n_gpu_layers: int | None,
    rpc_servers: Sequence[str],
    extra_args: Sequence[str],
) -> list[str]:
    """Program and arguments; what is left at None is left to llama-server. vocab_file holds the draft's ids, if any."""
    command = [str(binary), "--model", str(model), "--host", host, "--port", str(check_int("port", port, 0, 65535))]
    command += ["--metrics", "--slots"]
    command += ["--parallel", str(check_int("n_parallel", n_parallel, 1, 256))]
    if n_ctx is not None:
        # llama-server divides its context among the slots
        command += ["--ctx-size", str(check_int("n_ctx", n_ctx, 0) * n_parallel)]
    if n_threads is not None:
        command += ["--threads", str(check_int("n_threads", n_threads, 1, 512))]
    if n_gpu_layers is not None:
        command += ["--gpu-layers", str(check_int("n_gpu_layers", n_gpu_layers, -1)).replace("-1", "all")]
    if workers := check_rpc_servers(rpc_servers):
        command += ["--rpc", ",".join(workers)]
    if spec_type != "none":
        command += ["--spec-type", spec_type, "--spec-draft-n-max", str(draft.n_max)]
        command += ["--spec-draft-n-min", str(draft.n_min), "--spec-draft-p-min", f"{draft.p_min:g}"]
        if not draft.adaptive:
            command += ["--no-spec-draft-adaptive"]
        if vocab_file is not None or draft.vocab != "auto":
            command += ["--spec-draft-vocab", vocab_file or str(draft.vocab)]
        if draft_model is not None:
            command += ["--model-draft", str(draft_model)]
    return [*command, *extra_args]


def build_environment(api_key: str | None, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with the key: an argument could be read by everyone on the machine."""
    environment = dict(os.environ if given is None else given)
    # Options of a llama-server of the user's would be options of this one too.
    environment = {name: value for name, value in environment.items() if not name.startswith("LLAMA_ARG_")}
    environment.setdefault("GGML_NO_BACKTRACE", "1")  # of an abort, its message says more to most people
    environment["NEXTN_SERVER_GRACE"] = "inf"  # of running requests; stop() counts itself
    if api_key is not None:
        environment["LLAMA_API_KEY"] = api_key
    return environment
