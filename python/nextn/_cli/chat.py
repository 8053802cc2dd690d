"""nextn chat: a conversation at the terminal."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nextn._cli.live import LiveStats
from nextn._cli.models import draft_if_possible, open_models, open_speculator, read_draft
from nextn._cli.sampling import chat_options
from nextn._cli.talk import say, summary
from nextn.errors import CancelledError, ContextOverflowError
from nextn.speculator import Speculator
from nextn.stats import Chunk

HELP = """\
/help            this list
/clear           begin a new conversation
/undo            take the last question and its answer back
/retry           answer the last question again
/stats           show or hide how each answer went
/save FILE       write the conversation to a file, as JSON
/exit            leave; so does Ctrl-D. Ctrl-C ends an answer.
A line that ends with \\ goes on in the next one; lines between two lines of \"\"\" belong together."""

_ACCEPTED, _PLAIN = "\033[32m", "\033[0m"


def run(args: argparse.Namespace) -> None:
    """Talk until the input ends."""
    draft = read_draft(args)
    options = chat_options(args)
    with open_models(args) as (model, head):
        draft = draft_if_possible(draft, model, head)
        with open_speculator(model, head, draft, args) as speculator, _history():
            if sys.stdin is not None and sys.stdin.isatty():
                say("/help lists the commands, Ctrl-D leaves")
            Conversation(speculator, args, options, drafting=draft is not None).run()


class Conversation:
    """The messages so far, and what the person at the keyboard does with them.

    Args:
        speculator: Answers.
        args: The options of the command.
        options: Those of each answer.
        drafting: Whether the head drafts.
    """

    def __init__(self, speculator: Speculator, args: argparse.Namespace, options: Any, *, drafting: bool) -> None:
        self._speculator, self._options, self._drafting = speculator, options, drafting
        self._json = args.json
        self._show_stats = args.show_stats
        self._colour = args.show_accepted and sys.stdout.isatty()
        self._first = [{"role": "system", "content": args.system_prompt}] if args.system_prompt is not None else []
        self._messages: list[dict[str, str]] = list(self._first)

    def run(self) -> None:
        """Read, answer, and so on."""
        while (line := _read()) is not None:
            if not line.strip():
                continue
            if line.startswith("/"):
                if not self._command(line):
                    return
                continue
            self._messages.append({"role": "user", "content": line})
            self._answer()

    def _command(self, line: str) -> bool:
        """Do what a line that begins with / says; False to leave."""
        name, _, rest = line.strip().partition(" ")
        if name in ("/exit", "/quit", "/bye"):
            return False
        commands: dict[str, Callable[[], None]] = {
            "/help": lambda: say(HELP),
            "/clear": self._clear,
            "/undo": self._undo,
            "/retry": self._retry,
            "/stats": self._switch_stats,
            "/save": lambda: self._save(rest.strip()),
        }
        commands.get(name, lambda: say(f"there is no {name}; /help lists what there is"))()
        return True

    def _clear(self) -> None:
        """Forget the conversation."""
        self._messages = list(self._first)

    def _undo(self) -> None:
        """Take the last question and its answer out."""
        asked = [i for i, message in enumerate(self._messages) if message["role"] == "user"]
        if not asked:
            say("there is nothing to take back")
            return
        del self._messages[asked[-1] :]

    def _retry(self) -> None:
        """Answer the last question again."""
        if self._messages and self._messages[-1]["role"] == "assistant":
            self._messages.pop()
        if not self._messages or self._messages[-1]["role"] != "user":
            say("there is no question to answer again")
            return
        self._answer()

    def _switch_stats(self) -> None:
        """Show the statistics, or do not."""
        self._show_stats = not self._show_stats
        say("statistics are shown" if self._show_stats else "statistics are hidden")

    def _save(self, path: str) -> None:
        """Write the conversation."""
        if not path:
            say("/save needs the name of a file")
            return
        partial = Path(path + ".part")
        try:
            partial.write_text(json.dumps(self._messages, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            say(f"{path}: {error.strerror}")

    def _answer(self) -> None:
        """Show an answer as it comes, and keep it; Ctrl-C keeps what there is."""
        parts: list[str] = []
        last: Chunk | None = None
        try:
            with LiveStats(self._show_stats) as live:
                for last in self._speculator.stream_chat(self._messages, **self._options):
                    parts.append(last.text)
                    self._show(last)
                    live.show(last.stats)
        except (KeyboardInterrupt, CancelledError):
            say("\n(interrupted)")
        except ContextOverflowError as error:
            self._messages.pop()
            say(f"{error} (/clear begins a new conversation, /undo makes room)")
            return
        if not self._json:
            print(flush=True)
        if self._show_stats and last is not None:
            limit = "-n or a full context (-c)" if last.finish_reason == "length" else None
            say(summary(last.stats, drafting=self._drafting, limit=limit))
        self._messages.append({"role": "assistant", "content": "".join(parts)})

    def _show(self, chunk: Chunk) -> None:
        """A piece of the answer; its thinking goes to standard error."""
        if self._json:
            piece: dict[str, Any] = {"text": chunk.text, "tokens": chunk.tokens, "finish_reason": chunk.finish_reason}
            if chunk.reasoning_content:
                piece["reasoning_content"] = chunk.reasoning_content
            if chunk.finish_reason is not None:
                piece["stats"] = chunk.stats.to_dict()
            print(json.dumps(piece, ensure_ascii=False), flush=True)
        else:
            if chunk.reasoning_content:
                print(chunk.reasoning_content, end="", file=sys.stderr, flush=True)
            print(self._coloured(chunk), end="", flush=True)

    def _coloured(self, chunk: Chunk) -> str:
        """The text of a round with its accepted tokens in green; the last token of a round is the model's own."""
        if not self._colour or len(chunk.tokens) < 2:
            return chunk.text
        last = self._speculator.model.token_to_piece(chunk.tokens[-1], special=False).decode(errors="replace")
        if not chunk.text.endswith(last):
            return chunk.text
        accepted = chunk.text[: len(chunk.text) - len(last)]
        return f"{_ACCEPTED}{accepted}{_PLAIN}{last}" if accepted else last


def _read() -> str | None:
    """One message: a line, several that end with a backslash, or a block between lines of quotes; None at the end."""
    lines: list[str] = []
    block = False
    while True:
        try:
            line = _line("> " if not lines and not block else "| ")
        except EOFError:
            return "\n".join(lines) if lines else None
        except KeyboardInterrupt:  # forget what was typed
            say("")
            lines, block = [], False
            continue
        if line.strip() == '"""':
            if block:
                return "\n".join(lines)
            block = True
        elif block:
            lines.append(line)
        elif line.endswith("\\"):
            lines.append(line[:-1])
        else:
            return "\n".join([*lines, line])


def _line(prompt: str) -> str:
    """A line from the terminal, or from what stands in for it, where there is no prompt."""
    if sys.stdin is not None and sys.stdin.isatty():
        return input(prompt)
    line = sys.stdin.readline() if sys.stdin is not None else ""
    if not line:
        raise EOFError
    return line.rstrip("\r\n")


@contextmanager
def _history() -> Iterator[None]:
    """Editing of lines, with the lines of earlier conversations, at a terminal that can do that."""
    if sys.stdin is None or not sys.stdin.isatty():
        yield
        return
    try:
        import readline
    except ImportError:
        yield
        return
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "nextn"
    path = state / "chat_history"
    readline.set_history_length(1000)
    with suppress(OSError):
        readline.read_history_file(path)
    try:
        yield
    finally:
        with suppress(OSError):
            state.mkdir(parents=True, exist_ok=True, mode=0o700)
            partial = state / f"chat_history.{os.getpid()}"
            readline.write_history_file(partial)
            partial.replace(path)
