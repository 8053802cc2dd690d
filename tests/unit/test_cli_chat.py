"""nextn chat, nextn doctor, and the options of sampling and templates."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from functools import partial
from pathlib import Path

import nextn
import pyte
import pytest
from nextn import cli
from nextn._cli import live
from nextn._cli.doctor import _advice
from nextn.bundled import bundled_model
from nextn.gguf import inspect
from nextn.stats import Counters

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris. France is in Europe, and its main language is French."
OTHER = "How do I loop over a list with an index in Python?"


@pytest.fixture
def main(capsys, monkeypatch):
    """Run the command in this process: exit code, standard output, standard error."""

    def main(*args, stdin=""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = cli.main(args)
        return code, *capsys.readouterr()

    return main


@pytest.fixture(scope="module")
def conversation():
    """Two turns, by the Python API."""
    with nextn.Speculator(bundled_model(), draft=None) as plain:
        messages = [{"role": "user", "content": QUESTION}]
        messages.append({"role": "assistant", "content": plain.chat(messages).text})
        messages.append({"role": "user", "content": OTHER})
        messages.append({"role": "assistant", "content": plain.chat(messages).text})
        return messages


def test_lines_are_turns_of_one_conversation(main, conversation, tmp_path):
    saved = tmp_path / "saved.json"
    code, out, err = main("chat", stdin=f"{QUESTION}\n\n{OTHER}\n/save {saved}\n")
    assert code == 0
    assert out == f"{conversation[1]['content']}\n{conversation[3]['content']}\n"
    assert json.loads(saved.read_text()) == conversation
    assert "tokens/s" not in err


def test_commands(main, conversation, tmp_path):
    answers = [ANSWER, conversation[3]["content"]]
    saved = tmp_path / "saved.json"
    lines = [
        QUESTION,
        "/stats",
        OTHER,
        "/undo",
        OTHER,
        "/retry",
        f"/save {saved}",
        "/clear",
        "/retry",
        "/nope",
        "/help",
    ]
    code, out, err = main("chat", stdin="\n".join([*lines, QUESTION, "/exit", "never asked"]))
    assert code == 0
    assert out == "\n".join([answers[0], *[answers[1]] * 3, answers[0]]) + "\n"
    assert json.loads(saved.read_text()) == conversation
    assert err.count("tokens/s; drafted") == 4
    for said in ("statistics are shown", "there is no question", "there is no /nope", "/undo "):
        assert said in err


def test_messages_of_several_lines(main):
    code, out, _ = main("chat", "--json", stdin="one\\\ntwo\n")
    pieces = [json.loads(line) for line in out.splitlines()]
    with nextn.Speculator(bundled_model(), draft=None) as plain:
        expected = plain.chat([{"role": "user", "content": "one\ntwo"}])
        quoted = plain.chat([{"role": "user", "content": " a\n\nb"}])
    assert code == 0
    assert "".join(piece["text"] for piece in pieces) == expected.text
    assert (pieces[-1]["finish_reason"], pieces[0]["finish_reason"]) == (expected.finish_reason, None)
    assert pieces[-1]["stats"]["completion_tokens"] == len(expected.tokens)
    assert main("chat", stdin='"""\n a\n\nb\n"""\n')[1] == quoted.text + "\n"


def test_a_conversation_that_is_too_long(main):
    code, out, err = main("chat", "-c", "64", "-n", "-1", stdin=f"{QUESTION}\n{QUESTION * 20}\n{QUESTION}\n")
    assert code == 0
    assert out.startswith(ANSWER)
    assert "-c 64" in err or "n_ctx=64" in err
    assert "/clear begins a new conversation" in err


def test_at_a_terminal(tmp_path):
    """Prompts, Ctrl-C in an answer, colours, the file of the history."""
    reader, terminal = pty.openpty()
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "OMP_WAIT_POLICY": "passive", "TERM": "dumb"}
    command = [sys.executable, "-m", "nextn", "chat", "--ignore-eos", "--show-accepted", "-c", "4096", "-t", "1"]
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=env, start_new_session=True
    )
    os.close(terminal)
    shown = b""

    def wait_for(text, seconds=30):
        nonlocal shown
        end = time.time() + seconds
        while text not in shown:
            assert time.time() < end, shown
            shown += os.read(reader, 4096)
        before, _, shown = shown.partition(text)
        return before

    wait_for(b"> ")
    os.write(reader, QUESTION.encode() + b"\n")
    wait_for(b"\033[32m")  # something was accepted
    process.send_signal(signal.SIGINT)
    wait_for(b"(interrupted)")
    wait_for(b"> ")
    os.write(reader, b"/exit\n")
    assert process.wait(30) == 0
    os.close(reader)
    assert QUESTION in (tmp_path / "nextn" / "chat_history").read_text()


class Screen(pyte.HistoryScreen):
    """A cursor that comes back behind the last column still wraps before the next letter, as in xterm."""

    def restore_cursor(self):
        behind = bool(self.savepoints) and self.savepoints[-1].cursor.x == self.columns
        super().restore_cursor()
        if behind:
            self.cursor.x = self.columns


class Terminal:
    """A python at a terminal of 12 lines of 60 columns, which pyte draws."""

    def __init__(self, *arguments, **env):
        self.screen = Screen(60, 12, history=10_000, ratio=1)
        self.stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self.reader, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 60, 0, 0))
        env = {**os.environ, "OMP_WAIT_POLICY": "passive", "TERM": "xterm", **env}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=terminal, stdout=terminal, stderr=terminal, env=env, start_new_session=True,
        )  # fmt: skip
        os.close(terminal)

    def read_until(self, seen, seconds=60):
        """Draw what comes until something is seen; it is asked after each piece."""
        end = time.time() + seconds
        while not seen(self):
            assert time.time() < end, self.raw
            piece = os.read(self.reader, 512)
            self.raw += piece
            self.stream.feed(piece)

    @property
    def lines(self):
        """Everything that was ever on the screen, as it was scrolled out of it or is there now."""
        width = self.screen.columns
        gone = ["".join(line[x].data for x in range(width)).rstrip() for line in self.screen.history.top]
        return gone + [line.rstrip() for line in self.screen.display]


LIVE = re.compile(r"(?:[\d.]+ tokens/s, )?(\d+) of (\d+) drafted tokens accepted")
ALWAYS_LIVE = """
import sys
from nextn import cli
from nextn._cli import live
live._SECONDS_BETWEEN = 0
sys.exit(cli.main(sys.argv[1:]))
"""


def last_lines(raw):
    """Each change of the last line of the screen, which ends where the cursor goes back, and what was there then."""
    screen = pyte.Screen(60, 12)
    stream = pyte.ByteStream(screen)
    for change in raw.split(b"\0338"):
        stream.feed(change + b"\0338")
        yield change, screen.display[-1].rstrip()


def test_acceptance_is_shown_live(tmp_path):
    """In the last line while text scrolls above it; when the answer is there, nothing is left of it."""
    arguments = ("chat", "--show-stats", "--ignore-eos", "--no-adaptive", "-n", "200", "-c", "1024", "-t", "1")
    terminal = Terminal("-c", ALWAYS_LIVE, *arguments, XDG_STATE_HOME=str(tmp_path))

    def at_prompt(t, n_answers):
        return t.raw.count(b"mean accepted length") == n_answers and t.raw.endswith(b"> ")

    terminal.read_until(partial(at_prompt, n_answers=0))
    for n_answers, question in enumerate((QUESTION, OTHER), start=1):  # the second one begins in the last line
        os.write(terminal.reader, question.encode() + b"\n")
        terminal.read_until(partial(at_prompt, n_answers=n_answers))
    os.write(terminal.reader, b"/exit\n")
    assert terminal.process.wait(30) == 0
    os.close(terminal.reader)
    changes = list(last_lines(terminal.raw))
    assert [line for change, line in changes if b"\033[r" in change] == ["", ""]  # the whole screen scrolls again
    counts = [[int(n) for n in match.groups()] for _, line in changes if (match := LIVE.match(line))]
    second = 1 + next(i for i in range(len(counts)) if counts[i + 1][1] < counts[i][1])
    for answer in (counts[:second], counts[second:]):
        assert answer == sorted(answer)
        assert len({drafted for _, drafted in answer}) > 20  # 6 more a round, of at most 7 tokens
    shown, messages = "\n".join(terminal.lines), []
    assert "drafted tokens accepted" not in shown
    with nextn.Speculator(bundled_model(), draft=None, n_ctx=1024) as plain:
        for question in (QUESTION, OTHER):
            messages.append({"role": "user", "content": question})
            answer = plain.chat(messages, ignore_eos=True, max_tokens=200).text
            messages.append({"role": "assistant", "content": answer})
            assert len(answer) > 12 * 30  # longer than the screen
            wrapped = [s[i : i + 60].rstrip() for s in answer.split("\n") for i in range(0, max(1, len(s)), 60)]
            assert f"> {question}\n{chr(10).join(wrapped)}\n" in shown


def test_the_live_line_changes_ten_times_a_second_at_most(monkeypatch):
    now, written = iter([100.0, 100.04, 100.09, 100.1625, 100.2, 100.3]), []
    monkeypatch.setattr(live, "perf_counter", lambda: next(now))
    monkeypatch.setattr(live.os, "get_terminal_size", lambda _: os.terminal_size((60, 12)))
    line = live.LiveStats(wanted=False)
    monkeypatch.setattr(line, "_wanted", True)
    monkeypatch.setattr(line, "_write", written.append)
    for n in range(6):
        line.show(Counters(completion_tokens=n, draft_n=n + 1).snapshot())
    assert [int(re.search(r"of (\d)", text)[1]) for text in written] == [1, 4, 6]


def test_nothing_is_shown_live_in_pipes(main):
    """Statistics come after each answer, on standard error, and nothing of a terminal's."""
    code, out, err = main("chat", "--show-stats", stdin=f"{QUESTION}\n")
    assert (code, out) == (0, f"{ANSWER}\n")
    assert "\033" not in out + err
    assert err.count("mean accepted length") == 1


def test_sampling_options_reach_the_generation(main):
    options = {
        "temperature": 0.9, "seed": 3, "top_k": 20, "typical_p": 0.9, "top_p": 0.8, "min_p": 0.05,
        "repeat_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": 0.1, "repeat_last_n": 32,
        "logit_bias": {260: -2.5, 300: False},
        "accept": "match", "ignore_eos": True, "max_tokens": 40,
    }  # fmt: skip
    with nextn.Speculator(bundled_model()) as spec:
        expected = spec.chat([{"role": "user", "content": QUESTION}], **options)
    arguments = [
        "--temp", "0.9", "-s", "3", "--top-k", "20", "--typical", "0.9", "--top-p", "0.8", "--min-p", "0.05",
        "--repeat-penalty", "1.3", "--frequency-penalty", "0.2", "--presence-penalty", "0.1", "--repeat-last-n", "32",
        "-l", "260-2.5", "-l", "300-inf", "--accept", "match", "--ignore-eos", "-n", "40",
    ]  # fmt: skip
    code, out, _ = main("generate", "--json", *arguments, QUESTION)
    assert (code, tuple(json.loads(out)["tokens"])) == (0, expected.tokens)


def test_grammars_and_templates(main, tmp_path):
    grammar = tmp_path / "grammar.gbnf"
    grammar.write_text('root ::= "yes" | "no"')
    assert main("generate", "--grammar-file", str(grammar), QUESTION)[1] in ("yes\n", "no\n")
    schema = '{"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]}'
    assert isinstance(json.loads(main("generate", "-n", "60", "-j", schema, QUESTION)[1])["n"], int)
    template = tmp_path / "template.jinja"
    template.write_text("{{ greeting }} {{ messages[0].content }}")
    with nextn.Speculator(bundled_model(), draft=None) as plain:
        expected = plain.generate("Dear all " + QUESTION, max_tokens=9).text
    arguments = ["--chat-template-file", str(template), "--chat-template-kwargs", '{"greeting": "Dear all"}']
    assert main("generate", "-n", "9", *arguments, QUESTION)[1].rstrip("\n") == expected.rstrip("\n")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--top-p", "2"], 2, "argument --top-p: must be a number from 0 to 1, not '2'"),
        (["--logit-bias", "x"], 2, "must be a token id, + or -, and a number"),
        (["-l", "999999-1"], 2, "--logit-bias must name token ids from 0 to 3071, not 999999"),
        (["--grammar", "root = 3"], 1, "grammar"),
        (["--grammar", 'root ::= "a"', "-j", "{}"], 2, "--grammar and --json-schema exclude each other"),
        (["-j", "[1"], 2, "must be a JSON object, not '[1'"),
        (["--chat-template-kwargs", "3"], 2, "must be a JSON object"),
        (["--chat-template-file", "nowhere.jinja"], 1, "nowhere.jinja: No such file or directory"),
        (["--raw", "--chat-template-kwargs", "{}"], 2, "--chat-template-kwargs belongs to a chat"),
    ],
)
def test_wrong_options(main, arguments, code, text):
    got, out, err = main("generate", *arguments, QUESTION)
    assert (got, out) == (code, "")
    assert text in err


def test_doctor(main, tiny_model):
    code, out, _ = main("doctor", "--json")
    found = json.loads(out)
    assert code == 0
    pinned = re.search(r'commit = "(\w+)"', (ROOT / "vendor" / "llama.cpp" / "UPSTREAM.toml").read_text())[1]
    assert f"llama.cpp {pinned}" in found["version"]
    assert "CPU" in {backend["name"] for backend in found["engine"]["backends"]}
    assert found["model"]["head"]["state"] == "complete"
    assert found["exact_kernels"] == {"Q8_0": True, "F32": True}
    code, out, _ = main("doctor", "-m", str(tiny_model("dense", part="trunk")))
    assert "draft head none" in out
    assert "faster: it has no draft head" in out
    assert "exact text" not in out  # everything is on the CPU
    assert main("doctor", "-m", "nowhere.gguf")[0] == 1


def test_doctor_names_what_is_slow():
    model = inspect(bundled_model())
    machine = {"gpu_seen": True, "memory": 10**6, "governor": "powersave", "threads": 1, "cpus": 8}
    engine = {"backends": [{"features": {}}], "supports_gpu_offload": False}
    advice = "\n".join(_advice({"machine": machine, "engine": engine, "exact_kernels": {"IQ2_XS": False}}, model))
    for text in (
        "IQ2_XS are verified one token at a time",
        "GGML_CUDA",
        "larger than the memory",
        "powersave",
        "one core",
    ):
        assert text in advice
