"""A loaded GGUF model: weights, vocabulary, metadata. Thin over nextn._core.Model."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nextn import _core
from nextn._workers import check_rpc_servers
from nextn.gguf.verification import check_loadable
from nextn.options import check_bool, check_int, check_path, check_progress, name_unknown_keywords

__all__ = ["Model", "ProgressCallback", "TokenIds"]

TokenIds: TypeAlias = "Sequence[int] | npt.NDArray[np.integer[Any]]"

ProgressCallback = Callable[[float], "bool | None"]
"""Called with the loaded share in 0..1; returning False cancels the load."""


class Model:
    """A GGUF model in memory, shared by every context made over it.

    The native model lives as long as any Context over it, also when this object is closed or gone.

    Args:
        path: The GGUF file; of a file in parts, the first part.
        n_gpu_layers: Layers to keep on the GPU, -1 for all; without a GPU backend it has no effect.
        use_mmap: Map the file instead of reading it, so that several processes share its pages.
        use_mlock: Keep the weights from being swapped out; the system's limit for locked memory applies.
        check_tensors: Look for invalid numbers in every tensor while loading (reads the whole file).
        load_nextn: Load the draft head too, when the file has one.
        rpc_servers: Workers (ggml-rpc-server) that layers are laid out over, "host:port" each. They have no
            authentication: only in a network that you trust. n_gpu_layers counts their layers too.
        progress: Called with the loaded share in 0..1 from the loading thread; False cancels, an exception cancels
            and is passed on.

    Raises:
        ModelFileError: The file is missing, no GGUF file, damaged, lacks a part, or the load was cancelled.
        UnsupportedArchitectureError: The engine does not know the file's architecture.
        WorkerError: A worker cannot be reached, is none, or was lost.
    """

    @name_unknown_keywords
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        n_gpu_layers: int = -1,
        use_mmap: bool = True,
        use_mlock: bool = False,
        check_tensors: bool = False,
        load_nextn: bool = True,
        rpc_servers: Sequence[str] = (),
        progress: ProgressCallback | None = None,
    ) -> None:
        if not isinstance(path, bytes):
            check_path("path", path)
        check_progress(progress)
        servers = check_rpc_servers(rpc_servers)
        self._path = os.fsdecode(path)
        _check_before_loading(self._path)
        self._metadata: dict[str, object] | None = None
        self._core = _core.Model(
            os.fsencode(path),  # names of files need not be UTF-8
            n_gpu_layers=check_int("n_gpu_layers", n_gpu_layers, -1, 2**31 - 1),
            use_mmap=check_bool("use_mmap", use_mmap),
            use_mlock=check_bool("use_mlock", use_mlock),
            check_tensors=check_bool("check_tensors", check_tensors),
            load_nextn=check_bool("load_nextn", load_nextn),
            rpc_servers=servers,
            progress=progress,
        )

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str | None = None,
        *,
        quant: str | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        progress_bar: bool = False,
        **options: Any,
    ) -> Model:
        """Load a model from a Hugging Face hub, fetching what the cache does not hold; see nextn.hub.download.

        Args:
            repo_id: "user/repo".
            filename: Name of the file, or a glob such as "*Q4_K_M.gguf".
            quant: Instead of a filename, the quantization in it, for example "Q4_K_M".
            revision: Branch, tag or commit.
            cache_dir: Where files are kept.
            local_files_only: Ask no server.
            progress_bar: Show a bar on standard error while fetching.
            **options: Those of Model().

        Raises:
            ModelFileError: There is no such file, or it cannot be fetched; or as for Model().
            MissingExtraError: huggingface_hub is not installed (pip install 'nextn[hf]').
        """
        from nextn.hub import download

        path = download(
            repo_id, filename, quant=quant, revision=revision, cache_dir=cache_dir,
            local_files_only=local_files_only, progress_bar=progress_bar,
        )  # fmt: skip
        return cls(path, **options)

    @property
    def path(self) -> str:
        """The path it was loaded from."""
        return self._path

    @property
    def architecture(self) -> str:
        """general.architecture of the file, for example "qwen35"."""
        return self._core.architecture

    @property
    def description(self) -> str:
        """The engine's one-line description: architecture, size class, quantization."""
        return self._core.description

    @property
    def metadata(self) -> dict[str, object]:
        """Every key of the file with its real type (arrays as lists), read from the file at the first use."""
        if self._metadata is None:
            self._metadata = self._core.read_metadata()
        return self._metadata

    @property
    def n_layer(self) -> int:
        """Number of layers of the trunk, without the draft head."""
        return self._core.n_layer

    @property
    def n_layer_nextn(self) -> int:
        """Number of NextN layers that the file declares."""
        return self._core.n_layer_nextn

    @property
    def n_embd(self) -> int:
        """Width of a hidden row."""
        return self._core.n_embd

    @property
    def n_vocab(self) -> int:
        """Number of tokens in the vocabulary."""
        return self._core.n_vocab

    @property
    def n_ctx_train(self) -> int:
        """Context length, in tokens, that the model was trained for."""
        return self._core.n_ctx_train

    @property
    def n_params(self) -> int:
        """Number of weights that were loaded."""
        return self._core.n_params

    @property
    def size(self) -> int:
        """Size of the loaded tensors in bytes."""
        return self._core.size

    @property
    def has_nextn_layer(self) -> bool:
        """Whether a draft context can run over this model."""
        return self._core.has_nextn_layer

    @property
    def is_nextn_only(self) -> bool:
        """Whether the file holds only the draft head: it can be drafted with, not decoded with."""
        return self._core.is_nextn_only

    @property
    def chat_template(self) -> str | None:
        """Source text of the file's chat template (Jinja), None when it has none."""
        return self._core.chat_template

    @property
    def bos_token(self) -> int | None:
        """Begin-of-text token, None when the vocabulary has none."""
        return self._core.bos_token

    @property
    def eos_token(self) -> int | None:
        """End-of-text token, None when the vocabulary has none."""
        return self._core.eos_token

    @property
    def eog_tokens(self) -> frozenset[int]:
        """Every token that ends a generation (end of text, end of turn)."""
        return frozenset(self._core.eog_tokens())

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._core.closed

    def tokenize(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Split text into tokens.

        Args:
            text: Any text; an empty one gives the special tokens only.
            add_special: Add the tokens that the model wants around a text, for example begin-of-text.
            parse_special: Read control tokens such as <|im_start|> in the text as tokens, not as plain characters.
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be a string, not {type(text).__name__}")
        return self._core.tokenize(text.encode(), add_special=add_special, parse_special=parse_special)

    def detokenize(self, tokens: TokenIds, *, remove_special: bool = False, unparse_special: bool = True) -> str:
        """Join tokens into text; bytes that are no UTF-8 become U+FFFD.

        Args:
            tokens: Token ids, or an integer array.
            remove_special: Leave out the tokens that tokenize() adds around a text.
            unparse_special: Show control tokens as text instead of dropping them.
        """
        text = self._core.detokenize(tokens, remove_special=remove_special, unparse_special=unparse_special)
        return text.decode(errors="replace")

    def token_to_piece(self, token: int, *, special: bool = True) -> bytes:
        """The bytes of one token, which may be a part of a character; empty for a control token when not special."""
        return self._core.token_to_piece(token, special=special)

    def is_eog(self, token: int) -> bool:
        """Whether the token ends a generation."""
        return self._core.is_eog(token)

    def close(self) -> None:
        """Let go of the model; its memory is freed when the last context over it is gone. May be called twice."""
        self._core.close()

    def __enter__(self) -> Model:
        """Give itself; leaving the block closes it."""
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """Path and state, for people."""
        return f"Model({self._path!r}{', closed' if self.closed else ''})"


def _check_before_loading(path: str) -> None:
    """Keep files from the engine that would end the process; what is no GGUF file at all it names well itself."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return
        with open(path, "rb") as file:
            is_gguf = file.read(4) == b"GGUF"
    except (OSError, ValueError):
        return
    if is_gguf:
        check_loadable(path)
