"""Ending a request from outside: another thread, a callback, Ctrl-C; what comes after it is right."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from engine import DEMO, SIZES, chat_prompt, heldout_prompts
from nextn.errors import CancelledError
from nextn.model import Model
from nextn.options import DraftParams
from nextn.speculator import Speculator

FIXED = DraftParams(n_max=4, adaptive=False)


@pytest.fixture(scope="module")
def demo():
    with Model(DEMO) as model:
        yield model


@pytest.fixture(scope="module")
def expected(demo):
    with Speculator(demo, draft=FIXED, **SIZES) as spec:
        return spec.generate(chat_prompt(demo, heldout_prompts()[1]), max_tokens=40).tokens


def check(spec, demo, expected):
    """The next answer is right."""
    assert spec.generate(chat_prompt(demo, heldout_prompts()[1]), max_tokens=40).tokens == expected


@pytest.fixture(scope="module")
def long_prompt():
    """Takes seconds to read."""
    return np.random.default_rng(0).integers(10, 3000, 16000).tolist()


def test_in_the_middle_of_a_prompt(demo, expected, long_prompt):
    sizes = {"n_ctx": 16384, "n_threads": 1, "n_ubatch": 2048}
    with Speculator(demo, draft=FIXED, **sizes) as spec:
        assert spec.cancel() is False
        for delay in (0.0, 0.05, 0.3):
            error, ended = [], []

            def read(error=error, ended=ended):
                try:
                    spec.generate(long_prompt, max_tokens=2)
                except CancelledError as caught:
                    error.append(caught)
                ended.append(time.process_time())

            reader = threading.Thread(target=read)
            reader.start()
            time.sleep(delay)
            while not spec.cancel():
                time.sleep(0.001)
            asked = time.process_time()
            reader.join()
            assert len(error) == 1
            assert ended[0] - asked < 2.0  # 0.3 as a rule; the whole takes many seconds of the processor
        check(spec, demo, expected)


def test_in_the_middle_of_one_decode(demo, expected):
    """A prompt that is one decode of one ubatch: only the abort callback can end it before its end."""
    prompt = np.random.default_rng(0).integers(10, 3000, 4000).tolist()
    sizes = {"n_ctx": 4096, "n_batch": 4096, "n_ubatch": 4096, "n_threads": 1}
    with Speculator(demo, draft=FIXED, ctx_checkpoints=0, **sizes) as spec:
        start = time.process_time()
        spec.generate(prompt, max_tokens=1)
        whole = time.process_time() - start
        left = []
        for _ in range(5):
            error, ended = [], []

            def read(error=error, ended=ended):
                try:
                    spec.generate(prompt, max_tokens=1)
                except CancelledError as caught:
                    error.append(caught)
                ended.append(time.process_time())

            start = time.process_time()
            reader = threading.Thread(target=read)
            reader.start()
            while time.process_time() - start < whole / 4:
                time.sleep(0.001)
            assert spec.cancel() is True
            asked = time.process_time()
            reader.join()
            assert len(error) == 1
            left.append(ended[0] - asked)
        # the processor's time, so that other work on the machine does not count
        assert np.median(left) < 0.3, (left, whole)
        assert max(left) < whole / 4, (left, whole)  # three quarters were left
    with Speculator(demo, draft=FIXED, **SIZES) as spec:
        check(spec, demo, expected)


def test_within_one_step(demo, expected, monkeypatch):
    """After cancel() came back at most one more decode is begun, of the target or of the head."""
    prompt = chat_prompt(demo, heldout_prompts()[1])
    with Speculator(demo, draft=FIXED, **SIZES) as spec:
        begun = [0]

        def counted(call):
            def counting(*args, **options):
                begun[0] += 1
                return call(*args, **options)

            return counting

        for owner, name in ((spec.ctx_tgt, "decode"), (spec._drafter, "draft"), (spec._drafter, "prefill")):
            monkeypatch.setattr(owner, name, counted(getattr(owner, name)))
        for n_before in (1, 2, 3, 5, 8, 13, 21, 34, 55, 89):
            begun[0], asked = 0, []

            def cancel(n_before=n_before, asked=asked):
                while begun[0] < n_before:
                    time.sleep(0)
                if spec.cancel():
                    asked.append(begun[0])

            canceller = threading.Thread(target=cancel)
            canceller.start()
            with pytest.raises(CancelledError):
                spec.generate(prompt, max_tokens=900, ignore_eos=True)
            canceller.join()
            assert begun[0] - asked[0] <= 1
        monkeypatch.undo()
        check(spec, demo, expected)


def test_between_two_chunks(demo, expected):
    with Speculator(demo, draft=FIXED, **SIZES) as spec:
        stream = spec.stream(chat_prompt(demo, heldout_prompts()[1]), max_tokens=40)
        next(stream)
        assert spec.cancel() is True
        with pytest.raises(CancelledError):
            next(stream)
        with pytest.raises(StopIteration):
            next(stream)
        assert spec.cancel() is False
        check(spec, demo, expected)


def test_again_and_again(demo, expected):
    """At random moments, in drafts as well as in the target; every request ends in one of two ways."""
    rng = np.random.default_rng(1)
    prompt = chat_prompt(demo, heldout_prompts()[1])
    n_cancelled = 0
    with Speculator(demo, draft=FIXED, **SIZES) as spec:
        for _ in range(40):
            timer = threading.Timer(float(rng.uniform(0, 0.02)), spec.cancel)
            timer.start()
            try:
                assert spec.generate(prompt, max_tokens=40).tokens == expected
            except CancelledError:
                n_cancelled += 1
            timer.join()
        check(spec, demo, expected)
    assert n_cancelled >= 5


def test_by_the_progress_callback(demo, expected):
    prompt = [7] * 300
    with Speculator(demo, draft=FIXED, **SIZES) as spec:
        with pytest.raises(CancelledError, match="progress returned False"):
            spec.generate(prompt, progress=lambda done, n_all: done < 128)
        check(spec, demo, expected)
        with pytest.raises(ZeroDivisionError):
            spec.generate(prompt, progress=lambda done, n_all: done / 0)
        check(spec, demo, expected)


def run_python(code):
    """Run code in an interpreter of its own, which must end by itself."""
    head = f"import os, signal, sys, threading, time\nimport nextn\nDEMO = {str(DEMO)!r}\n"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", head + textwrap.dedent(code)],
        env={**os.environ, "OMP_WAIT_POLICY": "passive", "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(not hasattr(signal, "SIGINT"), reason="no signals")
def test_ctrl_c_in_a_prompt():
    code = """
        with nextn.Speculator(DEMO, n_ctx=16384, n_ubatch=2048, n_threads=1) as spec:
            before = spec.generate("Once upon a time", max_tokens=20).tokens
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            start = time.process_time()
            try:
                spec.generate([7] * 16000)
            except KeyboardInterrupt:
                print("interrupted", time.process_time() - start < 3)
            assert spec.generate("Once upon a time", max_tokens=20).tokens == before
        """
    assert run_python(code) == "interrupted True\n"


def test_after_a_fork():
    """An error in the child, also when another thread of the parent was in the middle of a request."""
    code = """
        def read():
            try:
                spec.generate([7] * 3000, max_tokens=900, ignore_eos=True)
            except nextn.CancelledError:
                pass
        spec = nextn.Speculator(DEMO, n_ctx=4096, n_threads=1)
        stream = spec.stream("Hello")
        busy = threading.Thread(target=read)
        busy.start()
        time.sleep(0.1)
        child = os.fork()
        if child == 0:
            n_refused = 0
            for call in (lambda: spec.generate("Hello"), lambda: next(stream)):
                try:
                    call()
                except nextn.NextnError as error:
                    n_refused += "fork" in str(error)
            spec.close()
            os._exit(n_refused)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        spec.cancel()
        busy.join()
        """
    assert run_python(code) == "2\n"


@pytest.mark.parametrize("kind", ["generate", "stream"])
def test_the_interpreter_ends_while_an_asynchronous_request_runs(kind):
    """Nobody awaits or cancels it; it is ended, not waited for."""
    code = """
        import asyncio
        spec = nextn.Speculator(DEMO, n_ctx=65536, n_threads=1)
        begun, waited, decode = [0], [], spec.ctx_tgt.decode
        def counted(*args, **options):
            begun[0] += 1
            if waited and begun[0] - waited[0] > 3000:
                os._exit(3)  # it is waited for
            return decode(*args, **options)
        spec.ctx_tgt.decode = counted
        asynchronous = nextn.AsyncSpeculator(spec)
        async def read():
            work = asynchronous.KIND("Once", ignore_eos=True)
            if "KIND" == "generate":
                await work
            async for _ in work:
                pass
        def run():
            try:
                asyncio.run(read())
            except (nextn.NextnError, RuntimeError):  # asyncio's own: it cannot schedule anything any more
                pass
        threading.Thread(target=run, daemon=True).start()
        while begun[0] < 20:
            time.sleep(0.01)
        print("end", flush=True)
        waited.append(begun[0])
        """
    assert run_python(code.replace("KIND", kind)) == "end\n"


def test_the_interpreter_ends_with_live_objects():
    code = """
        spec = nextn.Speculator(DEMO, n_threads=1)
        stream = spec.stream("Once upon a time", max_tokens=50)
        next(stream)
        other = nextn.Speculator(DEMO, n_ctx=16384, n_ubatch=2048, n_threads=1)
        def read():
            try:
                other.generate([7] * 16000)
            except nextn.NextnError:
                pass
        threading.Thread(target=read, daemon=True).start()
        time.sleep(0.2)
        print("end")
        """
    assert run_python(code) == "end\n"
