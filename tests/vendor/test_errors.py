"""Every error is one message that says what to do, and nothing wrong is kept."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import venv
from pathlib import Path

import pytest

from .project import PACKAGE, UPSTREAM, VERSION, Project, git, make_archive, pin_text, the_message, tree_id


def repin(project: Project, archive: Path) -> None:
    """Let the pin name another archive, as if it had always been that one."""
    pin = project.folder / "UPSTREAM.toml"
    old = hashlib.sha256(project.archive.read_bytes()).hexdigest()
    pin.write_text(pin.read_text().replace(old, hashlib.sha256(archive.read_bytes()).hexdigest()))
    project.archive = archive


# Getting the archive


def test_no_network_and_no_cache(project: Project) -> None:
    message = project.fails("prepare", NEXTN_LLAMA_ARCHIVE=None)
    assert f"cannot download {PACKAGE}=={VERSION}: pip says: No matching distribution found" in message
    assert f"llama_cpp_python-{VERSION}.tar.gz" in message
    assert "set NEXTN_LLAMA_ARCHIVE to that file" in message
    assert project.kept() == set()


def test_pip_gets_the_archive_by_name(project: Project) -> None:
    project.ok("prepare", NEXTN_LLAMA_ARCHIVE=None, PIP_FIND_LINKS=str(project.archive.parent))
    assert project.kept() == {"pristine", "src", "stamp", "owner"}


def test_options_of_a_build_do_not_reach_pip(project: Project) -> None:
    options = {
        "CMAKE_ARGS": "-DX=1",
        "SKBUILD_CMAKE_DEFINE": "X=1",
        "PIP_REQUIRE_HASHES": "1",
        "PIP_BUILD_TRACKER": "/x",
    }
    project.ok("prepare", NEXTN_LLAMA_ARCHIVE=None, PIP_FIND_LINKS=str(project.archive.parent), **options)


def test_a_download_with_the_wrong_hash_is_not_run_and_not_kept(project: Project, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    other = make_archive(tmp_path / "links", files=UPSTREAM | {"src/other.cpp": "int evil;\n"})
    mark = tmp_path / "ran"
    message = project.fails(
        "prepare", NEXTN_LLAMA_ARCHIVE=None, PIP_FIND_LINKS=str(other.parent), BACKEND_MARK=str(mark)
    )
    actual = hashlib.sha256(other.read_bytes()).hexdigest()
    expected = hashlib.sha256(project.archive.read_bytes()).hexdigest()
    assert "wrong hash" in message
    assert f"sha256 {actual}, UPSTREAM.toml says {expected}" in message
    assert "nothing was kept" in message
    assert project.kept() == set()
    assert not mark.exists()


def test_a_given_archive_with_the_wrong_hash_is_refused(project: Project, tmp_path: Path) -> None:
    other = make_archive(tmp_path, files=UPSTREAM | {"src/other.cpp": "int evil;\n"})
    message = project.fails("prepare", NEXTN_LLAMA_ARCHIVE=str(other))
    assert "wrong hash" in message
    assert hashlib.sha256(other.read_bytes()).hexdigest() in message
    assert project.kept() == set()
    assert other.exists()


def test_a_given_archive_must_exist(project: Project) -> None:
    message = project.fails("prepare", NEXTN_LLAMA_ARCHIVE="/nowhere/x.tar.gz")
    assert f"the archive /nowhere/x.tar.gz is not a file; it should be a copy of {project.archive.name}" in message


def test_the_folder_must_be_the_pinned_tree(project: Project) -> None:
    pin = project.folder / "UPSTREAM.toml"
    text = pin.read_text()
    tree = text.partition('tree = "')[2][:40]
    pin.write_text(text.replace(tree, "0" * 40))
    message = project.fails("prepare")
    assert f"is tree {tree}, UPSTREAM.toml says {'0' * 40}; nothing was kept" in message
    assert project.kept() == set()


def test_python_without_pip(project: Project, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    python = tmp_path / "bare" / "bin" / "python"
    message = the_message(project.run_process("prepare", python=python, NEXTN_LLAMA_ARCHIVE=None, PYTHONPATH=None))
    assert f"{python} has no pip" in message
    assert "NEXTN_LLAMA_ARCHIVE" in message


# What is in the archive


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(
    "bad",
    [
        member("vendor/llama.cpp/../../../../evil"),
        member("vendor/llama.cpp/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("vendor/llama.cpp/hard", tarfile.LNKTYPE, "LICENSE"),
        member("vendor/llama.cpp/pipe", tarfile.FIFOTYPE),
        member("vendor/llama.cpp/sub/.git/config"),
        member("vendor/llama.cpp/new\nline"),
    ],
    ids=lambda info: repr(info.name),
)
def test_members_that_are_no_plain_files_are_refused(project: Project, tmp_path: Path, bad: tarfile.TarInfo) -> None:
    (tmp_path / "bad").mkdir()
    info = member(bad.name, bad.type, bad.linkname)
    repin(project, make_archive(tmp_path / "bad", extra=(info,)))
    message = project.fails("prepare")
    assert "is no plain file inside" in message
    assert project.kept() == set()
    assert not list(tmp_path.rglob("evil"))


def test_an_archive_without_the_folder_is_refused(project: Project, tmp_path: Path) -> None:
    repin(project, make_archive(tmp_path, files={}))
    assert f"has no folder llama_cpp_python-{VERSION}/vendor/llama.cpp" in project.fails("prepare")
    assert project.kept() == set()


def test_a_damaged_archive_is_refused(project: Project, tmp_path: Path) -> None:
    damaged = tmp_path / project.archive.name
    damaged.write_bytes(project.archive.read_bytes()[:-600])
    repin(project, damaged)
    assert f"{project.archive.name} is damaged" in project.fails("prepare")
    assert project.kept() == set()


# Overlay and patches


@pytest.mark.parametrize("path", ["src/lib.cpp", "src", "src/lib.cpp/more.cpp"])
def test_an_overlay_file_must_not_overwrite_upstream(prepared: Project, path: str) -> None:
    shutil.rmtree(prepared.folder / "overlay")
    prepared.overlay(path, "ours\n")
    before = prepared.stamp_file.read_text()
    assert prepared.fails("prepare").startswith(
        f"overlay/{path} would overwrite an upstream file; give our file another"
    )
    assert prepared.stamp_file.read_text() == before


def test_the_overlay_holds_plain_files(project: Project) -> None:
    (project.folder / "overlay" / "link").symlink_to("/etc/passwd")
    assert "overlay/link is a symbolic link" in project.fails("prepare")


def spoil(project: Project, old: str, new: str) -> str:
    """Change the second patch so that it does not fit."""
    name = (project.folder / "series").read_text().split()[1]
    patch = project.folder / "patches" / name
    text = patch.read_text()
    assert old in text
    patch.write_text(text.replace(old, new))
    return name


def test_a_patch_that_does_not_apply_is_named_with_file_and_hunk(prepared: Project) -> None:
    name = spoil(prepared, " int value_29 = 29;", " int value_29 = 28;")
    before = prepared.stamp_file.read_text()
    message = prepared.fails("prepare")
    assert message.startswith(
        f"patches/{name} does not apply: src/lib.cpp, hunk 1 of 1 (line 28), does not match the file."
    )
    assert "scripts/vendor.py prepare --dest DIR" in message
    assert prepared.stamp_file.read_text() == before
    assert prepared.kept() == {"pristine", "src", "stamp", "owner"}


def test_the_hunk_that_fails_is_counted(project: Project) -> None:
    """The second of two hunks of the second of two files."""
    patch = project.folder / "patches" / (project.folder / "series").read_text().split()[0]
    copy = project.root.parent / "copy"
    project.ok("prepare", "--dest", copy)
    git(copy, "reset", "-q", "--hard", "HEAD~2")
    text = (copy / "src" / "lib.cpp").read_text()
    (copy / "src" / "lib.cpp").write_text(
        text.replace("value_3 ", "value_three ").replace("value_30 ", "value_thirty ")
    )
    (copy / "include" / "llama.h").write_text("int llama(int);\n")
    git(copy, "commit", "-qam", "two files")
    project.ok("export", copy)
    (patch,) = (project.folder / "patches").iterdir()
    patch.write_text(patch.read_text().replace(" int value_33 = 33;", " int value_33 = 34;"))
    assert "src/lib.cpp, hunk 2 of 2 (line 28), does not match the file" in project.fails("prepare")


def test_context_is_not_fuzzy_but_a_shifted_hunk_is_found(prepared: Project) -> None:
    """Git am places a hunk at another line only when every line of context is there; check reports that."""
    spoil(prepared, "@@ -28,7 +28,7 @@", "@@ -20,7 +20,7 @@")
    prepared.ok("prepare")
    done = prepared.run("check")
    assert done.code == 1
    assert "is not what an export writes: line 18 is '@@ -20,7 +20,7 @@" in done.out


def test_a_patch_of_a_file_that_is_not_there(prepared: Project) -> None:
    name = spoil(prepared, "src/lib.cpp", "src/gone.cpp")
    assert f"patches/{name} does not apply: src/gone.cpp does not exist in llama.cpp" in prepared.fails("prepare")


def test_a_patch_that_is_no_patch(prepared: Project) -> None:
    name = (prepared.folder / "series").read_text().split()[0]
    (prepared.folder / "patches" / name).write_text("nothing\n")
    assert f"patches/{name} does not apply" in prepared.fails("prepare")


def test_a_series_line_without_a_patch(prepared: Project) -> None:
    with (prepared.folder / "series").open("a") as series:
        series.write("0003-gone.patch\n")
    assert "names 0003-gone.patch, but" in prepared.fails("prepare")


@pytest.mark.parametrize("name", ["series", "UPSTREAM.toml"])
def test_a_file_of_the_folder_is_missing(prepared: Project, name: str) -> None:
    (prepared.folder / name).unlink()
    assert f"{prepared.folder / name} is missing" in prepared.fails("prepare")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("commit = ", "comit = ", "missing commit; unknown comit"),
        ('version = "9.9.9"', "version = 9.9.9", "line 2: expected key = \"value\", found 'version = 9.9.9'"),
        ("commit = ", "version = ", "line 6: version is given twice"),
        ('"9.9.9"', '""', "missing version"),
    ],
)
def test_a_pin_that_cannot_be_read(project: Project, old: str, new: str, expected: str) -> None:
    pin = project.folder / "UPSTREAM.toml"
    pin.write_text(pin.read_text().replace(old, new, 1))
    assert expected in project.fails("prepare")


# The machine


def test_git_is_missing(project: Project, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = project.fails("prepare", PATH=str(tmp_path / "empty"))
    assert message == "git was not found on PATH; install git and try again"


def test_the_cache_cannot_be_written(project: Project, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = project.fails("prepare", NEXTN_CACHE_DIR=str(tmp_path / "file" / "cache"))
    assert message.startswith(f"cannot use the cache {tmp_path}/file/cache/llama.cpp-{VERSION}: Not a directory;")
    assert "set NEXTN_CACHE_DIR to a folder that you can write to" in message


# A tree that the user brings


@pytest.fixture
def copy(prepared: Project, tmp_path: Path) -> Path:
    prepared.ok("prepare", "--dest", tmp_path / "copy")
    return tmp_path / "copy"


def test_a_working_copy_may_be_built_and_is_stamped_as_such(prepared: Project, copy: Path) -> None:
    header = copy / "src" / "llama-nextn-stamp.h"
    assert prepared.ok("source", copy) == str(copy)
    tree = git(copy, "rev-parse", "HEAD^{tree}")[:20]
    assert f'"source-{tree}"' in header.read_text()
    time = header.stat().st_mtime_ns
    prepared.ok("source", copy)
    assert header.stat().st_mtime_ns == time
    (copy / "src" / "other.cpp").write_text("int mine;\n")
    prepared.ok("source", copy)
    assert f'"source-{tree}-modified"' in header.read_text()


def test_a_linked_worktree_may_be_built(prepared: Project, copy: Path, tmp_path: Path) -> None:
    git(copy, "worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    assert prepared.ok("source", tmp_path / "linked") == str(tmp_path / "linked")


def test_trees_that_are_not_the_pinned_one(prepared: Project, copy: Path, tmp_path: Path) -> None:
    plain, empty, other, bare = (tmp_path / name for name in ("plain", "empty", "other", "bare"))
    shutil.copytree(copy, plain, ignore=shutil.ignore_patterns(".git"))
    empty.mkdir()
    git(empty, "init", "-q")
    wrong = tree_id(other, UPSTREAM | {"src/lib.cpp": "other\n"})
    git(other, "commit", "-qm", "other")
    tree_id(bare)
    git(bare, "commit", "-qm", "upstream")
    expectations = {
        tmp_path / "nowhere": "is not a directory",
        plain: "is not the top of a git working copy",
        copy / "src": "is not the top of a git working copy",
        empty: "is not the pinned llama.cpp abc9990 (llama-cpp-python==9.9.9): its first commit should hold tree",
        other: f"found {wrong}",
        bare: "has no include/llama-nextn.h: it is llama.cpp without nextn's files",
    }
    for tree, expected in expectations.items():
        message = prepared.fails("source", tree)
        assert message.startswith(f"NEXTN_LLAMA_SOURCE={tree} ")
        assert expected in message
        assert "prepare --dest DIR" in message


def test_another_pin_makes_another_tree_wrong(prepared: Project, copy: Path, tmp_path: Path) -> None:
    (prepared.folder / "UPSTREAM.toml").write_text(pin_text(prepared.archive, "1" * 40))
    assert f"should hold tree {'1' * 40}, found " in prepared.fails("source", copy)


def test_help_names_every_command(project: Project) -> None:
    text = project.ok("--help")
    for word in ("prepare", "check", "export", "bump", "stats", "source", "NEXTN_CACHE_DIR", "NEXTN_LLAMA_ARCHIVE"):
        assert word in text
