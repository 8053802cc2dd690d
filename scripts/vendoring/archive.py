"""Get the pinned source distribution and turn its llama.cpp folder into a git commit."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from vendoring.pin import Pin
from vendoring.run import (
    DATE,
    GIT_OPTIONS,
    IDENTITY,
    Git,
    VendorError,
    git_environment,
    git_words,
    inherited_fds,
    run,
    say,
)

ARCHIVE_VARIABLE = "NEXTN_LLAMA_ARCHIVE"
PRISTINE = "refs/heads/pristine"

PIP_OPTIONS = (
    "--no-deps",
    "--no-binary=:all:",
    "--no-input",
    "--retries=2",
    "--disable-pip-version-check",
    "--progress-bar=off",
)


def file_sha256(path: Path) -> str:
    """Hash of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def archive_of_environment() -> Path | None:
    """The copy of the pinned archive that NEXTN_LLAMA_ARCHIVE names."""
    name = os.environ.get(ARCHIVE_VARIABLE)
    return Path(name) if name else None


@contextmanager
def fetched_archive(pin: Pin, workdir: Path, given: Path | None = None) -> Iterator[Path]:
    """The archive of a pin, its hash checked, for as long as the block lasts.

    Args:
        pin: what to get; an empty sha256 (a bump) accepts any file.
        workdir: a folder of ours for the download.
        given: a copy the user has.

    Raises:
        VendorError: no archive to be had, or its hash is wrong (a download is deleted then).
    """
    if given is not None:
        if not given.is_file():
            raise VendorError(f"the archive {given} is not a file; it should be a copy of {pin.archive}")
        check_hash(given, pin, hint=f"it is not the {pin.archive} that the pin means")
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="download-", dir=workdir) as folder:
        path = download(pin, Path(folder))
        check_hash(path, pin, hint="nothing was kept; do not use this file before you know why it differs")
        yield path


def check_hash(path: Path, pin: Pin, *, hint: str) -> None:
    """Compare a file with the pin."""
    actual = file_sha256(path)
    if pin.sha256 and actual != pin.sha256:
        raise VendorError(f"wrong hash: {path.name} has sha256 {actual}, UPSTREAM.toml says {pin.sha256}; {hint}")


def download(pin: Pin, folder: Path) -> Path:
    """Get the source distribution by name with pip.

    pip runs the package's own build code to read its metadata, so the hash is given to pip as well: it refuses a
    file that is not the pinned one before running anything of it.
    """
    say(f"downloading {pin.requirement} with pip (77 MB; about a minute, pip also reads the package's metadata)")
    requirements = folder / "requirements.txt"
    requirements.write_text(pin.requirement + (f" --hash=sha256:{pin.sha256}" if pin.sha256 else "") + "\n")
    argv = [sys.executable, "-m", "pip", "download", *PIP_OPTIONS, "-d", str(folder), "-r", str(requirements)]
    done = run(argv, cwd=folder, env=pip_environment())
    words = (done.stdout + done.stderr).decode("utf-8", "replace")
    path = folder / pin.archive
    if done.returncode == 0 and path.is_file():
        return path
    advice = (
        f"Connect to a package index, or get {pin.archive} elsewhere and set {ARCHIVE_VARIABLE} to that file "
        "(its hash is checked all the same)."
    )
    if "No module named pip" in words:
        raise VendorError(f"cannot download {pin.requirement}: {sys.executable} has no pip. {advice}")
    if "DO NOT MATCH THE HASHES" in words:
        got = re.search(r"Got\s+([0-9a-f]{64})", words)
        raise VendorError(
            f"wrong hash: the index's {pin.archive} has sha256 {got[1] if got else '(unknown)'}, "
            f"UPSTREAM.toml says {pin.sha256}; nothing was kept; do not use this file before you know why it differs"
        )
    raise VendorError(f"cannot download {pin.requirement}: {pip_reason(words, done.returncode)}. {advice}")


def pip_environment() -> dict[str, str]:
    """Pip's environment, without the options of the build that may have started us."""
    return {
        key: value
        for key, value in os.environ.items()
        if key not in ("CMAKE_ARGS", "CMAKE_GENERATOR", "PIP_BUILD_TRACKER", "PIP_REQUIRE_HASHES")
        and not key.startswith(("SKBUILD_", "GIT_"))
    }


def pip_reason(words: str, returncode: int) -> str:
    """Pip's last error line."""
    errors = [line.partition("ERROR:")[2].strip() for line in words.splitlines() if "ERROR:" in line]
    return f"pip says: {errors[-1].rstrip('.')}" if errors else f"pip ended with exit code {returncode}"


def import_archive(archive: Path, pin: Pin, repository: Path) -> str:
    """Store the llama.cpp folder of an archive as the one commit of a new bare repository.

    The files go from the archive into git without touching the disk in between: what upstream's .gitignore or the
    user's git settings say has no influence, and no name in the archive can lead anywhere.

    Returns:
        The tree id. The commit is `PRISTINE`; its id is the same on every machine.
    """
    repository.mkdir(parents=True)
    git = Git(repository)
    git.run("init", "--quiet", "--bare", "--template=")
    command = ["git", *GIT_OPTIONS, "fast-import", "--quiet", "--done"]
    with tempfile.TemporaryFile() as errors:
        importer = subprocess.Popen(
            command,
            cwd=repository,
            env=git_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=tuple(inherited_fds),
        )
        assert importer.stdin is not None
        try:
            with importer.stdin as stream:
                write_commit(stream, archive, pin)
        except BrokenPipeError:
            pass  # git ended early; its exit code and words follow
        except BaseException:
            importer.kill()
            importer.wait()
            raise
        code = importer.wait()
        errors.seek(0)
        done = subprocess.CompletedProcess(command, code, b"", errors.read())
    if code != 0:
        raise VendorError(f"cannot store {archive.name} in {repository}: {git_words(done)}")
    return git.text("rev-parse", f"{PRISTINE}^{{tree}}")


def write_commit(stream: IO[bytes], archive: Path, pin: Pin) -> None:
    """Write the archive's llama.cpp folder as a stream for git fast-import."""
    message = f"llama.cpp {pin.commit} from {pin.requirement}\n".encode()
    stream.write(f"commit {PRISTINE}\ncommitter {IDENTITY[0]} <{IDENTITY[1]}> {DATE}\n".encode())
    stream.write(b"data %d\n%s" % (len(message), message))
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for path, member in llama_members(tar, pin):
                content = tar.extractfile(member)
                assert content is not None
                stream.write(f"M {'100755' if member.mode & 0o100 else '100644'} inline {path}\n".encode())
                stream.write(b"data %d\n" % member.size)
                shutil.copyfileobj(content, stream)
                stream.write(b"\n")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise VendorError(f"{archive.name} is damaged: {error}") from error
    stream.write(b"done\n")


def llama_members(tar: tarfile.TarFile, pin: Pin) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """The files of the llama.cpp folder with their path in it."""
    top = pin.archive.removesuffix(".tar.gz")
    prefix = PurePosixPath(top, pin.subdirectory)
    found = False
    for member in tar:
        path = PurePosixPath(member.name)
        if not path.is_relative_to(prefix) or member.isdir():
            continue
        inner = path.relative_to(prefix)
        if inner.parts == (".git",):  # points at a folder of the repository the archive was made in
            continue
        odd = not {"..", ".git"}.isdisjoint(inner.parts) or re.search(r'[\x00-\x1f"\\]', member.name)
        if odd or not member.isfile():
            raise VendorError(f"refusing {pin.archive}: its member {member.name!r} is no plain file inside {prefix}")
        found = True
        yield inner.as_posix(), member
    if not found:
        raise VendorError(f"{pin.archive} has no folder {prefix}")
