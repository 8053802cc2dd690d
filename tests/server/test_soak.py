"""Mixed requests on four slots, for seconds or for ten minutes: no answer holds anything of another one."""

from __future__ import annotations

import random
import threading
import time

import nextn
import pytest

from .conftest import OFF, SIZES, complete, wait_until


def test_soak_short(prompts) -> None:
    soak(prompts, 0.08)


@pytest.mark.long
def test_soak(prompts) -> None:
    soak(prompts, 10.0)


def sums(n: int) -> dict[str, str]:
    """Prompts by the number in each, which most answers repeat and no other prompt holds."""
    form = "<|im_start|>user\nWhat is {} plus 1?<|im_end|>\n<|im_start|>assistant\n"
    return {str(number): form.format(number) for number in random.Random(0).sample(range(100, 1000), n)}


def soak(prompts: list[str], minutes: float) -> None:
    lengths = (8, 40, 120, 300)
    n_prompts = 3 if minutes < 1 else 12
    nonce_of = {prompt: nonce for nonce, prompt in sums(6 if minutes < 1 else 60).items()}
    asked = [*prompts[:n_prompts], *nonce_of]
    recorded: dict[tuple[str, int], list[int]] = {}
    problems: list[str] = []
    done = [0, 0]
    echoed = [0]

    with nextn.Server(n_parallel=4, **SIZES) as server:
        with server.client() as client:
            for prompt in asked:
                for n in lengths:
                    recorded[prompt, n] = complete(client, prompt, n, **OFF)["tokens"]

        def work(seed: int) -> None:
            rng = random.Random(seed)
            with server.client() as client:
                while time.monotonic() < end and not problems:
                    kind = rng.random()
                    prompt = rng.choice(prompts[:n_prompts] if rng.random() < 0.5 else list(nonce_of))
                    n = rng.choice(lengths)
                    if kind < 0.5:
                        answer = complete(client, prompt, n, cache_prompt=rng.random() < 0.5)
                        done[0] += 1
                        echoed[0] += nonce_of.get(prompt, "none") in answer["content"]
                        if answer["tokens"] != recorded[prompt, n]:
                            problems.append(f"{prompt!r}, {n} tokens: {answer['tokens']} != {recorded[prompt, n]}")
                    elif kind < 0.8:
                        nonce = f"{rng.randrange(10**9):09d}"
                        nonces.add(nonce)
                        text = complete(client, f"{nonce} {prompt}", n, temperature=0.8, seed=rng.randrange(99))
                        done[0] += 1
                        if any(other in text["content"] for other in nonces - {nonce}):
                            problems.append(f"a nonce of another request in {text['content']!r}")
                    else:
                        body = {"prompt": prompt, "n_predict": 500, "stream": True, "ignore_eos": True}
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
        assert wait_until(lambda: not any(slot["is_processing"] for slot in server.slots()))
        n_accepted = server.metrics()["llamacpp:spec_decode_num_accepted_tokens_total"]
    print(
        f"{done[0]} answers checked, {done[1]} broken off, {echoed[0]} repeat their number, {n_accepted:.0f} accepted"
    )
    assert n_accepted > 0
    assert echoed[0] > 0
    assert min(done) >= max(1, 10 * minutes)
