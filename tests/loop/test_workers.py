"""A model in this process over workers: the same tokens, and a lost or wrong worker is one error."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import sys
import textwrap
import threading

import gguf
import nextn
import numpy as np
import pytest

SIZES = {"n_ctx": 512, "n_threads": 1}
FIXED = nextn.DraftParams(n_max=3, adaptive=False)
PROMPT = "<|im_start|>user\nHow do I reverse a list in Python?<|im_end|>\n<|im_start|>assistant\n"
LOST = r"the worker {} is lost.*close.*load again"


@pytest.fixture(scope="module")
def wanted() -> tuple[int, ...]:
    with nextn.Speculator(nextn.bundled_model(), draft=None, **SIZES) as speculator:
        return speculator.generate(PROMPT, max_tokens=48).tokens


@pytest.fixture
def over(workers):
    """A Speculator over the two workers."""
    with speculator_over(workers) as speculator:
        yield speculator


def speculator_over(workers) -> nextn.Speculator:
    addresses = [worker.address for worker in workers]
    return nextn.Speculator(nextn.bundled_model(), draft=FIXED, rpc_servers=addresses, **SIZES)


def test_the_tokens_of_one_machine(over, wanted) -> None:
    result = over.generate(PROMPT, max_tokens=48)
    assert result.tokens == wanted
    assert result.stats.draft_n_accepted > 5


def test_a_worker_lost_between_calls(workers, over) -> None:
    over.generate(PROMPT, max_tokens=4)
    workers[0].kill()
    for _ in range(2):
        with pytest.raises(nextn.WorkerError, match=LOST.format(workers[0].address)):
            over.generate(PROMPT, max_tokens=40)
    over.close()


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_lost_before_a_checkpoint_is_read(workers, which) -> None:
    addresses = [worker.address for worker in workers]
    text = " ".join(str(n) for n in range(60))
    with nextn.Speculator(
        nextn.bundled_model(), draft=FIXED, rpc_servers=addresses, **{**SIZES, "n_ubatch": 32}
    ) as over:
        for word in ("first", "second"):  # the second goes on from a checkpoint, as the third would
            cached = over.generate(f"{text} {word}", max_tokens=4).stats.cache_n
        assert cached > 0
        workers[which].kill()
        with pytest.raises(nextn.WorkerError, match=LOST.format(addresses[which])):
            over.generate(f"{text} third", max_tokens=4)


@pytest.mark.parametrize("which", [0, 1])
def test_a_worker_lost_in_a_stream(workers, over, wanted, which) -> None:
    given: list[int] = []
    with pytest.raises(nextn.WorkerError, match=LOST.format(workers[which].address)):
        for chunk in over.stream(PROMPT, max_tokens=400):
            given += chunk.tokens
            if len(given) > 8:
                workers[which].kill()
    assert tuple(given[: len(wanted)]) == wanted[: len(given)]  # nothing that the lost worker did not compute


def test_a_worker_lost_while_it_computes(workers, over) -> None:
    over.generate(PROMPT, max_tokens=4)
    killed = threading.Event()

    def kill() -> None:
        workers[1].kill()
        killed.set()

    with pytest.raises(nextn.WorkerError, match=LOST.format(workers[1].address)):
        threading.Timer(0.05, kill).start()
        while not killed.is_set():
            over.generate(PROMPT, max_tokens=400)
        over.generate(PROMPT, max_tokens=400)


def test_it_can_be_loaded_again(workers, wanted) -> None:
    for _ in range(2):
        with speculator_over(workers) as speculator:
            assert speculator.generate(PROMPT, max_tokens=48).tokens == wanted
            workers[1].kill()
            with pytest.raises(nextn.WorkerError):
                speculator.generate(PROMPT, max_tokens=40)
        with pytest.raises(nextn.WorkerError, match="cannot be reached"):
            speculator_over(workers)
        with nextn.Speculator(nextn.bundled_model(), draft=FIXED, **SIZES) as here:
            assert here.generate(PROMPT, max_tokens=48).tokens == wanted
        workers[1].start()


def test_a_model_without_workers_uses_none(workers, wanted) -> None:
    with speculator_over(workers) as over:
        workers[0].kill()
        with nextn.Speculator(nextn.bundled_model(), draft=FIXED, **SIZES) as here:
            assert here.generate(PROMPT, max_tokens=48).tokens == wanted
        with pytest.raises(nextn.WorkerError):
            over.generate(PROMPT, max_tokens=40)


def test_the_work_space_of_kept_graphs_is_bounded(workers, tiny_model) -> None:
    """Each has work space of its own on a worker: for each width one it would be half a gigabyte here."""
    path = tiny_model("dense", n_vocab=200_000)
    with (
        nextn.Model(path, rpc_servers=[workers[0].address]) as model,
        nextn.Context(model, n_ctx=64, n_ubatch=36) as ctx,
    ):

        def compute_of(widths) -> int:
            for n_tokens in widths:
                ctx.seq_rm(0, -1, -1)
                ctx.decode([1] * n_tokens)
            return ctx.memory_usage()["compute"]

        own = ctx.memory_usage()["compute"]
        assert 100 << 20 < compute_of(range(1, 37)) - own < 320 << 20
        assert compute_of(range(1, 37)) - own < 320 << 20
        builds = ctx.n_graph_builds
        compute_of([36, 35, 34, 33] * 3)
        assert ctx.n_graph_builds == builds  # the newest ones are kept


def test_not_on_the_model_that_has_it_from_its_own_call(tiny_model) -> None:
    with nextn.Model(tiny_model("dense")) as model, pytest.raises(TypeError, match="rpc_servers is for a model"):
        nextn.Speculator(model, rpc_servers=["127.0.0.1:1"])
    with nextn.Model(tiny_model("dense")) as model, nextn.Speculator(model, rpc_servers=[], **SIZES):
        pass


@pytest.mark.parametrize(
    ("first", "last"),
    [
        ("", ""),
        ("", "speculator.close()"),
        ("signal.signal(signal.SIGPIPE, signal.SIG_DFL)", ""),  # as command line tools like it
    ],
    ids=["left", "closed", "pipe"],
)
def test_the_process_ends_in_order(workers, first, last) -> None:
    program = f"""
        import nextn, signal
        {first}
        speculator = nextn.Speculator(nextn.bundled_model(), rpc_servers={[w.address for w in workers]}, n_ctx=512)
        print("ready", flush=True)
        input()
        for _ in range(3):
            try:
                speculator.generate("Hello", max_tokens=9)
            except nextn.WorkerError as error:
                print(error)
        {last}
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout.readline() == "ready\n"
            workers[0].kill()
            out, err = process.communicate("\n", timeout=120)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    assert f"worker {workers[0].address} is lost" in out


# What is no worker


@contextlib.contextmanager
def stranger(answer: bytes):
    """Something that accepts connections and says this to each."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    kept.append(connection)
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        for connection in kept:
            connection.close()


OTHER_VERSION = (28).to_bytes(8, "little") + bytes([99, 0, 0, 0]) + bytes(24)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"+OK\r\n", OTHER_VERSION[:9], OTHER_VERSION],
    ids=["mute", "web", "mail", "halting", "new"],
)
def test_a_stranger(tiny_model, answer) -> None:
    with stranger(answer) as address, pytest.raises(nextn.WorkerError, match=f"{address} does not answer as a worker"):
        nextn.Model(tiny_model("dense"), rpc_servers=[address])


def test_one_that_serves_somebody_else(tiny_model, workers) -> None:
    with (
        socket.create_connection(("127.0.0.1", workers[0].port)),
        pytest.raises(nextn.WorkerError, match=rf"worker {workers[0].address} .*serves somebody else"),
    ):
        nextn.Model(tiny_model("dense"), rpc_servers=[workers[0].address])


def test_nobody_listens(tiny_model, workers) -> None:
    workers[0].kill()
    gc.collect()
    n_open = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(nextn.WorkerError, match=rf"worker {workers[0].address} cannot be reached .*refused"):
            nextn.Model(tiny_model("dense"), rpc_servers=[workers[0].address])
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= n_open


def test_such_words_in_a_file_are_no_worker(tmp_path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "the worker x")
    writer.add_tensor("token_embd.weight", np.zeros((8, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(nextn.UnsupportedArchitectureError, match="the worker x"):
        nextn.Model(tmp_path / "a.gguf")


def test_a_name_that_nobody_has(tiny_model) -> None:
    with pytest.raises(nextn.WorkerError, match=r"worker no\.invalid:50052 cannot be reached \(this name is not known"):
        nextn.Model(tiny_model("dense"), rpc_servers=["no.invalid:50052"])


@pytest.mark.parametrize("address", ["", "here", "here:", ":1", "here:0", "here:65536", "a:1,b:2", "[::1]:5", "a:-1"])
def test_a_wrong_address_is_named(tiny_model, address) -> None:
    with pytest.raises(ValueError, match=r"rpc_servers\[1\].*host:port"):
        nextn.Model(tiny_model("dense"), rpc_servers=["10.0.0.1:50052", address])


@pytest.mark.parametrize("value", ["127.0.0.1:1", 5, [5]])
def test_a_wrong_type_is_named(tiny_model, value) -> None:
    with pytest.raises(TypeError, match=r"rpc_servers.*host:port"):
        nextn.Model(tiny_model("dense"), rpc_servers=value)


# The command line


def nextn_generate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nextn", "generate", *arguments, "-c", "512", "-t", "1", "--temp", "0", "-n", "24"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_generate_over_workers(workers) -> None:
    there = nextn_generate("--rpc", ",".join(worker.address for worker in workers), "What is a list?")
    here = nextn_generate("What is a list?")
    assert (there.returncode, there.stdout) == (0, here.stdout)


def test_generate_says_what_is_wrong(workers) -> None:
    workers[1].kill()
    ended = nextn_generate("--rpc", ",".join(worker.address for worker in workers), "Hello")
    assert ended.returncode == 1
    assert f"worker {workers[1].address} cannot be reached" in ended.stderr
    assert "Traceback" not in ended.stderr
    ended = nextn_generate("--rpc", "nowhere", "Hello")
    assert ended.returncode == 2
    assert "--rpc" in ended.stderr and "host:port" in ended.stderr
