"""The exceptions of nextn, all rooted at NextnError.

    NextnError
    ├── ModelFileError             the file is missing, damaged or cannot be loaded
    │   └── UnsupportedArchitectureError   the engine does not know the model's architecture
    ├── NoNextnLayerError          a draft context was asked for, but the loaded model has no draft head
    ├── ContextCreateError         a context cannot be made (memory, options that exclude each other)
    ├── InexactError               exact=True, but speculation may differ from plain decoding here
    ├── ContextOverflowError       more tokens than the context has room for; nothing was changed
    ├── DecodeError                the computation failed; the sequence was removed
    │   └── CancelledError         it was cancelled from another thread; the sequence was removed
    ├── RollbackError              the newest tokens cannot be taken back as far as asked
    ├── ClosedError                the object was closed before
    ├── ChatTemplateError          no chat template, or it refuses these messages
    ├── GrammarError               a grammar or a JSON schema that cannot be used, or that leaves no token
    ├── MissingExtraError          an optional package is not installed; names the extra that brings it
    ├── WorkerError                a worker on another machine cannot be reached, or was lost
    └── ServerError                llama-server did not start, stopped, or is not ours

A wrong argument is a TypeError or a ValueError that names the argument, its value and what is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "CancelledError",
    "ChatTemplateError",
    "ClosedError",
    "ContextCreateError",
    "ContextOverflowError",
    "DecodeError",
    "GrammarError",
    "InexactError",
    "MissingExtraError",
    "ModelFileError",
    "NextnError",
    "NoNextnLayerError",
    "RollbackError",
    "ServerError",
    "UnsupportedArchitectureError",
    "WorkerError",
]


class NextnError(Exception):
    """Root of every exception that nextn raises on purpose."""


class ModelFileError(NextnError):
    """A model file is missing, damaged or cannot be loaded."""


class UnsupportedArchitectureError(ModelFileError):
    """The file is sound, but the engine does not know its architecture."""


class NoNextnLayerError(NextnError):
    """The loaded model has no draft head (NextN layer) that a draft context could run."""


class ContextCreateError(NextnError):
    """A context cannot be made with these options on this machine."""


class InexactError(NextnError):
    """exact=True was asked for, and a verified token may have other bits than a decoded one; the message says where."""


class ContextOverflowError(NextnError):
    """More tokens were given than the context has room for; nothing was changed.

    Attributes:
        requested: Number of tokens that were asked for.
        available: Number of tokens that are free.
    """

    def __init__(self, message: str, requested: int = 0, available: int = 0) -> None:
        super().__init__(message)
        self.requested = requested
        self.available = available

    def __reduce__(self) -> tuple[type[ContextOverflowError], tuple[str, int, int]]:
        """Keep both numbers when the exception crosses a process."""
        return type(self), (str(self), self.requested, self.available)


class DecodeError(NextnError):
    """The computation failed; the sequence was removed from the context (and from its paired one)."""


class CancelledError(DecodeError):
    """The computation was cancelled with Context.abort(); the sequence was removed as for DecodeError."""


class RollbackError(NextnError):
    """The newest tokens of a sequence cannot be taken back as far as asked; nothing was changed."""


class ClosedError(NextnError):
    """The object was closed before."""


class ChatTemplateError(NextnError):
    """The model has no chat template, or its template refuses these messages."""


class GrammarError(NextnError):
    """A grammar or a JSON schema cannot be used (the message says where it is wrong), or leaves no token to choose."""


class MissingExtraError(NextnError):
    """Something needs packages that nextn does not bring by itself.

    Args:
        what: What needs them.
        extra: The extra of nextn that brings them.
        packages: Those that are missing.
    """

    def __init__(self, what: str, extra: str, packages: Sequence[str]) -> None:
        super().__init__(f'{what} needs {", ".join(packages)}: pip install "nextn[{extra}]"')
        self._arguments = (what, extra, tuple(packages))

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, tuple[str, ...]]]:
        """Keep the arguments when the exception crosses a process."""
        return type(self), self._arguments


class WorkerError(NextnError):
    """A worker (ggml-rpc-server) cannot be reached, is none, or was lost; names it and says what to do.

    What was loaded over a lost worker raises this at every use. It can be closed; after that the worker, once it was
    started again, can be used again.
    """


class ServerError(NextnError):
    """llama-server did not start, stopped unexpectedly, or is not the patched one."""
