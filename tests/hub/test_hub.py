"""Models from a hub: which file is fetched, broken downloads, no network, errors; against a server on loopback."""

from __future__ import annotations

import os
import subprocess

import pytest
from nextn import server_binary
from nextn.bundled import bundled_model
from nextn.errors import ModelFileError
from nextn.hub import _choose, parse_hf

LOAD = """
    import nextn
    with nextn.Model.from_pretrained("someone/models", {arguments}) as model:
        print(model.architecture, model.n_vocab)
"""


def load(arguments=""):
    return LOAD.replace("{arguments}", arguments)


@pytest.fixture
def demo():
    return bundled_model().read_bytes()


def test_fetched_once(hub, run, demo):
    hub.files = {"demo-Q8_0.gguf": demo, "demo-F16.gguf": b"never asked for"}
    for arguments in ('"*Q8_0.gguf"', 'quant="q8_0"', '"demo-Q8_0.gguf", revision="main"'):
        assert run(code=load(arguments)) == (0, "qwen35 3072\n", "")
    assert len(hub.downloads()) == 1
    assert hub.sent == {"demo-Q8_0.gguf": len(demo)}


def test_a_broken_download_is_resumed(hub, run, demo):
    data = demo + bytes(32_000_000)  # huggingface_hub keeps what it has in steps of 10 MB
    hub.files = {"demo.gguf": data}
    hub.break_after = 25_000_000
    code, out, err = run(code=load())
    if code != 0:  # the package may have tried again by itself
        assert "cannot be fetched" in err
        code, out, err = run(code=load())
    assert (code, out) == (0, "qwen35 3072\n"), err
    ranges = [entry[2] for entry in hub.downloads() if entry[2]]
    assert ranges, "it began anew"
    assert hub.sent["demo.gguf"] < len(data) + 20_000_000


def test_without_a_network_the_cache_is_used(hub, run, demo):
    hub.files = {"demo-Q8_0.gguf": demo}
    assert run(code=load())[0] == 0
    n_asked = len(hub.requests)
    assert run(code=load(), HF_HUB_OFFLINE="1") == (0, "qwen35 3072\n", "")
    assert run(code=load('"*Q8*", local_files_only=True')) == (0, "qwen35 3072\n", "")
    assert len(hub.requests) == n_asked
    code, _, err = run(code=load('"other.gguf"'), HF_HUB_OFFLINE="1")
    assert code == 1
    assert "someone/models has no file that matches 'other.gguf'; it has demo-Q8_0.gguf" in err


@pytest.mark.parametrize("wanted", [True, False])
def test_a_progress_bar_when_it_is_asked_for(hub, run, demo, wanted):
    hub.files = {"demo-Q8_0.gguf": demo}
    # without this variable tqdm shows its bars on terminals only
    code, out, err = run(code=load(f"progress_bar={wanted}"), TQDM_POSITION="-1")
    assert (code, out) == (0, "qwen35 3072\n")
    assert ("demo-Q8_0.gguf" in err and "%" in err) if wanted else err == ""


@pytest.mark.slow  # huggingface_hub tries again for 20 seconds
def test_a_hub_that_does_not_answer(hub, run, demo):
    hub.files = {"demo-Q8_0.gguf": demo}
    assert run(code=load())[0] == 0
    assert run(code=load(), HF_ENDPOINT="http://127.0.0.1:9") == (0, "qwen35 3072\n", "")


def test_nothing_in_the_cache_and_no_network(run):
    code, _, err = run(code=load(), HF_HUB_OFFLINE="1")
    assert code == 1
    assert "nextn.errors.ModelFileError: someone/models: is not in the cache" in err


@pytest.mark.parametrize(
    ("repo", "arguments", "text"),
    [
        ("someone/else", "", "someone/else: there is no such repository, or it is private"),
        ("someone/models", ', revision="other-branch"', "someone/models: there is no such revision"),
        (
            "someone/models",
            ', "*Q4_0*"',
            "someone/models has no file that matches '*Q4_0*'; it has a-Q8_0",
        ),
        ("someone/models", "", "has more than one GGUF model: a-Q8_0.gguf, b.gguf; name one of them"),
        ("a/b/c/d", "", "a/b/c/d: is no name of a repository"),
    ],
)
def test_errors_name_the_repository_and_what_it_has(hub, run, repo, arguments, text):
    hub.files = {"a-Q8_0.gguf": b"x", "b.gguf": b"x"}
    code, _, err = run(code=f"import nextn\nnextn.Model.from_pretrained({repo!r}{arguments})")
    assert code == 1
    assert text in err.splitlines()[-1]


def test_hf_on_the_command_line(hub, run, demo):
    hub.files = {"demo-Q8_0.gguf": demo, "mmproj-demo.gguf": b"x"}
    ask = ["-m", "nextn", "generate", "-n", "5", "What is the capital of France?"]
    code, out, err = run(*ask, "-hf", "someone/models:q8_0")
    assert (code, out) == (0, "The capital of Fran\n"), err
    assert run(*ask, "-hf", "someone/models")[1] == out
    code, _, err = run(*ask, "-hf", "someone/models:Q4_0")
    assert code == 1
    assert "nextn: error: someone/models has no model of quantization 'Q4_0'; it has demo-Q8_0.gguf" in err
    code, _, err = run(*ask, "-hf", "nonsense")
    assert (code, "user/repo:quant" in err) == (2, True)
    code, _, err = run(*ask, "-hf", "someone/models", "-m", "x.gguf")
    assert code == 2


NAMES = [
    "m-Q4_0.gguf", "m-Q4_K_M.gguf", "m-Q4_0_4_4.gguf", "mmproj-F16.gguf", "UD/m-UD-Q4_K_XL-00002-of-00002.gguf",
    "UD/m-UD-Q4_K_XL-00001-of-00002.gguf",
]  # fmt: skip


@pytest.mark.parametrize(
    ("filename", "quant", "found"),
    [
        (None, None, ["m-Q4_K_M.gguf"]),
        (None, "q4_0", ["m-Q4_0.gguf"]),
        (None, "Q4_K_XL", NAMES[:3:-1]),
        ("*Q4_K_XL*", None, NAMES[:3:-1]),
        ("m-UD-Q4_K_XL-00001-of-00002.gguf", None, NAMES[:3:-1]),
        ("m-UD-Q4_K_XL.gguf", None, NAMES[:3:-1]),
        ("UD/*", None, NAMES[:3:-1]),
        ("*_4.gguf", None, ["m-Q4_0_4_4.gguf"]),
    ],
)
def test_choice(filename, quant, found):
    assert _choose("a/b", NAMES, filename, quant) == found


@pytest.mark.parametrize(("filename", "quant"), [("*Q4_*", None), (None, "q5_0"), (None, "Q4"), ("*mmproj*", None)])
def test_no_choice(filename, quant):
    with pytest.raises(ModelFileError, match="m-Q4_0.gguf"):
        _choose("a/b", NAMES, filename, quant)


def test_only_projectors():
    with pytest.raises(ModelFileError, match="has no GGUF model; it has no GGUF file at all"):
        _choose("a/b", [], None, None)


def test_names():
    assert parse_hf("user/repo-GGUF") == ("user/repo-GGUF", None)
    assert parse_hf("user/repo.x:UD-Q4_K_XL") == ("user/repo.x", "UD-Q4_K_XL")
    for wrong in ("repo", "a/b/c", "a/b:", "", "a/b:c:d", "a b/c"):
        with pytest.raises(ValueError, match="user/repo:quant"):
            parse_hf(wrong)


@pytest.mark.parametrize("spec_type", ["nextn", "draft-mtp"])
def test_the_servers_own_client_loads_one_file_once(hub, demo, tmp_path, spec_type):
    """The binary's -hf and -hfd: our driver sees that both name one file, upstream's loads it again."""
    hub.files = {"demo-Q8_0.gguf": demo}
    model = ["-hf", "someone/models:Q8_0", "-hfd", "someone/models:Q8_0"]
    command = [server_binary(), *model, "--spec-type", spec_type, "-c", "512", "-t", "1", "--port", "0"]
    environment = {**os.environ, "MODEL_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "LLAMA_CACHE": str(tmp_path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "listening on" in line:
                break
        process.kill()
    log = "".join(lines)
    assert "listening on" in log
    assert ("against the target model" in log) == (spec_type == "nextn"), log
    assert len(hub.downloads()) == 1


def test_serve_from_a_hub(hub, run, demo):
    """nextn serve -hf, with the fetched file as draft model, too."""
    hub.files = {"demo-Q8_0.gguf": demo}
    assert run(code=load())[0] == 0
    code = """
        import json, signal, subprocess, sys
        from nextn.hub import download
        model = str(download("someone/models", None, quant="Q8_0"))
        command = [sys.executable, "-m", "nextn", "serve", "-hf", "someone/models:Q8_0", "-md", model]
        command += ["--port", "0", "-c", "512", "-t", "1", "--json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        print(json.loads(process.stdout.readline())["spec_type"])
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        print(process.returncode)
    """
    assert run(code=code) == (0, "nextn\n0\n", "")
    assert len(hub.downloads()) == 1
