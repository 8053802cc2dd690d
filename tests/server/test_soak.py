"""Mixed requests on four slots, for seconds or for ten minutes: no answer holds anything of another one."""

from __future__ import annotations

import random
import threading
import time

import nextn
import pytest

from .conftest import SIZES, complete


def test_soak_short(prompts) -> None:
    soak(prompts, 0.08)


@pytest.mark.long
def test_soak(prompts) -> None:
    soak(prompts, 10.0)


def soak(prompts: list[str], minutes: float) -> None:
    lengths = (8, 40, 120, 300)
    n_prompts = 3 if minutes < 1 else 12
    recorded: dict[tuple[int, int], list[int]] = {}
    problems: list[str] = []
    done = [0, 0]

    with nextn.Server(n_parallel=4, **SIZES) as server:
        with server.client() as client:
            for i in range(n_prompts):
                for n in lengths:
                    recorded[i, n] = complete(client, prompts[i], n, speculative={"type": "none"})["tokens"]

        def work(seed: int) -> None:
            rng = random.Random(seed)
            with server.client() as client:
                while time.monotonic() < end and not problems:
                    kind = rng.random()
                    i, n = rng.randrange(n_prompts), rng.choice(lengths)
                    if kind < 0.5:
                        tokens = complete(client, prompts[i], n, cache_prompt=rng.random() < 0.5)["tokens"]
                        done[0] += 1
                        if tokens != recorded[i, n]:
                            problems.append(f"prompt {i}, {n} tokens: {tokens} instead of {recorded[i, n]}")
                    elif kind < 0.8:
                        nonce = f"{rng.randrange(10**9):09d}"
                        nonces.add(nonce)
                        text = complete(client, f"{nonce} {prompts[i]}", n, temperature=0.8, seed=rng.randrange(99))
                        done[0] += 1
                        if any(other in text["content"] for other in nonces - {nonce}):
                            problems.append(f"a nonce of another request in {text['content']!r}")
                    else:
                        body = {"prompt": prompts[i], "n_predict": 500, "stream": True, "ignore_eos": True}
                        with client.stream("POST", "/completion", json=body) as response:
                            for k, _ in enumerate(response.iter_raw()):
                                if k >= rng.randrange(30):
                                    break
                        done[1] += 1

        nonces: set[str] = set()
        end = time.monotonic() + 60 * minutes
        workers = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert not problems
        assert not any(slot["is_processing"] for slot in server.slots())
    assert min(done) >= max(1, 10 * minutes)
