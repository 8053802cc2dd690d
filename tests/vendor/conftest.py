"""Fixtures: one small project, made once and copied for each test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .project import LIB, Project, commit, make_archive, message, pin_text, tree_id

OWN_HEADER = "// ours\nint nextn();\n"


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small archive."""
    return make_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Project:
    """A project with two overlay files and two patches, exported from a working copy."""
    base = tmp_path_factory.mktemp("template")
    project = Project(base / "root", base / "cache", archive)
    project.folder.mkdir(parents=True)
    (project.folder / "UPSTREAM.toml").write_text(pin_text(archive, tree_id(base / "tree")))
    (project.folder / "series").touch()
    (project.root / "tests").mkdir()
    (project.root / "tests" / "test_it.py").touch()
    project.overlay("include/llama-nextn.h", OWN_HEADER)
    project.overlay("src/llama-nextn.cpp", '#include "llama-nextn-stamp.h"\n')
    project.ok("prepare", "--dest", base / "copy")
    changed = LIB.replace("value_3 = 3", "value_3 = 33")
    commit(base / "copy", message("lib: change three"), {"src/lib.cpp": changed})
    changed = changed.replace("value_30 = 30", "value_30 = 330")
    commit(base / "copy", message("lib: change thirty"), {"src/lib.cpp": changed})
    project.ok("export", base / "copy")
    return project


@pytest.fixture
def project(template: Project, tmp_path: Path) -> Project:
    """A copy of the project with an empty cache."""
    shutil.copytree(template.root, tmp_path / "root")
    return Project(tmp_path / "root", tmp_path / "cache", template.archive)


@pytest.fixture(scope="session")
def prepared_cache(template: Project) -> Path:
    """A cache in which the project is prepared."""
    template.ok("prepare")
    return template.cache


@pytest.fixture(scope="session")
def working_copy(template: Project, prepared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working copy of the project; copy it before changing it."""
    tree = tmp_path_factory.mktemp("working") / "copy"
    template.ok("prepare", "--dest", tree)
    return tree


@pytest.fixture
def prepared(project: Project, prepared_cache: Path) -> Project:
    """The project after its first prepare, and without an archive to fall back on."""
    shutil.copytree(prepared_cache, project.cache)
    (tree,) = (project.version_cache / "trees").iterdir()  # of the template; now it is the copy's
    tree.rename(project.tree)
    (project.tree / "owner").write_bytes(bytes(project.root))
    project.env["NEXTN_LLAMA_ARCHIVE"] = ""
    return project
