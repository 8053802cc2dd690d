"""The command line as users meet it: what it prints where, exit codes, wrong input."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from itertools import count
from pathlib import Path

import nextn
import pytest
from nextn import cli
from nextn._cli import demo, talk
from nextn._cli.errors import name_options
from nextn._cli.interrupt import abort_on_interrupt
from nextn._cli.talk import Progress
from nextn.bundled import bundled_model
from nextn.stats import Counters

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris. France is in Europe, and its main language is French."
CODE = "Write a Python function that multiplies each number in a list by 6."
BUNDLED_NOTE = "no -m FILE: using the small demo model that comes with nextn\n"
NUMBER = r"\d+(?:\.\d+)?"
SUMMARY = (
    rf"prompt \d+ tokens in \d+ ms, then \d+ tokens, {NUMBER} tokens/s; "
    rf"drafted \d+, accepted \d+ \({NUMBER}%\), mean accepted length {NUMBER}\n"
)
STATS = {
    *("prompt_tokens", "completion_tokens", "draft_n", "draft_n_accepted", "acceptance_rate", "n_rounds"),
    *("mean_accepted_len", "accepted_per_position", "ttft_ms", "prompt_ms", "predicted_ms", "tokens_per_second"),
    *("draft_ms", "verify_ms", "cache_n", "prompt_draft_ms"),
}


def nextn_command(*args, stdin="", **options):
    """Run the command in a process of its own."""
    options.setdefault("env", {**os.environ, "PYTHONWARNINGS": "error", "COLUMNS": "100"})
    return subprocess.run(
        [sys.executable, "-m", "nextn", *args], input=stdin, capture_output=True, text=True, timeout=300, **options
    )


@pytest.fixture
def main(capsys, monkeypatch):
    """Run the command in this process: exit code, standard output, standard error."""
    monkeypatch.delenv("NEXTN_DEBUG", raising=False)

    def main(*args):
        code = cli.main(args)
        out, err = capsys.readouterr()
        return code, out, err

    return main


@pytest.fixture(scope="module")
def reference():
    """What the Python API answers, plainly decoded."""
    with nextn.Speculator(bundled_model(), draft=None) as plain:
        return {text: plain.chat([{"role": "user", "content": text}]) for text in (QUESTION, CODE)}


# generate


def test_generate_streams_text_to_stdout_and_talk_to_stderr(reference):
    done = nextn_command("generate", CODE)
    assert done.returncode == 0
    assert done.stdout == reference[CODE].text + "\n"
    assert done.stderr.startswith(BUNDLED_NOTE)
    assert re.fullmatch(SUMMARY, done.stderr.removeprefix(BUNDLED_NOTE))


def test_generate_json_is_one_object(main, reference):
    code, out, err = main("generate", "--json", CODE)
    assert code == 0
    assert out.count("\n") == 1
    answer = json.loads(out)
    assert set(answer) == {"text", "tokens", "finish_reason", "stats"}
    assert set(answer["stats"]) == STATS
    assert (answer["text"], tuple(answer["tokens"])) == (reference[CODE].text, reference[CODE].tokens)
    assert answer["finish_reason"] == "stop"
    stats = answer["stats"]
    assert stats["completion_tokens"] == len(answer["tokens"])
    assert 0 < stats["draft_n_accepted"] <= stats["draft_n"]
    assert sum(stats["accepted_per_position"]) == stats["draft_n_accepted"]
    assert err.startswith(BUNDLED_NOTE)


@pytest.mark.parametrize(
    "options",
    [
        ["--no-draft"],
        ["--draft-max", "1"],
        ["--draft-max", "8", "--no-adaptive", "--draft-min", "2"],
        ["--draft-vocab", "full"],
    ],
)
def test_the_text_does_not_depend_on_drafting(main, reference, options):
    code, out, err = main("generate", *options, CODE)
    assert (code, out) == (0, reference[CODE].text + "\n")
    assert ("no drafting" in err) == (options == ["--no-draft"])


def test_draft_p_min_shortens_drafts(main):
    drafted = [
        json.loads(main("generate", "--json", "--no-adaptive", "--draft-p-min", p, CODE)[1])["stats"]["draft_n"]
        for p in "01"
    ]
    assert drafted[1] < drafted[0]


def test_the_bundled_note_is_only_for_the_bundled_model(main):
    code, out, err = main("generate", "-m", str(bundled_model()), QUESTION)
    assert (code, out) == (0, ANSWER + "\n")
    assert "demo model" not in err


def test_prompt_from_stdin_and_from_a_file(tmp_path, main):
    assert nextn_command("generate", stdin=QUESTION + "\n").stdout == ANSWER + "\n"
    assert nextn_command("generate", "-", stdin=QUESTION).stdout == ANSWER + "\n"
    prompt = tmp_path / "prompt.txt"
    prompt.write_bytes(QUESTION.encode() + b"\r\n")
    assert main("generate", "-f", str(prompt))[1] == ANSWER + "\n"


def test_raw_continues_the_text(main):
    with nextn.Speculator(bundled_model(), draft=None) as plain:
        expected = plain.generate("def add(a, b):", max_tokens=12)
    code, out, _ = main("generate", "--raw", "--json", "-n", "12", "def add(a, b):")
    assert (code, json.loads(out)["text"]) == (0, expected.text)


def test_system_prompt_is_a_message(main):
    with nextn.Speculator(bundled_model(), draft=None) as plain:
        messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": QUESTION}]
        n_prompt = plain.chat(messages, max_tokens=1).stats.prompt_tokens
    out = main("generate", "--json", "-n", "1", "-sys", "Answer briefly.", QUESTION)[1]
    assert json.loads(out)["stats"]["prompt_tokens"] == n_prompt


def test_limit_and_stop(main):
    assert json.loads(main("generate", "--json", "-n", "3", QUESTION)[1])["finish_reason"] == "length"
    assert main("generate", "-n", "3", QUESTION)[2].endswith("; cut off by -n\n")
    assert main("generate", "--stop", "Paris", "--stop", " is", QUESTION)[1] == "The capital of France\n"


def test_a_full_context_ends_the_text(main, tiny_model):
    code, out, err = main("generate", "--raw", "--json", "-c", "64", "-m", str(tiny_model("dense")), "a")
    assert (code, json.loads(out)["finish_reason"]) == (0, "length")
    assert err.endswith("; cut off by a full context (-c)\n")


def test_the_same_seed_gives_the_same_text(main):
    run = ["generate", "--temp", "1.5", "-n", "40", "--raw", "Once"]
    texts = [main(*run, "-s", seed)[1] for seed in ("7", "7", "8")]
    assert texts[0] == texts[1] != texts[2]


def test_every_context_option_is_passed_on(main):
    options = [
        "-c",
        "256",
        "-b",
        "64",
        "-ub",
        "32",
        "-t",
        "1",
        "-tb",
        "1",
        "-fa",
        "on",
        "-ctk",
        "q8_0",
        "-ctv",
        "q8_0",
        "-ngl",
        "0",
        "--no-mmap",
    ]
    code, out, _ = main("generate", *options, "-n", "5", QUESTION)
    assert (code, out) == (0, "The capital of Fran\n")


def test_a_closed_reader_ends_it_quietly():
    run = f"{sys.executable} -m nextn generate '{CODE}' | head -c 5; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", run], capture_output=True, text=True, timeout=300)
    assert done.stdout[5:].strip() == "141"
    assert done.stderr == BUNDLED_NOTE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nextn", "inspect"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=300
        )
    assert done.returncode == 1
    assert done.stderr.endswith("nextn: error: No space left on device\n")


def test_output_that_the_terminal_cannot_show():
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    assert nextn_command("generate", "--raw", "-n", "3", "é", env=env).returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_interrupt_ends_with_130_and_no_traceback(tiny_model):
    run = [sys.executable, "-m", "nextn", "generate", "--raw", "-m", str(tiny_model("dense")), "-c", "100000", "a b c"]
    with subprocess.Popen(run, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(1)  # it has begun
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.decode().endswith("nextn: interrupted\n")
    assert "Traceback" not in err.decode()
    assert out.endswith(b"\n")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_interrupt_aborts_a_running_decode(tiny_model):
    """A decode that is under way ends, not only the loop around it."""
    with nextn.Model(tiny_model("dense")) as model, nextn.Context(model, n_ctx=16384, n_batch=16384) as context:
        tokens = [i % 100 for i in range(12000)]
        timer = threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(KeyboardInterrupt), abort_on_interrupt([context]):
            timer.start()
            context.decode(tokens, outputs="last")
        timer.join()
        assert context.seq_pos_max() == -1  # the decode did not get to its end
        context.decode(tokens, outputs="last")
        assert context.seq_pos_max() == len(tokens) - 1


# wrong usage: exit code 2, one line, nothing on standard output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("generate --draft-mx 3 Hi", "unknown option '--draft-mx'; did you mean --draft-max?"),
        ("generate --draft-max=3 --no-drafts Hi", "unknown option '--no-drafts'; did you mean --no-draft?"),
        ("generate --thread 2 Hi", "unknown option '--thread'; did you mean --threads?"),
        ("generate --frobnicate=1 Hi", "unknown option '--frobnicate'; nextn generate --help lists the options"),
        ("generate Hi there", "unexpected argument 'there'; a text with spaces needs quotes"),
        ("inspct", "unknown command 'inspct'; did you mean inspect? (nextn --help lists what there is)"),
        ("zzzz", "unknown command 'zzzz' (nextn --help lists what there is)"),
        ("--versoin", "unknown option '--versoin'; did you mean --version?"),
        ("generate --draft-max 0 Hi", "--draft-max must be an integer from 1 to 16, not 0"),
        ("generate --draft-max 99 Hi", "--draft-max must be an integer from 1 to 16, not 99"),
        ("generate --draft-max x Hi", "argument --draft-max: must be a whole number >= 0, not 'x'"),
        ("generate --draft-p-min 1.5 Hi", "argument --draft-p-min: must be a number from 0 to 1, not '1.5'"),
        ("generate --draft-p-min nan Hi", "argument --draft-p-min: must be a number from 0 to 1, not 'nan'"),
        ("generate --temp -1 Hi", "argument --temp: must be a number >= 0, not '-1'"),
        ("generate --temp inf Hi", "argument --temp: must be a number >= 0, not 'inf'"),
        ("generate -n 0 Hi", "argument -n/--n-predict: must be -1 or a whole number >= 1, not '0'"),
        ("generate -s -2 Hi", "argument -s/--seed: must be -1 or a whole number from 0 to 18446744073709551615"),
        ("generate -t 0 Hi", "argument -t/--threads: must be a whole number from 1 to 512, not '0'"),
        ("generate -fa maybe Hi", "argument -fa/--flash-attn: invalid choice: 'maybe' (choose from"),
        ("generate -ctk q9_0 Hi", "argument -ctk/--cache-type-k: invalid choice: 'q9_0'"),
        ("generate -n", "argument -n/--n-predict: expected one argument"),
        ("generate --no-draft --draft-max 3 Hi", "--no-draft does not go with the other options about drafting"),
        ("generate --no-draft --no-adaptive Hi", "--no-draft does not go with the other options about drafting"),
        ("generate --draft-min 2 Hi", "--draft-min needs --no-adaptive: an adaptive draft is as long as it pays"),
        (
            "generate --no-adaptive --draft-max 3 --draft-min 4 Hi",
            "--draft-min must be an integer from 0 to 3, not 4",
        ),
        (
            "generate --draft-max 8 -ub 8 Hi",
            "-ub must be at least --draft-max + 2 = 10 to verify a draft at once, not 8",
        ),
        ("generate --draft-vocab 3 Hi", "--draft-vocab must be"),
        ("generate --draft-vocab vocab.txt Hi", "--draft-vocab must be"),
        ("serve --exact", "--exact does not go with nextn serve"),
        ("generate --raw -sys x Hi", "--system-prompt belongs to a chat, --raw leaves the chat template out"),
        ("generate -f x Hi", "give the prompt as an argument or with -f FILE, not both"),
        ("inspect a b", "unexpected argument 'b'"),
        ("demo --repeats 0", "argument --repeats: must be a whole number from 1 to 1000, not '0'"),
        ("demo --no-draft", "unknown option '--no-draft'"),
    ],
)
def test_wrong_usage(main, args, message):
    code, out, err = main(*args.split())
    last = err.removeprefix(BUNDLED_NOTE)
    assert (code, out) == (2, "")
    assert last.startswith(f"nextn: error: {message}")
    assert last.count("\n") == 1


def test_no_command_prints_the_help(main):
    code, out, err = main()
    assert (code, out) == (2, "")
    assert "generate" in err
    assert "inspect" in err


def test_a_prompt_is_asked_for(monkeypatch, main):
    monkeypatch.setattr(sys, "stdin", None)
    code, _, err = main("generate")
    assert code == 2
    assert err == "nextn: error: no prompt: give one as an argument, with -f FILE, or on standard input\n"


def test_input_that_is_not_utf8(tmp_path, main):
    prompt = tmp_path / "latin.txt"
    prompt.write_bytes(b"caf\xe9")
    code, _, err = main("generate", "-f", str(prompt))
    assert (code, err) == (2, f"nextn: error: the prompt from {prompt} is not UTF-8 text (byte 3)\n")
    code, _, err = main("generate", "caf\udce9")
    assert code == 2
    assert "argument PROMPT: must be UTF-8 text" in err


def test_an_empty_prompt(main):
    assert main("generate", "") == (2, "", "nextn: error: the prompt is empty\n")
    assert nextn_command("generate", "--raw").stderr == "nextn: error: the prompt is empty\n"


def test_values_that_only_the_engine_can_judge(main):
    code, _, err = main("generate", "-fa", "off", "-ctv", "q8_0", QUESTION)
    assert code in (1, 2)
    assert '-ctv "q8_0" needs flash attention' in err
    assert "should not happen" not in err


def test_the_words_of_the_library_become_options():
    message = "n_ctx=10 is less than n_threads_batch (see a/vocab/n_ctx.gguf, vocab.txt and vocabulary)"
    assert name_options(message) == "-c 10 is less than -tb (see a/vocab/n_ctx.gguf, vocab.txt and vocabulary)"


def test_progress_is_shown_on_a_terminal_only_and_after_the_delay(monkeypatch, capsys):
    def shown(**options):
        with Progress("loading", **options) as progress:
            for share in (0.25, 0.26, 1.0):
                progress(share)
        return capsys.readouterr().err

    assert shown() == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert shown(delay=100) == ""
    monkeypatch.setenv("COLUMNS", "100")
    assert shown() == f"\rloading [{'#' * 8:<30}]  25%, 0 s left\033[K\r\033[K"
    monkeypatch.setenv("COLUMNS", "41")  # a line that wraps would not go away
    assert shown() == f"\rloading [{'#' * 3:<12}]  25%, 0 s left\033[K\r\033[K"
    monkeypatch.setenv("COLUMNS", "30")
    assert shown() == "\rloading  25%, 0 s left\033[K\r\033[K"


def test_a_model_that_loads_slowly_has_a_bar(monkeypatch, capsys):
    """Longer than a second: a bar, on a terminal, that goes away again; in a pipe nothing."""
    clock = count()
    monkeypatch.setattr(talk, "perf_counter", lambda: next(clock))  # every look at it takes a second
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda terminal=terminal: terminal)
        assert cli.main(["generate", "-n", "1", QUESTION]) == 0
        err = capsys.readouterr().err
        assert bool(re.search(r"\rloading the model \[#+ *\] +\d+%, \d+ s left\033\[K", err)) == terminal
        assert ("\033[K" in err) == terminal


# errors: exit code 1, one line


def test_missing_prompt_file(main):
    assert main("generate", "-f", "/nothing") == (1, "", "nextn: error: /nothing: No such file or directory\n")


@pytest.mark.parametrize("command", [["generate", "Hi", "-m"], ["inspect"], ["demo", "-m"]])
def test_missing_damaged_and_wrong_model_files(main, tmp_path, command):
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(bundled_model().read_bytes()[:1_000_000])
    other = tmp_path / "other.gguf"
    other.write_bytes(b"<!DOCTYPE html>" * 100)
    for path in ("/nothing.gguf", str(tmp_path), str(damaged), str(other)):
        code, out, err = main(*command, path)
        assert (code, out) == (1, "")
        assert err.startswith("nextn: error: ")
        assert path in err
        assert err.count("\n") == 1


def test_a_prompt_that_does_not_fit(main):
    code, out, err = main("generate", "-c", "256", "-n", "300", QUESTION)
    assert (code, out) == (1, "")
    assert "-n asks for 300 tokens" in err
    assert err.endswith("of -c 256 are free: ask for fewer (-1 takes what is free) or raise -c\n")


def test_a_model_without_a_head_is_decoded_plainly(main, tiny_model):
    path = str(tiny_model("dense", part="trunk"))
    code, out, err = main("generate", "--raw", "-n", "4", "-m", path, "a")
    assert (code, bool(out)) == (0, True)
    assert err.startswith("the model has no draft head that can run: decoding plainly")
    assert "no drafting" in err
    code, out, err = main("generate", "--raw", "-n", "4", "-m", path, "--draft-max", "2", "a")
    assert (code, out) == (1, "")
    assert err.endswith("(--no-draft decodes without a draft head)\n")


def test_a_head_in_a_file_of_its_own(main, tiny_model):
    options = ["--json", "--raw", "--no-adaptive", "-n", "8"]
    whole = main("generate", *options, "-m", str(tiny_model("dense")), "a")
    files = ["-m", str(tiny_model("dense", part="trunk")), "-md", str(tiny_model("dense", part="head"))]
    apart = main("generate", *options, *files, "a")
    assert json.loads(apart[1])["tokens"] == json.loads(whole[1])["tokens"]
    assert json.loads(apart[1])["stats"]["draft_n"] > 0


def test_unexpected_errors_are_one_line_unless_debugging(main, monkeypatch):
    def fail(args):
        raise RuntimeError("one\ntwo")

    monkeypatch.setattr(cli.inspect, "run", fail)
    expected = "nextn: error: RuntimeError: one two (this should not happen; --debug shows where)\n"
    assert main("inspect") == (1, "", expected)
    code, _, err = main("inspect", "--debug")
    assert code == 1
    assert err.startswith("Traceback")
    assert err.endswith(expected)
    monkeypatch.setenv("NEXTN_DEBUG", "1")
    assert main("inspect")[2].startswith("Traceback")


def test_verbose_shows_the_engines_log():
    quiet, loud = (nextn_command("generate", "-n", "1", QUESTION, *more).stderr for more in ([], ["-v"]))
    assert len(quiet.splitlines()) == 2
    assert len(loud.splitlines()) > 20


# inspect


def test_inspect_the_bundled_model(main):
    code, out, err = main("inspect")
    assert code == 0
    assert err == "no FILE: this is the small demo model that comes with nextn\n"
    assert "complete: block 8" in out
    assert main("inspect", str(bundled_model())) == (0, out, "")


def test_inspect_json(main):
    found = json.loads(main("inspect", "--json", str(bundled_model()))[1])
    assert (found["architecture"], found["n_layer"], found["n_layer_nextn"]) == ("qwen35", 8, 1)
    assert found["head"]["state"] == "complete"
    assert found["tokenizer"] == {"model": "gpt2", "pre": "qwen35", "n_tokens": 3072, "chat_template": True}
    assert {part["name"] for part in found["parts"]} >= {"embedding", "delta net", "NextN head"}


# demo


def test_demo_shows_both_texts_and_both_statistics(main, reference):
    code, out, err = main("demo", "--repeats", "2", "--no-adaptive")
    assert code == 0
    assert out.startswith(f"prompt: {demo.DEFAULT_PROMPT}\n\n--- plain ---\n")
    plain, speculative = (out.split(f"--- {name} ---\n")[1].split("\n\n")[0] for name in ("plain", "speculative"))
    assert plain == speculative
    assert "Both texts are identical, token for token.\nSpeculation" in out
    rows = {line[:24].strip(): line[24:].split() for line in out.splitlines() if line[:1].isalpha() or line[:2] == "  "}
    assert rows["mean accepted length"][0] == "1.00"
    assert float(rows["mean accepted length"][1]) > 2
    assert rows["tokens"][0] == rows["tokens"][1]
    assert err == BUNDLED_NOTE + "timing 2 runs of each ...\n"


def test_demo_with_several_prompts(main):
    code, out, _ = main("demo", "--repeats", "1", QUESTION, CODE)
    assert code == 0
    assert out.count("Both texts are identical") == 2
    assert "All 2 prompts: 2 of 2 with identical texts." in out


def test_demo_json_agrees_with_generate(main, reference):
    code, out, _ = main("demo", "--json", "--repeats", "1", CODE)
    assert code == 0
    (found,) = json.loads(out)["prompts"]
    assert found["identical"] is True
    assert found["prompt"] == CODE
    for name in ("plain", "speculative"):
        assert found[name]["text"] == reference[CODE].text
        assert set(found[name]["stats"]) == STATS
    assert found["plain"]["stats"]["draft_n"] == 0
    speeds = [found[name]["stats"]["tokens_per_second"] for name in ("speculative", "plain")]
    assert found["speedup"] == pytest.approx(speeds[0] / speeds[1])


def test_demo_with_a_temperature_compares_the_same_draws(main):
    assert "identical" in main("demo", "--repeats", "1", "--temp", "1", "-n", "40", CODE)[1]


def test_demo_needs_a_head(main, tiny_model):
    code, _, err = main("demo", "-m", str(tiny_model("dense", part="trunk")), "a")
    assert code == 1
    assert err.startswith("nextn: error: ")


def arm(tokens, *seconds):
    """An arm whose runs took these times."""
    runs = [Counters(completion_tokens=len(tokens), n_rounds=5, predicted=s).snapshot() for s in seconds]
    return demo.Arm(tokens=list(tokens), runs=runs)


@pytest.mark.parametrize(
    ("plain", "speculative", "words"),
    [
        (
            [1.0, 1.2, 1.1],
            [0.5, 0.6, 0.5],
            "Speculation was faster: 2.20 times the speed of plain decoding (2.00 to 2.20",
        ),
        (
            [1.0, 1.0, 1.0],
            [2.0, 2.0, 1.9],
            "Speculation was slower: 0.50 times the speed of plain decoding (0.50 to 0.53",
        ),
        (
            [1.0, 1.0, 1.0],
            [0.8, 1.1, 0.9],
            "Speculation made no clear difference: 1.11 times the speed of plain decodin",
        ),
    ],
)
def test_the_verdict_is_honest(plain, speculative, words):
    comparison = demo.Comparison(prompt="", plain=arm(range(20), *plain), speculative=arm(range(20), *speculative))
    verdict = demo._verdict(comparison)
    assert verdict.startswith(f"Both texts are identical, token for token.\n{words}")
    assert ("It pays when" in verdict) == ("slower" in verdict)
    comparison.speculative.tokens[7] = -1
    assert demo._verdict(comparison).startswith(f"THE TEXTS DIFFER: they part at token 7 of 20 and 20.\n{words}")


def test_a_few_tokens_say_nothing_about_speed():
    comparison = demo.Comparison(prompt="", plain=arm([1, 2], 1.0), speculative=arm([1, 2], 0.1))
    assert comparison.speedup is None
    assert demo._verdict(comparison).endswith("Too few tokens to compare the speed.")
    assert "peed" not in demo._total([comparison, comparison])
    json.dumps(comparison.to_dict())


def test_the_median_run_is_shown():
    assert arm([1, 2], 5.0, 1.0, 2.0).stats.predicted_ms == 2000


# version and help


def test_version():
    done = nextn_command("--version")
    assert done.returncode == 0
    assert re.fullmatch(rf"nextn {re.escape(nextn.__version__)} \(llama\.cpp [\w.-]+, stamp [\w-]+\)\n", done.stdout)


@pytest.mark.parametrize("command", [[], ["generate"], ["inspect"], ["demo"]])
def test_help_fits_a_terminal(command):
    done = nextn_command(*command, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_every_option_is_explained(main):
    parser = cli.build_parser()
    for command in parser._commands().values():
        assert all(action.help for action in command._actions), command.prog
