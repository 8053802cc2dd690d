"""cmake/llama_source.cmake: the tree is prepared when a build is configured, and again when its parts change."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from .project import REPOSITORY, Project, git

LISTS = """\
cmake_minimum_required(VERSION 3.25)
project(small LANGUAGES NONE)
include(cmake/llama_source.cmake)
file(WRITE ${CMAKE_BINARY_DIR}/found "${NEXTN_LLAMA_DIR}")
add_custom_command(OUTPUT built COMMAND ${CMAKE_COMMAND} -E copy ${NEXTN_LLAMA_DIR}/include/llama-nextn.h built
    DEPENDS ${NEXTN_LLAMA_DIR}/include/llama-nextn.h)
add_custom_target(all_of_it ALL DEPENDS built)
"""


class Build:
    """A CMake project around the small fork."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project = project
        self.folder = folder
        (project.root / "CMakeLists.txt").write_text(LISTS)
        for path in ("cmake/llama_source.cmake", "scripts/vendor.py"):
            (project.root / path).parent.mkdir(exist_ok=True)
            shutil.copy(REPOSITORY / path, project.root / path)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / "scripts" / "vendoring", project.root / "scripts" / "vendoring", ignore=ignore)

    def call(self, *args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        environment = self.project.environment(**env)
        return subprocess.run(list(map(str, args)), env=environment, capture_output=True, text=True, check=False)

    def configure(self, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.call("cmake", "-G", "Ninja", "-S", self.project.root, "-B", self.folder, *options, **env)

    def build(self) -> str:
        done = self.call("cmake", "--build", self.folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def found(self) -> str:
        return (self.folder / "found").read_text()

    @property
    def built(self) -> str:
        return (self.folder / "built").read_text()


@pytest.fixture
def build(prepared: Project, tmp_path: Path) -> Build:
    for program in ("cmake", "ninja"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} on PATH")
    return Build(prepared, tmp_path / "build")


def test_the_prepared_tree_is_built_and_follows_the_overlay(build: Build) -> None:
    done = build.configure()
    assert done.returncode == 0, done.stderr
    assert build.found == str(build.project.source)
    build.build()
    assert "no work to do" in build.build()
    time.sleep(0.02)  # time stamps of files are only so fine
    build.project.overlay("include/llama-nextn.h", "// new\n")
    build.build()
    assert build.built == "// new\n"
    assert "no work to do" in build.build()
    build.project.overlay("src/llama-nextn-more.cpp", "int more;\n")
    build.build()
    assert build.project.read("src/llama-nextn-more.cpp") == "int more;\n"
    (build.project.folder / "series").write_text("")
    build.build()
    assert "330" not in build.project.read("src/lib.cpp")


def test_another_clone_does_not_disturb_the_build(build: Build, tmp_path: Path) -> None:
    assert build.configure().returncode == 0
    build.build()
    shutil.copytree(build.project.root, tmp_path / "clone")
    clone = Project(tmp_path / "clone", build.project.cache, build.project.archive)
    clone.overlay("include/llama-nextn.h", "// of the clone\n")
    time.sleep(0.02)
    clone.ok("prepare")
    assert "no work to do" in build.build()
    assert build.built == "// ours\nint nextn();\n"


def test_a_tree_that_was_brought_to_another_state_is_noticed(build: Build) -> None:
    assert build.configure().returncode == 0
    build.build()
    time.sleep(0.02)
    build.project.stamp_file.unlink()
    (build.project.source / "include" / "llama-nextn.h").write_text("// half\n")
    build.build()
    assert build.built == "// ours\nint nextn();\n"


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_tree_of_the_user_is_built(build: Build, tmp_path: Path, how: str) -> None:
    copy = tmp_path / "copy with a blank"
    build.project.ok("prepare", "--dest", copy)
    if how == "option":
        done = build.configure(f"-DNEXTN_LLAMA_SOURCE={copy}")
    else:
        done = build.configure(NEXTN_LLAMA_SOURCE=str(copy))
    assert done.returncode == 0, done.stderr
    assert build.found == str(copy)
    tree = git(copy, "rev-parse", "HEAD^{tree}")
    assert f"source-{tree[:20]}" in (copy / "src" / "llama-nextn-stamp.h").read_text()


def test_a_wrong_tree_stops_with_the_message_of_the_script(build: Build, tmp_path: Path) -> None:
    message = build.project.fails("source", tmp_path)
    done = build.configure(f"-DNEXTN_LLAMA_SOURCE={tmp_path}")
    assert done.returncode == 1
    assert f"\n    {message}\n" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_patch_that_does_not_apply_stops_the_build(build: Build) -> None:
    patch = next((build.project.folder / "patches").glob("0002-*"))
    patch.write_text(patch.read_text().replace("value_29 = 29", "value_29 = 28"))
    message = build.project.fails("prepare")
    done = build.configure()
    assert done.returncode == 1
    assert f"\n    {message}\n" in done.stderr
