"""What the server answers with drafting is what the model answers without."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import nextn
import pytest

from .conftest import FIXED, OFF, SIZES, complete, drafted

GRAMMAR = 'root ::= "The answer" [^\\n]+'
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "n": {"type": "integer"}},
    "required": ["name", "n"],
}


def test_greedy_tokens_are_those_of_plain_decoding(client, prompts, plain) -> None:
    accepted = 0
    for prompt in prompts[:8]:
        answer = complete(client, prompt, 64)
        # the end-of-turn token is no token of the answer's list
        wanted = list(plain(prompt, 64))
        assert answer["tokens"] == wanted[: len(answer["tokens"])]
        assert len(answer["tokens"]) >= len(wanted) - 1
        accepted += drafted(answer)[1]
    assert accepted > 100  # or nothing was tested


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.9, "seed": 7},
        {"temperature": 0.7, "seed": 3, "top_k": 8, "repeat_penalty": 1.2},
        {"grammar": GRAMMAR},
        {"json_schema": SCHEMA},
        {"stop": [" is"]},
        {"n_predict": 5},
        {"ignore_eos": True, "n_predict": 90},
        {"logit_bias": [["the", 3.0]]},
    ],
    ids=lambda options: "+".join(options),
)
def test_same_text_with_and_without_drafts(client, prompts, options: dict[str, Any]) -> None:
    n = options.pop("n_predict", 48)
    for prompt in prompts[8:11]:
        with_drafts = complete(client, prompt, n, **options)
        without = complete(client, prompt, n, **options, **OFF)
        assert with_drafts["tokens"] == without["tokens"]
        assert with_drafts["content"] == without["content"]
        assert with_drafts["stop_type"] == without["stop_type"]
        assert drafted(with_drafts)[0] > 0 or n < 4
        assert drafted(without) == (0, 0, without["timings"]["predicted_n"] - 1)


def test_log_probabilities_of_drafted_tokens(client, prompts) -> None:
    options = {"n_probs": 3, "n": 40}
    for prompt in prompts[11:13]:
        found = complete(client, prompt, **options)
        wanted = complete(client, prompt, **options, **OFF)
        assert drafted(found)[1] > 0
        assert len(found["completion_probabilities"]) == len(wanted["completion_probabilities"]) > 5
        for a, b in zip(found["completion_probabilities"], wanted["completion_probabilities"], strict=True):
            assert a["id"] == b["id"]
            assert a["logprob"] == pytest.approx(b["logprob"], abs=1e-4)
            assert [t["id"] for t in a["top_logprobs"]] == [t["id"] for t in b["top_logprobs"]]


def test_probabilities_after_sampling_decode_plainly(client, prompts) -> None:
    options = {"n_probs": 3, "post_sampling_probs": True, "temperature": 0.8, "seed": 5}
    answer = complete(client, prompts[0], **options)
    assert drafted(answer)[0] == 0
    assert answer["completion_probabilities"][3]["top_probs"]


def test_slots_do_not_mix(server, client, prompts, plain) -> None:
    answers: dict[int, dict[str, Any]] = {}

    def ask(i: int) -> None:
        answers[i] = complete(client, prompts[i], 40 + 7 * (i % 3), cache_prompt=i % 2 == 0)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, answer in answers.items():
        wanted = list(plain(prompts[i], 40 + 7 * (i % 3)))
        assert answer["tokens"] == wanted[: len(answer["tokens"])], i
        assert len(answer["tokens"]) >= len(wanted) - 1
    assert len(answers) == 8
    assert sum(drafted(answer)[1] for answer in answers.values()) > 80


OPEN = "Once upon a time"  # where the model is not sure how to go on, and samplers make a difference


@pytest.mark.parametrize(
    "options",
    [
        {"logit_bias": [[11, -30.0]]},
        {"repeat_penalty": 1.3},
        {"ignore_eos": True},
        {"grammar": GRAMMAR},
        {"typical_p": 0.3},
        {"xtc_probability": 1.0},
        {"dry_multiplier": 2.0, "dry_allowed_length": 1},
        {"dynatemp_range": 0.5, "temperature": 0.5, "seed": 4},
        {"samplers": ["top_k"], "top_k": 20, "seed": 4},  # without temperature among them it draws
        {"temperature": 0.8, "seed": 4},
    ],
    ids=lambda options: "+".join(options),
)
def test_requests_that_need_logits_beside_one_that_does_not(
    client, undrafted, prompts, plain, options: dict[str, Any]
) -> None:
    """Of greedy requests only the arg-max leaves the graph, unless another slot wants more at the same time."""
    wanted = complete(undrafted, OPEN, 60, **options)["tokens"]
    assert wanted != complete(undrafted, OPEN, 60)["tokens"]
    greedy: list[list[int]] = []
    begun, enough = threading.Event(), threading.Event()

    def ask_again_and_again() -> None:
        body = {"prompt": prompts[21], "n_predict": 60, "temperature": 0, "stream": True}
        while not enough.is_set():
            greedy.append([])
            with client.stream("POST", "/completion", json=body) as response:
                for line in response.iter_lines():
                    greedy[-1] += json.loads(line[6:])["tokens"] if line.startswith("data: {") else []
                    begun.set()

    beside = threading.Thread(target=ask_again_and_again)
    beside.start()
    try:
        assert begun.wait(60)
        n_before = sum(map(len, greedy))
        together = [complete(client, OPEN, 60, **options) for _ in range(2)]
        n_beside = sum(map(len, greedy)) - n_before
    finally:
        enough.set()
        beside.join()
    assert [answer["tokens"] for answer in together] == 2 * [wanted]
    assert n_beside > 0  # the two really were under way at the same time
    tokens = list(plain(prompts[21], 60))
    for answer in greedy:
        assert answer == tokens[: len(answer)]
        assert len(answer) >= len(tokens) - 1


def test_several_answers_to_one_prompt(client, prompts, plain) -> None:
    body = {
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "n": 2,
        "temperature": 0,
        "max_tokens": 40,
    }
    answer = client.post("/v1/chat/completions", json=body).json()
    texts = [choice["message"]["content"] for choice in answer["choices"]]
    single = client.post("/v1/chat/completions", json={**body, "n": 1}).json()
    assert texts == 2 * [single["choices"][0]["message"]["content"]]


@pytest.mark.parametrize("path", ["/completion", "/v1/chat/completions"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"n_max": -1}, "n_max must be a whole number from 0 to 16"),
        ({"n_max": 17}, "n_max must be"),
        ({"n_max": 2.5}, "n_max must be"),
        ({"n_max": "4"}, "n_max must be"),
        ({"n_max": 2, "n_min": 3}, "n_min is more than n_max"),
        ({"p_min": 1.5}, "p_min must be a number from 0 to 1"),
        ({"type": "eagle"}, "type must be nextn, draft-mtp or none"),
        ({"type": "draft-mtp"}, "started with --spec-type nextn"),
        ({"n_maxx": 3}, "has no field 'n_maxx'"),
        ({"accept": "always"}, "accept must be auto, match or ratio"),
        ("nextn", "must be an object"),
        ([], "must be an object"),
    ],
    ids=str,
)
def test_wrong_values_are_errors_in_openais_form(client, path: str, value: object, words: str) -> None:
    body = {"prompt": "a", "messages": [{"role": "user", "content": "a"}], "max_tokens": 4, "speculative": value}
    response = client.post(path, json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert words in error["message"]
    assert error["type"] == "invalid_request_error"
    assert error["code"] == 400


def test_a_request_limits_its_drafts(client, prompts) -> None:
    for n_max in (0, 1, 3, 16):
        timings = complete(client, prompts[2], speculative={"type": "nextn", "n_max": n_max})["timings"]
        longest = min(n_max, 4)  # the server's own limit
        assert len(timings["accepted_per_position"]) == longest
        assert timings["draft_n"] <= longest * timings["n_rounds"]
        assert (timings["draft_n"] > 0) == (n_max > 0)
        if n_max == 0:
            assert timings["n_rounds"] == timings["predicted_n"] - 1
    unsure = complete(client, prompts[2], speculative={"p_min": 0.99})
    assert 0 < drafted(unsure)[0] < drafted(complete(client, prompts[2]))[0]
    timings = complete(client, prompts[2], speculative={"p_min": 0.9, "n_min": 4})["timings"]
    assert timings["drafted_per_position"] == 4 * [timings["draft_n"] // 4]
    assert 0 < timings["draft_n"] // 4 < timings["n_rounds"]  # of all the others none is left


def test_timings_and_metrics_tell_the_same(server, client, prompts) -> None:
    def metric(name: str) -> float:
        return server.metrics()[f"llamacpp:spec_decode_num_{name}"]

    def counter(name: str) -> float:
        return metric(f"{name}_total")

    positions = len(complete(client, prompts[4])["timings"]["accepted_per_position"])
    names = ["draft_tokens", "accepted_tokens", "drafts"]
    names_of_positions = [f'accepted_tokens_per_pos_total{{position="{i}"}}' for i in range(positions)]
    before = [counter(name) for name in names] + [metric(name) for name in names_of_positions]
    timings = complete(client, prompts[4])["timings"]
    after = [counter(name) for name in names] + [metric(name) for name in names_of_positions]
    told = [timings["draft_n"], timings["draft_n_accepted"], timings["drafted_per_position"][0]]
    assert [b - a for a, b in zip(before, after, strict=True)] == told + timings["accepted_per_position"]
    assert sum(timings["accepted_per_position"]) == timings["draft_n_accepted"] > 0
    assert timings["mean_accepted_len"] == pytest.approx(1 + timings["draft_n_accepted"] / timings["n_rounds"])
    assert min(timings["draft_ms"], timings["verify_ms"]) > 0
    assert timings["draft_ms"] + timings["verify_ms"] <= timings["predicted_ms"]


def test_upstreams_driver_of_the_head(prompts, plain) -> None:
    with nextn.Server(spec_type="draft-mtp", draft=FIXED, **SIZES) as server, server.client() as client:
        for prompt in prompts[:3]:
            wanted = list(plain(prompt, 48))
            answers = [
                complete(client, prompt, speculative=choice)
                for choice in ({"type": "draft-mtp"}, {"n_max": 0}, {"type": "none"}, {"type": "draft-mtp", "n_max": 2})
            ]
            for answer in answers:
                assert answer["tokens"] == wanted[: len(answer["tokens"])]
                assert len(answer["tokens"]) >= len(wanted) - 1
            n_drafted = [answer["timings"].get("draft_n", 0) for answer in answers]
            assert n_drafted[0] > 0 and n_drafted[3] > 0
            assert n_drafted[1:3] == [0, 0]
        body = {"prompt": "a", "n_predict": 2, "speculative": {"type": "nextn"}}
        response = client.post("/completion", json=body)
        assert response.status_code == 400
        assert "started with --spec-type draft-mtp" in response.json()["error"]["message"]


def test_without_a_page_the_root_says_so(client) -> None:
    response = client.get("/")
    assert response.status_code == 200
    assert "without its web page" in response.text


def test_the_connection_is_kept_behind_a_stream(server) -> None:
    body = {"prompt": "Hello", "n_predict": 4, "stream": True}
    addresses = set()
    with server.client() as client:
        for _ in range(20):
            with client.stream("POST", "/completion", json=body) as response:
                assert response.read().endswith(b"\n\n")
                addresses.add(response.extensions["network_stream"].get_extra_info("client_addr"))
    assert len(addresses) == 1


@pytest.mark.parametrize("vocab", [[5, 6, 7], range(3072), 512], ids=["three-ids", "every-id", "first-ids"])
def test_the_tokens_that_the_head_scores(vocab, prompts, plain, client) -> None:
    """Whatever they are, the text is the same; of words that are not among them only those of the text are drafted."""
    wanted, all_of_them = list(plain(prompts[2], 48)), drafted(complete(client, prompts[2]))
    draft = nextn.DraftParams(n_max=4, adaptive=False, vocab=vocab)
    with nextn.Server(draft=draft, **SIZES) as server, server.client() as of_vocab:
        answer = complete(of_vocab, prompts[2])
    assert answer["tokens"] == wanted[: len(answer["tokens"])]
    n_drafted, n_accepted, _ = drafted(answer)
    if vocab == range(3072):
        assert drafted(answer) == all_of_them
    else:
        assert n_drafted > 40
        assert n_accepted < all_of_them[1]


@pytest.mark.parametrize(
    ("vocab", "text"),
    [
        ("12", "at least 256 ids are scored, not 12"),
        ("4000", "--spec-draft-vocab goes up to id 3999, the model's ids to 3071"),
        ("ids.txt", "ids.txt cannot be read"),
        ("WORDS", "is no text file with one token id per line"),
        ("EMPTY", "is no text file with one token id per line"),
        ("NEGATIVE", "holds -1, which is no token id"),
    ],
)
def test_wrong_tokens_that_the_head_scores(vocab, text, tmp_path) -> None:
    contents = {"WORDS": "5\nsix\n", "EMPTY": "\n", "NEGATIVE": "5\n-1\n"}
    if vocab in contents:
        path = tmp_path / "ids.txt"
        path.write_text(contents[vocab])
        vocab = str(path)
    with (
        pytest.raises(nextn.ServerError, match=re.escape(text)),
        nextn.Server(extra_args=["--spec-draft-vocab", vocab], **SIZES),
    ):
        pass


def test_the_tokens_scored_belong_to_our_driver() -> None:
    with pytest.raises(ValueError, match="draft-mtp scores the whole vocabulary"):
        nextn.Server(spec_type="draft-mtp", draft=nextn.DraftParams(vocab=512))
