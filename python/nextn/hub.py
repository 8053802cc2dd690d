"""Model files from a Hugging Face hub, through the package huggingface_hub (pip install 'nextn[hf]').

That package keeps the cache, resumes broken downloads and obeys its environment variables: HF_ENDPOINT, HF_HOME,
HF_HUB_OFFLINE, HF_TOKEN.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from nextn.errors import MissingExtraError, ModelFileError, NextnError
from nextn.options import check_bool, check_path, check_text

__all__ = ["download", "parse_hf"]

_log = logging.getLogger("nextn")
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_PREFERRED = "Q4_K_M"  # llama.cpp's choice when -hf names no quantization


def download(
    repo_id: str,
    filename: str | None = None,
    *,
    quant: str | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    progress_bar: bool = False,
) -> Path:
    """Fetch a GGUF model of a repository into the cache, unless it is there.

    Args:
        repo_id: "user/repo".
        filename: Name of the file, or a glob such as "*Q4_K_M.gguf"; of a model in parts, all of them are fetched.
        quant: Instead of a filename, the quantization that is part of it, in any case, for example "q4_k_m". Without
            both, Q4_K_M when there is one, or the only model.
        revision: Branch, tag or commit.
        cache_dir: Where files are kept; None takes huggingface_hub's place.
        local_files_only: Ask no server; without a network the cache is used in any case.
        progress_bar: Show a bar on standard error.

    Returns:
        Path of the file, or of the first part, in the cache.

    Raises:
        ModelFileError: There is no such repository, revision or file, or it cannot be fetched; says what there is.
        MissingExtraError: huggingface_hub is not installed.
    """
    check_text("repo_id", repo_id)
    for name, value in (("filename", filename), ("quant", quant), ("revision", revision)):
        if value is not None:
            check_text(name, value)
    if cache_dir is not None:
        check_path("cache_dir", cache_dir)
    if filename is not None and quant is not None:
        raise ValueError("filename and quant exclude each other")
    hub = _import_hub()
    place = {"revision": revision, "cache_dir": cache_dir}
    offline = check_bool("local_files_only", local_files_only) or bool(hub.constants.HF_HUB_OFFLINE)
    with _bars(hub, check_bool("progress_bar", progress_bar)), _own_log_quiet(hub), _one_error(hub, repo_id):
        names, offline = _list_models(hub, repo_id, place, offline)
        wanted = _choose(repo_id, names, filename, quant)
        paths = [hub.hf_hub_download(repo_id, name, local_files_only=offline, **place) for name in wanted]
    return Path(paths[0])


def parse_hf(text: str) -> tuple[str, str | None]:
    """The repository and the quantization of llama.cpp's -hf user/repo[:quant]."""
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)(?::([\w.-]+))?", text)
    if match is None:
        raise ValueError(f"a model on a hub must be user/repo or user/repo:quant, not {text!r}")
    return match[1], match[2]


def _import_hub() -> ModuleType:
    """The package, which is an extra."""
    try:
        import huggingface_hub
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError:
        raise MissingExtraError("a model from a hub", "hf", ["huggingface_hub"]) from None
    return huggingface_hub


def _list_models(hub: ModuleType, repo_id: str, place: Mapping[str, object], offline: bool) -> tuple[list[str], bool]:
    """The GGUF files of a repository, and whether they had to be looked up in the cache."""
    if not offline:
        try:
            files = hub.HfApi().list_repo_files(repo_id, revision=place["revision"])
            return [name for name in files if name.lower().endswith(".gguf")], False
        except Exception as error:
            if isinstance(error, hub.errors.HfHubHTTPError) or not _is_unreachable(error):
                raise
            _log.warning("the hub cannot be reached (%s): looking in the cache", _first_line(error))
    folder = Path(hub.snapshot_download(repo_id, local_files_only=True, allow_patterns=["*.gguf"], **place))
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.gguf")), True


def _choose(repo_id: str, names: Sequence[str], filename: str | None, quant: str | None) -> list[str]:
    """The files to fetch: one, or all parts of one model, the first of them first."""
    models: dict[str, list[str]] = {}
    for name in sorted(names):
        if "mmproj" not in name.lower():
            models.setdefault(_PART.sub(".gguf", name), []).append(name)
    if filename is not None:
        asked = f"file that matches {filename!r}"
        found = [whole for whole, parts in models.items() if any(_matches(n, filename) for n in (whole, *parts))]
    else:
        asked = "GGUF model" if quant is None else f"model of quantization {quant!r}"
        found = list(models) if quant is None else [whole for whole in models if _has_quant(whole, quant)]
        if quant is None and len(found) > 1:
            found = [whole for whole in found if _has_quant(whole, _PREFERRED)] or found
    if len(found) == 1:
        return models[found[0]]
    listed = ", ".join(found or models) or "no GGUF file at all"
    if not found:
        raise ModelFileError(f"{repo_id} has no {asked}; it has {listed}")
    raise ModelFileError(f"{repo_id} has more than one {asked}: {listed}; name one of them")


def _matches(name: str, pattern: str) -> bool:
    """Whether a file, by its path or by its name alone, is what a glob describes."""
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.rsplit("/", 1)[-1], pattern)


def _has_quant(name: str, quant: str) -> bool:
    """Whether the quantization is a part of the name, not of a longer word: q4_0 is not in q4_0_4_4."""
    return re.search(rf"(?<![a-z0-9_]){re.escape(quant.lower())}(?![a-z0-9_])", name.lower()) is not None


def _is_unreachable(error: Exception) -> bool:
    """Whether it is an error of the network, or of the HTTP library under huggingface_hub, which changes."""
    return isinstance(error, OSError) or type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "requests")


def _first_line(error: Exception) -> str:
    """What an error says, without the rest."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def _one_error(hub: ModuleType, repo_id: str) -> Iterator[None]:
    """Make every error of the hub a ModelFileError in one line."""
    errors = hub.errors
    try:
        yield
    except NextnError:
        raise
    except errors.GatedRepoError:
        raise ModelFileError(f"{repo_id}: needs permission; log in with hf auth login, or set HF_TOKEN") from None
    except errors.RevisionNotFoundError:
        raise ModelFileError(f"{repo_id}: there is no such revision") from None
    except errors.RepositoryNotFoundError:
        raise ModelFileError(f"{repo_id}: there is no such repository, or it is private") from None
    except errors.LocalEntryNotFoundError:
        raise ModelFileError(f"{repo_id}: is not in the cache, and the hub cannot be reached") from None
    except errors.HFValidationError as error:
        raise ModelFileError(f"{repo_id}: is no name of a repository: {_first_line(error)}") from None
    except Exception as error:
        raise ModelFileError(f"{repo_id}: cannot be fetched: {_first_line(error)}") from error


@contextmanager
def _bars(hub: ModuleType, wanted: bool) -> Iterator[None]:
    """Show huggingface_hub's progress bars in the block, or do not."""
    utils = hub.utils
    if wanted or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


@contextmanager
def _own_log_quiet(hub: ModuleType) -> Iterator[None]:
    """Keep huggingface_hub from writing to standard error that it tries again; what comes of it is said by nextn."""
    log = hub.utils.logging
    verbosity = log.get_verbosity()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
