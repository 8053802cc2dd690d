"""Generation for asyncio: the calls of a Speculator in a worker thread, so that the event loop goes on."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from nextn._openai import Json
from nextn.chat import Message
from nextn.context import TokenIds
from nextn.errors import CancelledError, ClosedError
from nextn.model import Model
from nextn.options import ChatOptions, ChatParams, GenerateOptions, GenerateParams, show_options
from nextn.speculator import Speculator
from nextn.stats import Chunk, GenerationResult

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AsyncSpeculator"]

T = TypeVar("T")
_END = object()
_Jobs: TypeAlias = "SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]"


class _Worker:
    """A thread that does one job after the other; unlike an executor's it does not keep the interpreter from ending."""

    def __init__(self) -> None:
        self._jobs: _Jobs = SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._jobs,), name="nextn", daemon=True)
        self._thread.start()
        weakref.finalize(self, self._jobs.put, None).atexit = False

    @property
    def ident(self) -> int | None:
        """Identifier of the thread."""
        return self._thread.ident

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Put a job in the queue."""
        job: Future[T] = Future()
        self._jobs.put((job, work))
        return job

    @property
    def is_alive(self) -> bool:
        """Whether the thread has jobs to do, or may get some."""
        return self._thread.is_alive()

    def shutdown(self) -> None:
        """Let the thread end behind the jobs that it has."""
        self._jobs.put(None)


def _work(jobs: _Jobs) -> None:
    """Do jobs until there is a None among them."""
    while (entry := jobs.get()) is not None:
        job, work = entry
        if job.set_running_or_notify_cancel():
            try:
                job.set_result(work())
            except BaseException as error:  # whatever it is, who awaits it gets it
                job.set_exception(error)
        del entry, job, work  # nothing is kept alive while it waits


class AsyncSpeculator:
    """A Speculator whose calls are awaited.

    Requests run one after the other, in the order of the calls, in one thread. Cancelling the task that awaits one, or
    closing an asynchronous iterator, ends its request at once, in the middle of a decode.

    Args:
        model: A Speculator, or what Speculator() takes; what is made here is closed with it.
        **options: Those of Speculator(), for a model.
    """

    def __init__(self, model: Speculator | Model | str | os.PathLike[str], **options: Any) -> None:
        if isinstance(model, Speculator) and options:
            raise TypeError(f"AsyncSpeculator() takes no options for a Speculator that is made: {', '.join(options)}")
        self._owned = not isinstance(model, Speculator)
        self._sync = model if isinstance(model, Speculator) else Speculator(model, **options)
        self._worker = _Worker()
        self._closed = False

    @property
    def speculator(self) -> Speculator:
        """The Speculator that does the work."""
        return self._sync

    @show_options(GenerateParams)
    async def generate(self, prompt: str | TokenIds, **options: Unpack[GenerateOptions]) -> GenerationResult:
        """Speculator.generate()."""
        return await self._call(lambda: self._sync.generate(prompt, **options))

    @show_options(GenerateParams)
    def stream(self, prompt: str | TokenIds, **options: Unpack[GenerateOptions]) -> AsyncIterator[Chunk]:
        """Speculator.stream() as an asynchronous iterator; the request may run ahead of its reader."""
        return self._iterate(lambda: self._sync.stream(prompt, **options))

    @show_options(ChatParams)
    async def chat(self, messages: Sequence[Message], **options: Unpack[ChatOptions]) -> GenerationResult:
        """Speculator.chat()."""
        return await self._call(lambda: self._sync.chat(messages, **options))

    @show_options(ChatParams)
    def stream_chat(self, messages: Sequence[Message], **options: Unpack[ChatOptions]) -> AsyncIterator[Chunk]:
        """Speculator.stream_chat() in the manner of stream()."""
        return self._iterate(lambda: self._sync.stream_chat(messages, **options))

    async def create_completion(self, prompt: str | TokenIds, **options: Any) -> Json | AsyncIterator[Json]:
        """Speculator.create_completion(); with stream=True it gives an asynchronous iterator."""
        return await self._create(lambda: self._sync.create_completion(prompt, **options), options)

    async def create_chat_completion(self, messages: Sequence[Message], **options: Any) -> Json | AsyncIterator[Json]:
        """Speculator.create_chat_completion(); with stream=True it gives an asynchronous iterator."""
        return await self._create(lambda: self._sync.create_chat_completion(messages, **options), options)

    async def close(self) -> None:
        """End all requests with ClosedError, and close the Speculator when it was made here. May be called twice."""
        self._closed = True
        self._worker.shutdown()  # requests that wait run into the check
        while self._worker.is_alive:
            self._sync._cancel_in(self._worker.ident)
            await asyncio.sleep(0.005)
        if self._owned:
            await asyncio.to_thread(self._sync.close)

    async def __aenter__(self) -> AsyncSpeculator:
        """Give itself; leaving the block closes it."""
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()

    # From the worker to the event loop

    async def _create(self, work: Callable[[], Json | Iterator[Json]], options: Json) -> Json | AsyncIterator[Json]:
        """A dictionary, or an iterator of them."""
        if options.get("stream") is True:
            return self._iterate(cast(Callable[[], Iterator[Json]], work))
        return cast(Json, await self._call(work))

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        """Put a request in the worker's queue."""
        self._check()

        def run() -> T:
            self._check()
            try:
                return work()
            except CancelledError:
                self._check()
                raise

        return self._worker.submit(run)

    def _check(self) -> None:
        """Refuse work behind close()."""
        if self._closed:
            raise ClosedError("this AsyncSpeculator was closed") from None

    async def _call(self, work: Callable[[], T]) -> T:
        """Run a whole request in the worker."""
        job = self._submit(work)
        try:
            return await asyncio.wrap_future(job)
        finally:
            await self._stop(job)

    async def _iterate(self, make: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
        """Run a streamed request in the worker and hand its pieces over."""
        loop, queue = asyncio.get_running_loop(), asyncio.Queue[Any]()

        def put(item: object) -> None:
            with suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(queue.put_nowait, item)

        def pump() -> None:
            for piece in make():
                put(piece)

        job = self._submit(pump)
        job.add_done_callback(lambda _: put(_END))
        try:
            while (piece := await queue.get()) is not _END:
                yield piece
            await asyncio.wrap_future(job)  # raises what the request raised
        finally:
            await self._stop(job)

    async def _stop(self, job: Future[Any]) -> None:
        """End a request that is not done: take it out of the queue, or cancel it and wait until it is out."""
        while not job.done() and not job.cancel():
            self._sync._cancel_in(self._worker.ident)
            await asyncio.sleep(0.005)
