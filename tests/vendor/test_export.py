"""vendor.py export and prepare --dest: from patches to commits and back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .project import LIB, UPSTREAM, Project, commit, git, message

OWN_HEADER = "// ours\nint nextn();\n"


@pytest.fixture
def copy(prepared: Project, working_copy: Path, tmp_path: Path) -> Path:
    """A working copy of the project."""
    shutil.copytree(working_copy, tmp_path / "copy")
    return tmp_path / "copy"


def test_prepare_prints_where_the_working_copy_is(prepared: Project, tmp_path: Path) -> None:
    assert prepared.ok("prepare", "--dest", tmp_path / "new") == str(tmp_path / "new")


def test_a_working_copy_is_a_branch_with_one_commit_for_each_part(prepared: Project, copy: Path) -> None:
    assert git(copy, "branch", "--show-current") == "nextn"
    assert git(copy, "status", "--porcelain") == ""
    subjects = git(copy, "log", "--reverse", "--format=%s").splitlines()
    assert subjects[1:] == ["nextn: overlay", "lib: change three", "lib: change thirty"]
    assert git(copy, "rev-parse", "pristine") == git(copy, "log", "--max-parents=0", "--format=%H")
    assert git(copy, "rev-parse", "HEAD") == git(prepared.source, "rev-parse", "HEAD")
    assert (copy / "src" / "llama-nextn-stamp.h").exists()


def test_a_working_copy_needs_nothing_of_the_cache(prepared: Project, copy: Path) -> None:
    prepared.cache.rename(prepared.cache.with_name("gone"))
    assert git(copy, "fsck", "--full") == ""


def test_a_working_copy_never_overwrites(prepared: Project, copy: Path) -> None:
    assert f"{copy} exists and is not empty" in prepared.fails("prepare", "--dest", copy)


def test_a_working_copy_that_cannot_be_made_leaves_nothing(project: Project, tmp_path: Path) -> None:
    project.fails("prepare", "--dest", tmp_path / "copy", NEXTN_LLAMA_ARCHIVE=None)
    assert not (tmp_path / "copy").exists()
    project.overlay("src/other.cpp", "ours\n")
    assert "would overwrite an upstream file" in project.fails("prepare", "--dest", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_an_export_of_what_was_prepared_changes_nothing(prepared: Project, copy: Path) -> None:
    before = prepared.snapshot()
    times = {path: path.stat().st_mtime_ns for path in prepared.folder.rglob("*")}
    for tree in ([copy], []):  # without a name: the cache's tree
        assert prepared.ok("export", *tree) == "nothing to change"
    assert prepared.snapshot() == before
    assert {path: path.stat().st_mtime_ns for path in prepared.folder.rglob("*")} == times


def test_an_export_does_not_depend_on_settings_of_the_user(prepared: Project, copy: Path, tmp_path: Path) -> None:
    settings = "[diff]\n\tnoprefix = true\n\tcontext = 9\n\talgorithm = histogram\n\trenames = copies\n"
    settings += "[format]\n\tsignature = me\n\tnumbered = true\n\tsubjectPrefix = X\n\tencodeEmailHeaders = false\n"
    (tmp_path / ".gitconfig").write_text(settings + "[core]\n\tabbrev = 4\n[user]\n\tname = other\n")
    assert prepared.ok("export", copy, HOME=str(tmp_path)) == "nothing to change"
    assert "in order" in prepared.ok("check", HOME=str(tmp_path))


def test_patches_say_nothing_about_the_machine(prepared: Project) -> None:
    for name in (prepared.folder / "series").read_text().split():
        text = (prepared.folder / "patches" / name).read_text()
        assert text.startswith("From " + "0" * 40 + " Mon Sep 17 00:00:00 2001\nFrom: dev <dev@example.org>\n")
        assert "Subject: [PATCH] lib: change" in text
        assert "git version" not in text
        assert "\n-- \n" not in text


def test_one_commit_becomes_one_patch(prepared: Project, copy: Path) -> None:
    before = prepared.snapshot()
    commit(copy, message("other: änder dies"), {"src/other.cpp": "int changed;\n"})
    changes = prepared.ok("export", copy).splitlines()
    (name,) = (prepared.folder / "series").read_text().split()[2:]
    assert name.startswith("0003-other-")
    assert changes == [f"added patches/{name}", "changed series"]
    after = prepared.snapshot()
    assert {path for path in after if before.get(path) != after[path]} == {f"patches/{name}", "series"}
    prepared.ok("prepare")
    assert prepared.read("src/other.cpp") == "int changed;\n"
    assert git(prepared.source, "log", "-1", "--format=%B").strip() == message("other: änder dies").strip()


def test_new_files_go_to_the_overlay_and_never_into_a_patch(prepared: Project, copy: Path) -> None:
    commit(copy, message("both"), {"src/llama-nextn-new.cpp": "int new;\n", "src/other.cpp": "int changed;\n"})
    commit(copy, "fixup! nextn: overlay", {"include/llama-nextn.h": "// better\n", "kept/data.log": "ignored\n"})
    commit(copy, "run", {"tools/own.sh": "#!/bin/sh\n"})
    (copy / "tools" / "own.sh").chmod(0o755)
    git(copy, "commit", "-qam", "run: executable")
    changes = prepared.ok("export", copy).splitlines()
    assert changes == [
        "changed overlay/include/llama-nextn.h",
        "added overlay/kept/data.log",
        "added overlay/src/llama-nextn-new.cpp",
        "added overlay/tools/own.sh",
        "added patches/0003-both.patch",
        "changed series",
    ]
    patch = (prepared.folder / "patches" / "0003-both.patch").read_text()
    assert "src/other.cpp" in patch
    assert "llama-nextn-new" not in patch
    prepared.ok("prepare")
    assert prepared.read("src/llama-nextn-new.cpp") == "int new;\n"
    assert prepared.read("kept/data.log") == "ignored\n"
    assert (prepared.source / "tools" / "own.sh").stat().st_mode & 0o111
    assert git(prepared.source, "rev-parse", "HEAD^{tree}") == git(copy, "rev-parse", "HEAD^{tree}")
    prepared.ok("check")


def test_commits_that_are_gone_remove_their_patch(prepared: Project, copy: Path) -> None:
    git(copy, "rm", "-q", "src/llama-nextn.cpp")
    git(copy, "commit", "-qm", "drop a file of ours")
    git(copy, "rebase", "-q", "--onto", "HEAD~3", "HEAD~1")
    assert prepared.ok("export", copy).splitlines()[:3] == [
        "removed overlay/src/llama-nextn.cpp",
        "removed patches/0001-lib-change-three.patch",
        "removed patches/0002-lib-change-thirty.patch",
    ]
    assert (prepared.folder / "series").read_text() == ""
    assert not (prepared.folder / "patches").exists()
    assert not (prepared.folder / "overlay" / "src").exists()
    prepared.ok("prepare")
    assert prepared.read("src/lib.cpp") == LIB
    assert prepared.run("check").out.startswith("vendor/llama.cpp: in order, 0 patches")


def test_binary_line_endings_and_deletions_survive(prepared: Project, copy: Path) -> None:
    (copy / "docs" / "dos.txt").write_bytes(b"one\r\nthree\r\nno end")
    (copy / "LICENSE").write_bytes(bytes(range(256)))
    git(copy, "rm", "-q", "src/other.cpp")
    (copy / "run.sh").chmod(0o644)
    git(copy, "commit", "-qam", message("odd changes"))
    prepared.ok("export", copy)
    prepared.ok("prepare")
    assert git(prepared.source, "rev-parse", "HEAD^{tree}") == git(copy, "rev-parse", "HEAD^{tree}")
    assert "0003" not in prepared.run("check").out


def test_a_file_moved_to_a_new_name_leaves_a_deletion(prepared: Project, copy: Path) -> None:
    git(copy, "mv", "src/other.cpp", "src/llama-nextn-other.cpp")
    git(copy, "commit", "-qm", message("move"))
    prepared.ok("export", copy)
    assert (prepared.folder / "overlay" / "src" / "llama-nextn-other.cpp").read_text() == UPSTREAM["src/other.cpp"]


# What export refuses


def refused(project: Project, tree: Path) -> str:
    """The message, after making sure that nothing was written."""
    before = project.snapshot()
    text = project.fails("export", tree)
    assert project.snapshot() == before
    return text


def test_uncommitted_changes_are_refused(prepared: Project, copy: Path) -> None:
    (copy / "src" / "new.cpp").touch()
    assert f"{copy} has changes that are not committed: src/new.cpp" in refused(prepared, copy)


def test_a_fixup_of_a_patch_must_be_melted_first(prepared: Project, copy: Path) -> None:
    commit(copy, "fixup! lib: change three", {"src/other.cpp": "int fix;\n"})
    text = refused(prepared, copy)
    assert 'the commit "fixup! lib: change three" changes upstream files' in text
    assert "git rebase --interactive --autosquash pristine" in text


def test_merges_are_refused(prepared: Project, copy: Path) -> None:
    git(copy, "checkout", "-q", "-b", "side", "HEAD~1")
    commit(copy, "side", {"src/other.cpp": "int side;\n"})
    git(copy, "checkout", "-q", "nextn")
    git(copy, "merge", "-q", "side")
    assert "has merge commits" in refused(prepared, copy)


def test_a_tree_of_another_pin_is_refused(prepared: Project, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    git(tmp_path / "other", "init", "-q")
    commit(tmp_path / "other", "root", {"file": "x\n"})
    assert "is not the pinned llama.cpp abc9990" in refused(prepared, tmp_path / "other")
    assert "is not a directory" in refused(prepared, tmp_path / "nowhere")


def test_a_message_that_git_am_would_take_for_a_diff_is_refused(prepared: Project, copy: Path) -> None:
    text = message("other: odd").replace("Why:", "diff --git a/x b/x\nWhy:")
    commit(copy, text, {"src/other.cpp": "int odd;\n"})
    assert "does not survive git am" in refused(prepared, copy)


def test_newer_changes_in_the_project_are_not_overwritten(prepared: Project, copy: Path) -> None:
    prepared.overlay("src/llama-nextn.cpp", "// newer\n")
    prepared.overlay("src/llama-nextn-newer.cpp", "// newer\n")
    commit(copy, message("other: changed"), {"src/other.cpp": "int changed;\n"})
    text = refused(prepared, copy)
    assert f"vendor/llama.cpp has changed since {copy} was made from it" in text
    assert "(overlay/src/llama-nextn-newer.cpp, overlay/src/llama-nextn.cpp)" in text
    commit(copy, "take over", {"src/llama-nextn.cpp": "// newer\n", "src/llama-nextn-newer.cpp": "// newer\n"})
    assert "added patches/0003-other-changed.patch" in prepared.ok("export", copy)


def test_newer_changes_can_be_overwritten_on_demand(prepared: Project, copy: Path) -> None:
    prepared.overlay("include/llama-nextn.h", "// newer\n")
    assert prepared.ok("export", "--force", copy) == "changed overlay/include/llama-nextn.h"
    assert (prepared.folder / "overlay" / "include" / "llama-nextn.h").read_text() == OWN_HEADER


def test_after_an_export_the_copy_is_in_step_again(prepared: Project, copy: Path) -> None:
    for content in ("int one;\n", "int two;\n"):
        commit(copy, message("other: changed"), {"src/other.cpp": content})
        prepared.ok("export", copy)
    assert len((prepared.folder / "series").read_text().split()) == 4


# A patch that needs repair


def test_a_working_copy_stops_at_a_patch_that_does_not_apply(prepared: Project, tmp_path: Path) -> None:
    one, two = (prepared.folder / "series").read_text().split()
    patch = prepared.folder / "patches" / one
    patch.write_text(patch.read_text().replace(" int value_2 = 2;", " int value_2 = 22;"))
    tree = tmp_path / "copy"
    text = prepared.fails("prepare", "--dest", tree)
    assert f"patches/{one} does not apply; the working copy {tree} stopped at it. Next:" in text
    assert "git am --continue" in text
    assert f"scripts/vendor.py export {tree}" in text
    assert "is in the middle of a git am or rebase" in prepared.fails("export", tree)
    (tree / "src" / "lib.cpp").write_text(LIB.replace("value_3 = 3;", "value_3 = 333;"))
    git(tree, "add", "src/lib.cpp")
    git(tree, "am", "--continue")
    changes = prepared.ok("export", tree)
    assert f"changed patches/{one}" in changes
    prepared.ok("prepare")
    assert "value_3 = 333;" in prepared.read("src/lib.cpp")
    assert "value_30 = 330;" in prepared.read("src/lib.cpp")
    assert prepared.ok("check").startswith("vendor/llama.cpp: in order")
    assert two in (prepared.folder / "series").read_text()
