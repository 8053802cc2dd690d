"""The asyncio forms: results of the plain calls, an event loop that goes on, cancelled tasks that end their request."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from engine import DEMO, SIZES, chat_prompt, heldout_prompts
from nextn.aio import AsyncSpeculator
from nextn.errors import ClosedError, ContextOverflowError
from nextn.options import DraftParams
from nextn.speculator import Speculator

FIXED = DraftParams(n_max=4, adaptive=False)
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def spec():
    with Speculator(DEMO, draft=FIXED, **SIZES) as spec:
        yield spec


def test_results_are_those_of_the_plain_calls(spec):
    prompts = [chat_prompt(spec.model, text) for text in heldout_prompts()[:4]]
    expected = [spec.generate(prompt, max_tokens=30).tokens for prompt in prompts]
    text = spec.chat(MESSAGES).text

    async def main():
        asynchronous = AsyncSpeculator(spec)
        results = await asyncio.gather(*(asynchronous.generate(prompt, max_tokens=30) for prompt in prompts))
        assert [result.tokens for result in results] == expected

        async def read(prompt):
            return tuple(
                [token async for chunk in asynchronous.stream(prompt, max_tokens=30) for token in chunk.tokens]
            )

        assert await asyncio.gather(*map(read, prompts)) == expected
        assert (await asynchronous.chat(MESSAGES)).text == text
        assert "".join([chunk.text async for chunk in asynchronous.stream_chat(MESSAGES)]) == text
        whole = await asynchronous.create_chat_completion(MESSAGES)
        assert whole["choices"][0]["message"]["content"] == text
        pieces = [piece async for piece in await asynchronous.create_chat_completion(MESSAGES, stream=True)]
        assert "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces) == text
        whole = await asynchronous.create_completion(prompts[0], max_tokens=30)
        assert whole["usage"]["completion_tokens"] == len(expected[0])
        with pytest.raises(ContextOverflowError):
            await asynchronous.generate("a", max_tokens=10**6)
        with pytest.raises(TypeError, match="did you mean 'max_tokens'"):
            [chunk async for chunk in asynchronous.stream("a", max_token=3)]
        await asynchronous.close()
        await asynchronous.close()
        assert not spec.closed  # it was not made here

    asyncio.run(main())


def test_the_event_loop_goes_on():
    async def main():
        async with AsyncSpeculator(DEMO, n_ctx=4096, n_threads=1, draft=None) as asynchronous:
            job = asyncio.create_task(asynchronous.generate([7] * 3000, max_tokens=2))
            n_ticks, longest, last = 0, 0.0, time.process_time()
            while not job.done():
                await asyncio.sleep(0.005)
                longest, last = max(longest, time.process_time() - last), time.process_time()
                n_ticks += 1
            assert n_ticks > 10
            assert longest < 0.5  # of the processor's time, which the generation takes: other work does not count
            assert len((await job).tokens) == 2
            speculator = asynchronous.speculator
        assert speculator.closed
        with pytest.raises(ClosedError, match="this AsyncSpeculator was closed"):
            await asynchronous.generate("a")
        with pytest.raises(ClosedError, match="this AsyncSpeculator was closed"):
            [chunk async for chunk in asynchronous.stream("a")]
        with pytest.raises(ClosedError):
            speculator.generate("a")

    asyncio.run(main())


def test_a_cancelled_task_ends_its_request_and_no_other(spec):
    prompt = chat_prompt(spec.model, heldout_prompts()[0])
    expected = spec.generate(prompt, max_tokens=40).tokens

    async def main():
        asynchronous = AsyncSpeculator(spec)
        long = asyncio.create_task(asynchronous.generate(prompt, ignore_eos=True))
        waiting = asyncio.create_task(asynchronous.generate(prompt, max_tokens=40))
        unwanted = asyncio.create_task(asynchronous.generate(prompt, max_tokens=40))
        await asyncio.sleep(0.02)
        unwanted.cancel()
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        assert (await waiting).tokens == expected
        with pytest.raises(asyncio.CancelledError):
            await unwanted
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asynchronous.generate(prompt, ignore_eos=True), 0.02)
        assert spec.ctx_tgt.seq_pos_max() < 900  # it did not go on until the context was full
        stream = asynchronous.stream(prompt, ignore_eos=True)
        async for _ in stream:
            break
        await stream.aclose()
        assert (await asynchronous.generate(prompt, max_tokens=40)).tokens == expected
        await asynchronous.close()

    asyncio.run(main())
    assert spec.generate(prompt, max_tokens=40).tokens == expected


@pytest.mark.parametrize("owned", [True, False])
def test_closing_ends_what_runs_and_what_waits(spec, owned):
    async def main():
        asynchronous = AsyncSpeculator(DEMO, draft=FIXED, **SIZES) if owned else AsyncSpeculator(spec)
        running = threading.Event()

        def progress(_n, _total):
            running.set()
            while not asynchronous._closed:
                time.sleep(0.001)

        async def read(stream):
            return [chunk async for chunk in stream]

        waiting = [
            asyncio.create_task(asynchronous.generate([7] * 600, ignore_eos=True, progress=progress)),
            asyncio.create_task(read(asynchronous.stream("a", ignore_eos=True))),
            asyncio.create_task(asynchronous.generate("a", ignore_eos=True)),
        ]
        await asyncio.to_thread(running.wait)
        await asynchronous.close()
        for task in waiting:
            with pytest.raises(ClosedError, match="this AsyncSpeculator was closed"):
                await asyncio.wait_for(task, 60)
        assert asynchronous.speculator.closed == owned

    asyncio.run(main())
    assert spec.generate("a", max_tokens=3).tokens


def test_options_belong_to_what_is_made_here(spec):
    with pytest.raises(TypeError, match="takes no options for a Speculator that is made: n_ctx"):
        AsyncSpeculator(spec, n_ctx=5)
    with pytest.raises(TypeError, match="did you mean 'n_ctx'"):
        AsyncSpeculator(DEMO, nctx=5)
