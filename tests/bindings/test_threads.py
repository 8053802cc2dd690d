"""One context and many threads: calls wait for each other, none of them holds the GIL, and nothing is torn."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import nextn
import numpy as np
import pytest


def test_hammering_one_context(demo, make_context, tokens):
    """Every thread decodes its own sequence and reads all rows meanwhile; the results are those of one thread."""
    context = make_context(demo, n_ctx=2048, n_seq_max=8, n_threads=1)
    alone = make_context(demo, n_threads=1)
    alone.decode(tokens[:1])
    wanted = [alone.logits()[-1]]
    for token in tokens[1:]:
        alone.decode([token])
        wanted.append(alone.logits()[-1])
    lock = threading.Lock()  # decode and read as one step
    stop = threading.Event()

    def own_sequence(seq_id):
        for round_ in range(3):
            for i, token in enumerate(tokens):
                with lock:
                    context.decode([token], seq_id=seq_id)
                    row = context.logits()[-1]
                assert np.allclose(row, wanted[i], atol=1e-4), (round_, i)
            assert context.seq_pos_max(seq_id) == len(tokens) - 1
            assert context.nextn_seq_rm(seq_id, 0, -1)

    def look():
        while not stop.is_set():
            rows = context.hidden()
            assert rows.shape == (1, demo.n_embd)
            assert np.isfinite(rows).all()
            assert context.memory_usage()["model"] > 0
            assert context.max_rollback(3) == 0

    context.decode([1], seq_id=0)
    context.nextn_seq_rm(0, 0, -1)
    with ThreadPoolExecutor(11) as pool:
        readers = [pool.submit(look) for _ in range(3)]
        writers = [pool.submit(own_sequence, seq_id) for seq_id in range(8)]
        for writer in writers:
            writer.result()
        stop.set()
        for reader in readers:
            reader.result()


def test_unguarded_decodes_keep_the_memory_sound(demo, make_context):
    context = make_context(demo, n_seq_max=4, n_ctx=4096, n_threads=1)

    def run(seq_id):
        for _ in range(60):
            context.decode([seq_id + 5], seq_id=seq_id)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(run, i % 4) for i in range(8)]:
            future.result()
    assert [context.seq_pos_max(i) for i in range(4)] == [119] * 4


def test_several_contexts_of_one_model(demo, tokens):
    def run(_):
        with nextn.Context(demo, n_ctx=512, n_threads=1) as context:
            context.decode(tokens)
            return context.logits()

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(run, range(8))
    assert all(np.array_equal(first, other) for other in others)


def test_python_runs_during_a_decode(demo, make_context):
    context = make_context(demo, n_ctx=4096, n_batch=4096, n_ubatch=32, n_threads=1)
    thread = threading.Thread(target=context.decode, args=([5] * 2000,), kwargs={"outputs": "none"})
    steps = 0
    start = time.process_time()
    thread.start()
    while thread.is_alive():
        steps += 1
        time.sleep(0.001)
    assert steps > 20 * (time.process_time() - start)  # with the GIL held it would be 1 or 2


def test_a_reader_waits_for_the_decode(demo, make_context):
    context = make_context(demo, n_ctx=4096, n_batch=4096, n_ubatch=32, n_threads=1)
    context.decode([1, 2, 3])
    thread = threading.Thread(target=context.decode, args=([5] * 1500,), kwargs={"outputs": "last"})
    thread.start()
    while context.n_graph_builds + context.n_graph_reuses < 2 and thread.is_alive():
        pass
    rows = context.logits()
    thread.join()
    assert rows.shape in ((3, demo.n_vocab), (1, demo.n_vocab))
    assert context.seq_pos_max() == 1502


@pytest.mark.parametrize("repeat", range(5))
def test_close_while_others_use_it(demo, repeat):
    context = nextn.Context(demo, n_ctx=2048, n_threads=1)
    started = threading.Barrier(5)

    def run():
        started.wait()
        try:
            for i in range(2000):
                context.decode([i % 100])
                context.hidden()
        except nextn.ClosedError:
            return "closed"
        return "done"

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(run) for _ in range(4)]
        started.wait()
        time.sleep(0.01 * (repeat + 1))
        context.close()
        assert {future.result() for future in futures} == {"closed"}


def test_pairing_freeing_and_trimming_at_once(demo):
    """Contexts are paired, unpaired and freed while other threads use them: no deadlock, no crash."""
    targets = [nextn.Context(demo, n_ctx=512, n_rs_seq=2, n_threads=1) for _ in range(2)]
    stop = threading.Event()
    hidden = np.zeros((2, demo.n_embd), np.float32)

    def pair():
        while not stop.is_set():
            draft = nextn.Context(demo, n_ctx=256, nextn_draft=True, n_threads=1)
            for target in targets:
                with contextlib.suppress(ValueError):  # another thread paired first
                    target.pair(draft)
                    draft.decode([1, 2], hidden=hidden)
            if stop.wait(0.001):
                draft.close()

    def use(target):
        while not stop.is_set():
            target.decode([1, 2])
            target.nextn_seq_rm(0, target.seq_pos_max(), -1)
            target.nextn_seq_rm(0, -1, -1)

    threads = [threading.Thread(target=pair) for _ in range(2)]
    threads += [threading.Thread(target=use, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    time.sleep(2)
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    for target in targets:
        target.close()
