"""Start other programs (git, pip) in a known environment, and fail with one clear message."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Commits that the tools make themselves carry this, so that their ids are the same on every machine.
IDENTITY = ("nextn", "nextn@users.noreply.example")
DATE = "946684800 +0000"

# Programs inherit these file descriptors. When this process is killed, its lock stays taken until the programs it
# started have ended too, so a later call cannot meet them in the same directory.
inherited_fds: set[int] = set()


class VendorError(Exception):
    """What went wrong and what to do next, in words for the person who reads the terminal."""


def say(message: str) -> None:
    """Tell the user something that is not a result."""
    print(f"vendor: {message}", file=sys.stderr, flush=True)


def run(
    argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str], stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end and capture what it says."""
    return subprocess.run(
        argv, cwd=cwd, env=env, input=stdin, capture_output=True, check=False, pass_fds=tuple(inherited_fds)
    )


def git_environment() -> dict[str, str]:
    """The environment for git: nothing of the user's configuration, nor of a git hook that may have called us."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key == "GIT_EXEC_PATH"}
    name, email = IDENTITY
    env |= {
        "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_OPTIONAL_LOCKS": "0",  # `status` must not touch the index: llama.cpp's build depends on that file
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": email,
        "GIT_AUTHOR_DATE": DATE,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": email,
        "GIT_COMMITTER_DATE": DATE,
    }
    return env


GIT_OPTIONS = tuple(
    part
    for setting in (
        "core.autocrlf=false",  # files are what the archive holds, byte for byte
        "core.safecrlf=false",
        "core.fileMode=true",
        f"core.attributesFile={os.devnull}",
        f"core.excludesFile={os.devnull}",
        f"core.hooksPath={os.devnull}",
        "core.quotePath=false",
        "core.fsmonitor=false",
        "safe.directory=*",  # a cache shared between users is still checked by tree id
        "gc.auto=0",
        "maintenance.auto=false",
        "commit.gpgSign=false",
        "advice.detachedHead=false",
        "init.defaultBranch=nextn",
    )
    for part in ("-c", setting)
)


@dataclass(frozen=True)
class Git:
    """git, run in one directory."""

    directory: Path

    def try_run(
        self, *args: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run git and hand back what happened, whatever it was."""
        try:
            return run(
                ["git", *GIT_OPTIONS, *args],
                cwd=self.directory,
                env={**git_environment(), **(env or {})},
                stdin=stdin,
            )
        except FileNotFoundError as error:
            if self.directory.is_dir():
                raise VendorError("git was not found on PATH; install git and try again") from error
            raise

    def run(self, *args: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> bytes:
        """Run git and return its output. Raises VendorError with git's own words when it fails."""
        done = self.try_run(*args, stdin=stdin, env=env)
        if done.returncode != 0:
            raise VendorError(f"`git {args[0]}` failed in {self.directory}: {git_words(done)}")
        return done.stdout

    def text(self, *args: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
        """Like run, for one short line of output."""
        return self.run(*args, stdin=stdin, env=env).decode("utf-8", "surrogateescape").strip()

    def lines(self, *args: str | Path) -> list[str]:
        """Like run, for output separated by NUL (the option -z)."""
        return [part.decode("utf-8", "surrogateescape") for part in self.run(*args).split(b"\0") if part]


def git_words(done: subprocess.CompletedProcess[bytes]) -> str:
    """What git said on stderr, on one line: the first and the last thing when it is long.

    Raises:
        OSError: the disk is full, which git says in one of several ways after naming every file.
    """
    if done.returncode < 0:
        return f"killed by signal {-done.returncode}"
    text = done.stderr.decode("utf-8", "replace")
    if re.search("No space left on device|Out of diskspace|Disk quota exceeded", text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if len(lines) > 4:
        lines = [lines[0], "...", lines[-1]]
    return " ".join(lines) or f"exit code {done.returncode}"
