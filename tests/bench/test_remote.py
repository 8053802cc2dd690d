"""Servers: what is asked of them, what their answers become, what goes wrong; on made-up servers and on real ones."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nextn
import pytest
from nextn.bench import Arm, BenchOptions, load_suite, make_server_arms, run_bench, summarise
from nextn.bench.local import LocalRunner
from nextn.bench.plan import PLAIN
from nextn.bench.remote import ServerRunner
from nextn.bench.runner import Request, hash_text, hash_tokens


class Handler(BaseHTTPRequestHandler):
    """A llama-server's manners; class attributes say what it does."""

    obeys = True
    tells = False  # what the patched server's timings say besides
    broken: str | None = None
    asked: list[tuple[str, dict]] = []  # noqa: RUF012

    def log_message(self, *_):
        pass

    def do_GET(self):
        assert self.path == "/props"
        settings = {"n_ctx": 512}
        props = {"build_info": "b1-made-up", "model_path": "/nowhere/m.gguf", "total_slots": 1}
        self.answer({**props, "default_generation_settings": settings})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append((self.path, body))
        if self.broken == "status":
            self.answer({"error": {"message": "slot is busy"}}, 503)
            return
        if self.path == "/apply-template":
            self.answer({"prompt": " ".join(m["content"] for m in body["messages"])})
            return
        if self.path == "/tokenize":
            self.answer({"tokens": list(range(len(body["content"].split())))})
            return
        n_draft = body.get("speculative", {}).get("n_max", 4) if self.obeys else 4
        timings = {"prompt_n": 5, "prompt_ms": 2.0, "predicted_n": 11, "predicted_ms": 100.0}
        if n_draft:
            timings |= {"draft_n": 2 * n_draft, "draft_n_accepted": n_draft, "predicted_ms": 50.0}
        if self.tells:
            timings |= {"n_rounds": 9 if n_draft else 10, "draft_ms": 3.0, "verify_ms": 40.0}
            timings |= {"drafted_per_position": [2] * n_draft, "accepted_per_position": [n_draft][:n_draft]}
        if self.broken == "timings":
            self.answer({"content": "x", "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]})
        elif self.path == "/completion":
            self.answer({"content": "text", "tokens": [1, 2], "stop_type": "limit", "timings": timings})
        else:
            message = {"reasoning_content": "hm ", "content": "text"}
            self.answer({"choices": [{"message": message, "finish_reason": "stop"}], "timings": timings})

    def answer(self, body, status=200):
        data = b"no json" if self.broken == "json" and status == 200 else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def made_up_server(*, base=Handler, **manners):
    handler = type("ThisHandler", (base,), {"asked": [], **manners})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler
        finally:
            server.shutdown()
            thread.join()


def request(*, raw: bool = False, temperature: float = 0.0) -> Request:
    messages = None if raw else [{"role": "user", "content": "Hello"}]
    return Request(
        messages=messages, text="Hello" if raw else None, max_tokens=9, temperature=temperature, seed=3, ignore_eos=raw
    )


ARMS = make_server_arms([2])


def test_requests_switch_drafting():
    with made_up_server() as (url, handler), ServerRunner(ARMS, url + "/v1/") as runner:
        rows = {arm.name: runner.run(arm, request()) for arm in ARMS}
    assert [path for path, _ in handler.asked] == ["/v1/chat/completions"] * 4
    asked = {arm.name: body for arm, (_, body) in zip(ARMS, handler.asked, strict=True)}
    assert asked["plain"]["speculative"]["n_max"] == 0
    assert asked["n_max=2"]["speculative"]["n_max"] == 2
    assert "speculative" not in asked["as started"]
    for body in asked.values():
        assert not body["ignore_eos"]
        assert (body["max_tokens"], body["temperature"], body["cache_prompt"]) == (9, 0.0, False)
    assert (rows["n_max=2"].draft_n, rows["n_max=2"].draft_n_accepted, rows["plain"].draft_n) == (4, 2, 0)
    assert rows["n_max=2"].n_rounds == 11 - 1 - 2
    assert (rows["plain"].completion_tokens, rows["plain"].predicted_ms) == (11, 100.0)
    assert rows["plain"].text_sha256 == hash_text("hm text")
    assert rows["plain"].tokens_sha256 is None


def test_what_only_the_patched_server_tells():
    with made_up_server(tells=True) as (url, _), ServerRunner(ARMS, url) as runner:
        rows = {arm.name: runner.run(arm, request()) for arm in ARMS}
    drafting, plain = rows["n_max=2"], rows["plain"]
    assert (drafting.drafted_per_position, drafting.accepted_per_position) == ([2, 2], [2, 0])
    assert (drafting.draft_ms, drafting.verify_ms) == (3.0, 40.0)
    assert drafting.n_rounds == 9  # an accepted token was cut off
    assert (plain.drafted_per_position, plain.accepted_per_position, plain.n_rounds) == ([], [], 10)


def test_positions_are_told_whole_or_not_at_all():
    class Half(Handler):
        def answer(self, body, status=200):
            if "timings" in body:
                body["timings"]["drafted_per_position"] = [2]
            super().answer(body, status)

    with made_up_server(base=Half) as (url, _), ServerRunner(ARMS, url) as runner:
        row = runner.run(ARMS[-1], request())
    assert (row.drafted_per_position, row.accepted_per_position) == (None, None)


def test_a_file_at_the_path_that_is_no_model(tmp_path):
    (tmp_path / "m.gguf").write_bytes(b"something else")

    class Elsewhere(Handler):
        def answer(self, body, status=200):
            super().answer({**body, "model_path": str(tmp_path / "m.gguf")}, status)

    with made_up_server(base=Elsewhere) as (url, _), ServerRunner(ARMS, url) as runner:
        facts = runner.describe()
    assert (facts["model"], facts["server"][0]["model"]) == (None, "m.gguf")


def test_raw_prompts_go_to_completion():
    with made_up_server() as (url, handler), ServerRunner(ARMS, url) as runner:
        row = runner.run(ARMS[0], request(raw=True, temperature=0.5))
    path, body = handler.asked[0]
    assert (path, body["prompt"], body["n_predict"], body["seed"], body["top_k"]) == ("/completion", "Hello", 9, 3, 0)
    assert body["ignore_eos"]
    assert row.finish_reason == "length"
    assert row.tokens_sha256 == hash_tokens([1, 2])


def test_a_whole_run_against_a_server(tmp_path):
    options = BenchOptions(contexts=(60,), n_sweep_prompts=3)
    with made_up_server() as (url, _), ServerRunner(ARMS, url) as runner:
        receipt = run_bench(runner, load_suite().part(6), ARMS, options, tmp_path / "r.json")
    summary = summarise(receipt)
    speedups = {arm["arm"]: arm["speedup"] and arm["speedup"]["value"] for arm in summary["arms"]}
    assert speedups == {"plain": None, "plain again": 1.0, "as started": 2.0, "n_max=2": 2.0}
    assert receipt["server"][0]["build_info"] == "b1-made-up"
    assert receipt["model"] is None and receipt["engine"] is None


def test_a_server_for_each_arm():
    with made_up_server(obeys=False) as (one, first), made_up_server(obeys=False) as (two, second):
        arms = (Arm(name=PLAIN, kind="server", url=one), Arm(name="drafting", kind="server", url=two))
        with ServerRunner(arms) as runner:
            for arm in arms:
                runner.run(arm, request())
            assert [server["arms"] for server in runner.describe()["server"]] == [["plain"], ["drafting"]]
    assert len(first.asked) == len(second.asked) == 1
    assert "speculative" not in first.asked[0][1]


def test_a_server_that_does_not_obey_is_an_error():
    with (
        made_up_server(obeys=False) as (url, _),
        ServerRunner(ARMS, url) as runner,
        pytest.raises(nextn.ServerError, match=r"drafts although the request turns drafting off.*--server plain=URL"),
    ):
        runner.run(ARMS[0], request())


@pytest.mark.parametrize(
    ("broken", "message"),
    [("status", "answers 503: .*slot is busy"), ("timings", "without timings"), ("json", "is no JSON")],
)
def test_broken_answers(broken, message):
    with made_up_server() as (url, handler), ServerRunner(ARMS, url) as runner:
        handler.broken = broken
        with pytest.raises(nextn.ServerError, match=message):
            runner.run(ARMS[0], request())


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://"])
def test_no_server_there(url):
    with pytest.raises(nextn.ServerError, match="does not answer"):
        ServerRunner(ARMS, url)


@contextmanager
def real_server(*extra: str):
    """The packed llama-server on the bundled model; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(nextn.server_binary()), "-m", str(nextn.bundled_model()), "--host", "127.0.0.1", "--port", str(port),
               "-c", "512", "-np", "1", "-t", "1", "-tb", "1", *extra]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert process.poll() is None, "the server ended"
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def test_real_servers(tmp_path):
    """Plain decoding and upstream's own drafting, on the bundled model: counts, acceptance, the same text."""
    draft = ("--spec-type", "draft-mtp", "--spec-draft-n-max", "3")
    with real_server() as plain, real_server(*draft) as drafting:
        arms = (Arm(name=PLAIN, kind="server", url=plain), Arm(name="draft-mtp", kind="server", url=drafting))
        options = BenchOptions(max_tokens=40, contexts=(120,), n_sweep_prompts=1, raw=True)
        with ServerRunner(arms) as runner:
            receipt = run_bench(runner, load_suite().part(3), arms, options, tmp_path / "r.json")
    assert receipt["model"]["sha256"] == nextn.bundled.BUNDLED_SHA256
    summary = summarise(receipt)
    assert summary["exactness"]["different"] == []
    plain_arm, draft_arm = summary["arms"]
    assert plain_arm["draft_n"] == 0
    assert draft_arm["acceptance"]["value"] > 0.5
    assert all(60 < row["prompt_tokens"] <= 121 for row in receipt["rows"] if row["n_context"])


def test_the_patched_server_tells_the_positions(tmp_path):
    """Rows of the patched server hold what rows of a model in this process hold, and the same figures come of them."""
    options = BenchOptions(max_tokens=40, contexts=(120,), n_sweep_prompts=1)
    suite = load_suite().part(3)
    with (
        real_server("--spec-type", "nextn", "--spec-draft-n-max", "3", "--no-spec-draft-adaptive") as url,
        ServerRunner(ARMS, url) as runner,
    ):
        receipt = run_bench(runner, suite, ARMS, options, tmp_path / "r.json")
    arms = (*(Arm(name=arm.name, kind="plain") for arm in ARMS[:2]), Arm(name="as started", kind="fixed", n_max=3),
            Arm(name="n_max=2", kind="fixed", n_max=2))  # fmt: skip
    with (
        nextn.Model(nextn.bundled_model()) as model,
        LocalRunner(model, arms, n_ctx=512, n_threads=1) as runner,
    ):
        local = run_bench(runner, suite, arms, options, tmp_path / "l.json")
    assert counts(receipt) == counts(local)
    for row in receipt["rows"]:
        assert row["draft_ms"] is not None and row["verify_ms"] is not None
    summary = summarise(receipt)
    assert summary["exactness"]["different"] == []
    by_name = {arm["arm"]: arm for arm in summary["arms"]}
    assert {name: len(arm["positions"]) for name, arm in by_name.items()} == {
        "plain": 0, "plain again": 0, "as started": 3, "n_max=2": 2,
    }  # fmt: skip
    assert by_name["as started"]["positions"][0]["acceptance"]["value"] > 0.5


def counts(receipt):
    """What the rows say of rounds and tokens, by arm and prompt."""
    keys = ("completion_tokens", "n_rounds", "draft_n", "draft_n_accepted", "drafted_per_position")
    return {
        (row["arm"], row["prompt"], row["n_context"]): [*(row[key] for key in keys), row["accepted_per_position"]]
        for row in receipt["rows"]
    }
