"""vendor.py bump: to another version of the package and back in order."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from .project import LIB, UPSTREAM, Project, git, make_archive, tree_id

NEW = "9.9.10"


class Bump:
    """A newer archive and the pin it leads to."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        folder.mkdir()
        self.archive = make_archive(folder, version=NEW, files=files)
        self.tree = tree_id(folder / "tree", files)

    @property
    def pin(self) -> str:
        return (
            f'version = "{NEW}"\narchive = "llama_cpp_python-{NEW}.tar.gz"\n'
            f'sha256 = "{hashlib.sha256(self.archive.read_bytes()).hexdigest()}"\n'
            f'subdirectory = "vendor/llama.cpp"\ncommit = "abc99100"\ntree = "{self.tree}"\n'
        )


def names(project: Project) -> list[str]:
    return (project.folder / "series").read_text().split()


def test_everything_applies(prepared: Project, tmp_path: Path) -> None:
    """New lines in front of the hunks, a new file: the patches move, and are written anew."""
    new = Bump(tmp_path / "new", UPSTREAM | {"src/lib.cpp": "// new\n" + LIB, "src/more.cpp": "int more;\n"})
    out = prepared.ok("bump", NEW, "--archive", new.archive)
    assert new.pin in (prepared.folder / "UPSTREAM.toml").read_text()
    assert f"changed patches/{names(prepared)[0]}" in out
    assert f"the pin is now llama-cpp-python=={NEW} (llama.cpp abc99100)" in out
    assert prepared.ok("check") == "vendor/llama.cpp: in order, 2 patches"
    path = Path(prepared.ok("prepare"))
    assert path.parents[2].name == f"llama.cpp-{NEW}"
    assert (path / "src" / "lib.cpp").read_text().startswith("// new\n")
    assert "value_30 = 330;" in (path / "src" / "lib.cpp").read_text()
    assert (path / "src" / "more.cpp").exists()


def test_pip_gets_the_new_version_by_name(prepared: Project, tmp_path: Path) -> None:
    new = Bump(tmp_path / "new", UPSTREAM | {"LICENSE": "MIT 2\n"})
    prepared.ok("bump", NEW, PIP_FIND_LINKS=str(new.archive.parent))
    assert new.pin in (prepared.folder / "UPSTREAM.toml").read_text()


def test_a_three_way_merge_is_reported(prepared: Project, tmp_path: Path) -> None:
    new = Bump(tmp_path / "new", UPSTREAM | {"src/lib.cpp": LIB.replace("value_5 = 5;\n", "value_5 = 5;\nint new;\n")})
    out = prepared.ok("bump", NEW, "--archive", new.archive)
    first, second = names(prepared)
    assert f"patches/{first} applies with a 3-way merge" in out
    assert f"patches/{second} applies with a 3-way merge" not in out
    assert prepared.ok("check") == "vendor/llama.cpp: in order, 2 patches"


def test_a_conflict_leaves_a_working_copy_and_the_old_pin(prepared: Project, tmp_path: Path) -> None:
    new = Bump(tmp_path / "new", UPSTREAM | {"src/lib.cpp": LIB.replace("value_3 = 3;", "value_3 = 4;")})
    before = prepared.snapshot()
    tree = tmp_path / "work"
    text = prepared.fails("bump", NEW, "--archive", new.archive, "--dest", tree)
    assert f"patches/{names(prepared)[0]} does not apply; the working copy {tree} stopped at it" in text
    assert f"scripts/vendor.py bump {NEW} --finish {tree}" in text
    assert prepared.snapshot() == before
    assert "in the middle of a git am" in prepared.fails("bump", NEW, "--finish", tree)
    assert prepared.snapshot() == before
    lib = tree / "src" / "lib.cpp"
    assert "<<<<<<<" in lib.read_text()
    lib.write_text(LIB.replace("value_3 = 3;", "value_3 = 44;"))
    git(tree, "add", "src/lib.cpp")
    git(tree, "am", "--continue")
    prepared.ok("bump", NEW, "--finish", tree)
    assert new.pin in (prepared.folder / "UPSTREAM.toml").read_text()
    assert prepared.ok("check") == "vendor/llama.cpp: in order, 2 patches"
    assert "value_3 = 44;" in (Path(prepared.ok("prepare")) / "src" / "lib.cpp").read_text()


def test_a_new_upstream_file_in_the_way_of_ours(prepared: Project, tmp_path: Path) -> None:
    new = Bump(tmp_path / "new", UPSTREAM | {"include/llama-nextn.h": "theirs\n"})
    before = prepared.snapshot()
    text = prepared.fails("bump", NEW, "--archive", new.archive)
    assert "overlay/include/llama-nextn.h would overwrite an upstream file" in text
    assert prepared.snapshot() == before


def test_the_copy_of_the_old_archive_is_not_taken_for_the_new_one(prepared: Project) -> None:
    message = prepared.fails("bump", NEW, NEXTN_LLAMA_ARCHIVE=str(prepared.archive))
    assert f"cannot download llama-cpp-python=={NEW}" in message


def test_a_version_that_cannot_be_had(prepared: Project) -> None:
    before = prepared.snapshot()
    assert "cannot download llama-cpp-python==1.2.3" in prepared.fails("bump", "1.2.3")
    assert prepared.snapshot() == before


def test_a_second_try_begins_anew(prepared: Project, tmp_path: Path) -> None:
    new = Bump(tmp_path / "new", UPSTREAM | {"src/lib.cpp": LIB.replace("value_3 = 3;", "value_3 = 4;")})
    prepared.fails("bump", NEW, "--archive", new.archive)
    assert "exists and is not empty" in prepared.fails("bump", NEW, "--archive", new.archive)
    shutil.rmtree(prepared.cache / f"llama.cpp-{NEW}" / "bump")
    assert "stopped at it" in prepared.fails("bump", NEW, "--archive", new.archive)


@pytest.mark.parametrize("version", ["9.9.9", NEW])
def test_finish_wants_the_working_copy_of_that_bump(prepared: Project, tmp_path: Path, version: str) -> None:
    prepared.ok("prepare", "--dest", tmp_path / "copy")
    text = prepared.fails("bump", version, "--finish", tmp_path / "copy")
    assert f"{tmp_path / 'copy'} is not the working copy of a bump" in text
