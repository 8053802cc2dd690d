"""vendor.py prepare: what it makes, and what it leaves alone."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import time
from pathlib import Path

import pytest

from .project import LIB, UPSTREAM, Project, git

PATCHED = LIB.replace("value_3 = 3;", "value_3 = 33;").replace("value_30 = 30;", "value_30 = 330;")


def times(tree: Path) -> dict[str, int]:
    """Modification time of every file, git's index included: builds depend on them."""
    paths = [path for path in tree.rglob("*") if path.is_file() and ".git" not in path.relative_to(tree).parts]
    return {str(path.relative_to(tree)): path.stat().st_mtime_ns for path in [*paths, tree / ".git" / "index"]}


def touched(before: dict[str, int], after: dict[str, int]) -> set[str]:
    """Files that were written, made or removed, apart from git's index."""
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)} - {".git/index"}


def stamp_of(project: Project) -> str:
    return project.read("src/llama-nextn-stamp.h").split('"')[1]


def test_the_tree_is_upstream_plus_overlay_plus_patches(project: Project) -> None:
    out = project.ok("prepare").splitlines()
    assert out[-1] == str(project.source)
    expected = {path.replace("!", ""): content for path, content in UPSTREAM.items()} | {
        "src/lib.cpp": PATCHED,
        "include/llama-nextn.h": "// ours\nint nextn();\n",
        "src/llama-nextn.cpp": '#include "llama-nextn-stamp.h"\n',
    }
    found = {
        path: (project.source / path).read_bytes().decode() for path in times(project.source) if path != ".git/index"
    }
    header = found.pop("src/llama-nextn-stamp.h")
    assert found == expected
    assert f'#define LLAMA_NEXTN_BUILD_STAMP "{stamp_of(project)}"' in header
    assert os.access(project.source / "run.sh", os.X_OK)
    assert not os.access(project.source / "LICENSE", os.X_OK)
    assert git(project.source, "status", "--porcelain") == ""


def test_the_history_is_one_commit_for_each_part(project: Project) -> None:
    project.ok("prepare")
    subjects = git(project.source, "log", "--reverse", "--format=%s").splitlines()
    assert subjects[0].startswith("llama.cpp abc9990")
    assert subjects[1:] == ["nextn: overlay", "lib: change three", "lib: change thirty"]
    root = git(project.source, "log", "--max-parents=0", "--format=%T")
    assert f'tree = "{root}"' in (project.folder / "UPSTREAM.toml").read_text()


def test_commit_ids_do_not_depend_on_the_machine(project: Project, tmp_path: Path) -> None:
    project.ok("prepare")
    (tmp_path / "home").mkdir()
    (tmp_path / "attributes").write_text("* text eol=crlf\n")
    (tmp_path / "home" / ".gitconfig").write_text(
        "[core]\n\tautocrlf = true\n\tabbrev = 4\n\tattributesFile = "
        f"{tmp_path}/attributes\n[commit]\n\tgpgsign = true\n[am]\n\tthreeWay = true\n[diff]\n\tnoprefix = true\n"
    )
    other = Project(project.root, tmp_path / "other", project.archive)
    hostile = {"HOME": str(tmp_path / "home"), "GIT_DIR": "/nowhere", "GIT_INDEX_FILE": "/nowhere/index"}
    hostile |= {"GIT_AUTHOR_NAME": "x", "GIT_COMMITTER_DATE": "1 +0000", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"}
    other.ok("prepare", **hostile)
    assert git(other.source, "rev-parse", "HEAD") == git(project.source, "rev-parse", "HEAD")
    assert (other.source / "docs/dos.txt").read_bytes() == b"one\r\ntwo\r\n"
    assert stamp_of(other) == stamp_of(project)


def test_an_umask_and_a_repository_around_the_cache_do_not_matter(project: Project, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("*\n")
    before = os.umask(0o077)
    try:
        project.ok("prepare")
    finally:
        os.umask(before)
    assert project.read("src/lib.cpp") == PATCHED
    assert git(project.source, "status", "--porcelain") == ""


def test_a_second_call_is_quick_needs_nothing_and_touches_nothing(prepared: Project) -> None:
    before = times(prepared.source)
    stamp = prepared.stamp_file.stat().st_mtime_ns
    seconds = []
    for _ in range(3):
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert prepared.run_process("prepare") == (0, f"{prepared.source}\n", "")
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime)
    assert min(seconds) < 1.0
    assert times(prepared.source) == before
    assert prepared.stamp_file.stat().st_mtime_ns == stamp


def test_a_changed_overlay_file_is_the_only_one_written(prepared: Project) -> None:
    before, stamp = times(prepared.source), stamp_of(prepared)
    prepared.overlay("include/llama-nextn.h", "// new\n")
    prepared.ok("prepare")
    assert prepared.read("include/llama-nextn.h") == "// new\n"
    assert touched(before, times(prepared.source)) == {"include/llama-nextn.h", "src/llama-nextn-stamp.h"}
    assert stamp_of(prepared) != stamp


def test_files_with_new_times_but_old_content_are_not_written(prepared: Project) -> None:
    os.utime(prepared.source / "src" / "other.cpp", (1, 1))
    prepared.overlay("include/llama-nextn.h", "// new\n")
    prepared.ok("prepare")
    assert (prepared.source / "src" / "other.cpp").stat().st_mtime == 1


def test_what_is_dropped_disappears(prepared: Project) -> None:
    before = times(prepared.source)
    prepared.overlay("src/llama-nextn.cpp", None)
    series = (prepared.folder / "series").read_text().splitlines()
    (prepared.folder / "series").write_text(series[0] + "\n")
    prepared.ok("prepare")
    assert "330" not in prepared.read("src/lib.cpp")
    expected = {"src/llama-nextn.cpp", "src/lib.cpp", "src/llama-nextn-stamp.h"}
    assert touched(before, times(prepared.source)) == expected


def test_going_back_gives_the_old_stamp(prepared: Project) -> None:
    stamp = stamp_of(prepared)
    for content in ("// new\n", "// ours\nint nextn();\n"):
        prepared.overlay("include/llama-nextn.h", content)
        prepared.ok("prepare")
    assert stamp_of(prepared) == stamp


@pytest.mark.parametrize("part", ["content", "path", "mode", "series", "pin"])
def test_the_stamp_covers(part: str, prepared: Project) -> None:
    stamp = stamp_of(prepared)
    own = prepared.folder / "overlay" / "src" / "llama-nextn.cpp"
    if part == "content":
        own.write_text("\n")
    elif part == "path":
        own.rename(own.with_name("llama-nextm.cpp"))
    elif part == "mode":
        own.chmod(0o755)
    elif part == "series":
        (prepared.folder / "series").write_text("")
    else:
        pin = prepared.folder / "UPSTREAM.toml"
        pin.write_text(pin.read_text().replace('sha256 = "', 'sha256 = "0'))
    prepared.ok("prepare")
    assert stamp_of(prepared) != stamp


def test_neither_series_nor_overlay_is_needed(project: Project) -> None:
    (project.folder / "series").write_text("")
    for path in ("include/llama-nextn.h", "src/llama-nextn.cpp"):
        project.overlay(path, None)
    project.ok("prepare")
    assert project.read("src/lib.cpp") == LIB


def test_calls_at_the_same_time_all_succeed(project: Project) -> None:
    calls = [project.start("prepare") for _ in range(4)]
    results = [(call.communicate(timeout=60), call.returncode) for call in calls]
    assert [code for _, code in results] == [0, 0, 0, 0], results
    assert {out.strip() for (out, _), _ in results} == {str(project.source)}
    assert sum("importing" in err for (_, err), _ in results) == 1
    assert project.read("src/lib.cpp") == PATCHED


def test_a_call_waits_for_another_and_says_so(prepared: Project) -> None:
    prepared.overlay("include/llama-nextn.h", "// new\n")
    with (prepared.version_cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        call = prepared.start("prepare")
        assert call.stderr is not None
        assert call.stderr.readline().startswith("vendor: waiting for another call")
        time.sleep(0.2)
        assert call.poll() is None
        assert prepared.read("include/llama-nextn.h") != "// new\n"
    out, _ = call.communicate(timeout=60)
    assert (call.returncode, out.strip()) == (0, str(prepared.source))
    assert prepared.read("include/llama-nextn.h") == "// new\n"


def test_the_cache_is_where_the_environment_says(project: Project, tmp_path: Path) -> None:
    xdg, home = str(tmp_path / "xdg"), str(tmp_path / "home")
    part = f"nextn/{project.source.relative_to(project.cache)}"
    assert project.ok("prepare", NEXTN_CACHE_DIR=None, XDG_CACHE_HOME=xdg, HOME=home) == f"{xdg}/{part}"
    assert project.ok("prepare", NEXTN_CACHE_DIR=None, XDG_CACHE_HOME=None, HOME=home) == f"{home}/.cache/{part}"
    assert project.ok("prepare", NEXTN_CACHE_DIR=None, XDG_CACHE_HOME="rel", HOME=home) == f"{home}/.cache/{part}"


def test_each_clone_has_a_tree_of_its_own(prepared: Project, tmp_path: Path) -> None:
    shutil.copytree(prepared.root, tmp_path / "a clone")
    clone = Project(tmp_path / "a clone", prepared.cache, prepared.archive)
    clone.overlay("include/llama-nextn.h", "// of the clone\n")
    before = times(prepared.source)
    tree = Path(clone.ok("prepare"))
    assert tree != prepared.source
    assert (tree / "include/llama-nextn.h").read_text() == "// of the clone\n"
    assert times(prepared.source) == before
    assert prepared.run_process("prepare") == (0, f"{prepared.source}\n", "")


def test_trees_of_clones_that_are_gone_are_removed_after_a_day(prepared: Project, tmp_path: Path) -> None:
    trees = {}
    for name in ("old", "new", "alive"):
        shutil.copytree(prepared.root, tmp_path / name)
        trees[name] = Path(Project(tmp_path / name, prepared.cache, prepared.archive).ok("prepare")).parent
    for name in ("old", "alive"):
        os.utime(trees[name] / "owner", (time.time() - 25 * 3600,) * 2)
    for name in ("old", "new"):
        shutil.rmtree(tmp_path / name)
    prepared.overlay("include/llama-nextn.h", "// new\n")
    prepared.ok("prepare")
    assert {name for name, tree in trees.items() if tree.exists()} == {"new", "alive"}
    assert prepared.read("src/lib.cpp") == PATCHED


def test_a_moved_cache_still_works(prepared: Project, tmp_path: Path) -> None:
    before = times(prepared.source)
    moved = Project(prepared.root, tmp_path / "elsewhere", prepared.archive, prepared.env)
    prepared.cache.rename(moved.cache)
    moved.overlay("include/llama-nextn.h", "// new\n")
    assert moved.ok("prepare") == str(moved.source)
    assert touched(before, times(moved.source)) == {"include/llama-nextn.h", "src/llama-nextn-stamp.h"}


# Changes made by hand in the cache's tree


def test_changes_by_hand_are_used_and_mentioned(prepared: Project) -> None:
    (prepared.source / "src" / "other.cpp").write_text("int mine;\n")
    done = prepared.run("prepare")
    assert done.code == 0
    assert "was changed by hand (src/other.cpp); it is used as it is" in done.err
    assert prepared.read("src/other.cpp") == "int mine;\n"


def test_changes_by_hand_are_not_overwritten(prepared: Project) -> None:
    (prepared.source / "src" / "other.cpp").write_text("int mine;\n")
    prepared.overlay("include/llama-nextn.h", "// new\n")
    message = prepared.fails("prepare")
    assert "was changed by hand (src/other.cpp)" in message
    assert "export" in message
    assert "--discard" in message
    assert prepared.read("src/other.cpp") == "int mine;\n"
    prepared.ok("prepare", "--discard")
    assert prepared.read("src/other.cpp") == "int other;\n"
    assert prepared.read("include/llama-nextn.h") == "// new\n"


def test_commits_by_hand_are_not_lost_but_may_be_exported(prepared: Project) -> None:
    (prepared.source / "src" / "other.cpp").write_text("int mine;\n")
    git(prepared.source, "commit", "-qam", "other: mine")
    prepared.overlay("include/llama-nextn.h", "// new\n")
    assert "commits of its own" in prepared.fails("prepare")
    prepared.overlay("include/llama-nextn.h", "// ours\nint nextn();\n")
    assert "added patches/0003-other-mine.patch" in prepared.ok("export")
    prepared.ok("prepare")
    assert prepared.read("src/other.cpp") == "int mine;\n"
    assert git(prepared.source, "log", "-1", "--format=%s") == "other: mine"


def test_a_deleted_file_comes_back(prepared: Project) -> None:
    (prepared.source / "src" / "other.cpp").unlink()
    prepared.ok("prepare")
    assert prepared.read("src/other.cpp") == "int other;\n"


def test_build_folders_that_upstream_ignores_survive(prepared: Project) -> None:
    (prepared.source / "build").mkdir()
    (prepared.source / "build" / "object.o").touch()
    prepared.overlay("include/llama-nextn.h", "// new\n")
    prepared.ok("prepare")
    assert (prepared.source / "build" / "object.o").exists()
