"""Mixed requests on four slots, for seconds or for ten minutes: no answer holds anything of another one."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter, deque
from typing import Any

import nextn
import pytest

from .conftest import SIZES, complete

LENGTHS = (8, 40, 120, 300)
PLAIN = {"type": "none"}


def test_soak_short(prompts) -> None:
    soak(prompts, 0.08)


@pytest.mark.long
def test_soak(prompts) -> None:
    soak(prompts, 10.0)


class Nonces:
    """Three numbers of which a prompt asks the mean: the model repeats them, each request has its own."""

    def __init__(self) -> None:
        self._left = list(itertools.permutations(range(2, 30), 3))
        random.Random(1).shuffle(self._left)
        self._recent: deque[tuple[int, ...]] = deque(maxlen=64)
        self._lock = threading.Lock()

    def next(self) -> tuple[int, ...]:
        with self._lock:
            self._recent.append(self._left.pop())
            return self._recent[-1]

    def foreign(self, own: tuple[int, ...], text: str) -> list[str]:
        """Those of other requests in a text. A slip of the model's keeps some of its own numbers."""
        with self._lock:
            others = [written(nonce) for nonce in self._recent if not set(nonce) & set(own)]
        return [other for other in others if f" {other} " in text]


def written(nonce: tuple[int, ...]) -> str:
    """As the model writes it."""
    return " + ".join(map(str, nonce))


class Soak:
    """What several threads do with one server, and what came of it."""

    def __init__(self, server: nextn.Server, prompts: list[str], seconds: float) -> None:
        self.server = server
        self.prompts = prompts
        self.nonces = Nonces()
        self.done: Counter[str] = Counter()
        self.problems: list[str] = []
        with server.client() as client:
            self.recorded = {
                (i, n): complete(client, prompts[i], n, speculative=PLAIN)["tokens"]
                for i in range(len(prompts))
                for n in LENGTHS
            }
        self.end = time.monotonic() + seconds

    def run(self, n_threads: int) -> None:
        threads = [threading.Thread(target=self.work, args=(seed,)) for seed in range(n_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def work(self, seed: int) -> None:
        rng = random.Random(seed)
        steps = (self.ask_recorded, self.ask_with_nonce, self.break_off)
        try:
            with self.server.client() as client:
                while time.monotonic() < self.end and not self.problems:
                    rng.choices(steps, (4, 4, 2))[0](client, rng)
        except BaseException as error:
            self.problems.append(repr(error))
            raise

    def ask_recorded(self, client: Any, rng: random.Random) -> None:
        i, n = rng.randrange(len(self.prompts)), rng.choice(LENGTHS)
        tokens = complete(client, self.prompts[i], n, cache_prompt=rng.random() < 0.5)["tokens"]
        self.done["recorded"] += 1
        if tokens != self.recorded[i, n]:
            self.problems.append(f"prompt {i}, {n} tokens: {tokens} instead of {self.recorded[i, n]}")

    def ask_with_nonce(self, client: Any, rng: random.Random) -> None:
        """Greedy, drawn with a seed (both as plain decoding does it), or drawn without one, with the ratio rule."""
        own = self.nonces.next()
        question = "Find the mean of {}, {} and {}.".format(*own)
        prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        kind = rng.choice(("greedy", "seeded", "ratio"))
        options: dict[str, Any] = {"greedy": {}, "seeded": {"temperature": 0.8, "seed": rng.randrange(10**6)}}.get(
            kind, {"temperature": 0.8}
        )
        text = complete(client, prompt, 80, **options)["content"]
        self.done[kind] += 1
        self.done["echoes"] += written(own) in text
        if foreign := self.nonces.foreign(own, text):
            self.problems.append(f"{foreign} of other requests in the answer to {written(own)}: {text!r}")
        if kind != "ratio":
            wanted = complete(client, prompt, 80, speculative=PLAIN, **options)["content"]
            self.done["plain"] += 1
            if text != wanted:
                again = [complete(client, prompt, 80, speculative=s, **options)["content"] for s in (None, PLAIN)]
                self.problems.append(f"{question} {options}: {text!r} instead of {wanted!r}; again: {again}")

    def break_off(self, client: Any, rng: random.Random) -> None:
        body = {"prompt": rng.choice(self.prompts), "n_predict": 500, "stream": True, "ignore_eos": True}
        last = rng.randrange(30)
        with client.stream("POST", "/completion", json=body) as response:
            next(itertools.islice(response.iter_raw(), last, None), None)
        self.done["broken off"] += 1


def soak(prompts: list[str], minutes: float) -> None:
    with nextn.Server(n_parallel=4, **SIZES) as server:
        tried = Soak(server, prompts[: 3 if minutes < 1 else 12], 60 * minutes)
        tried.run(n_threads=6)
        assert not tried.problems, "\n".join([*tried.problems, str(tried.done)])
        assert settled(server)
        accepted = server.metrics()["llamacpp:spec_decode_num_accepted_tokens_total"]
    done = tried.done
    print(f"{dict(done)}, {accepted:.0f} drafted tokens accepted")
    assert min(done[kind] for kind in ("recorded", "greedy", "seeded", "ratio", "broken off")) >= max(1, minutes)
    # the model repeats nearly all: a leak would show
    assert done["echoes"] > 0.7 * (done["greedy"] + done["seeded"] + done["ratio"])
    assert accepted > done["recorded"]


def settled(server: nextn.Server) -> bool:
    """Whether no slot works any longer, soon: a slot notices a connection that broke off with its next token."""
    end = time.monotonic() + 30
    while any(slot["is_processing"] for slot in server.slots()):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
