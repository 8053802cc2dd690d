"""vendor.py check and stats: one line per problem, and each problem is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from .project import LIB, Project, commit, message


def patches(project: Project) -> list[Path]:
    return [project.folder / "patches" / name for name in (project.folder / "series").read_text().split()]


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def rename_second(project: Project, name: str) -> None:
    first, second = patches(project)
    second.rename(second.with_name(name))
    (project.folder / "series").write_text(f"{first.name}\n{name}\n")


def problems(project: Project) -> list[str]:
    done = project.run("check")
    assert done.code == 1, done
    assert done.err == ""
    return done.out.splitlines()


def test_a_project_in_order(prepared: Project) -> None:
    (prepared.folder / "INTERNALS.md").touch()
    (prepared.folder / "LICENSE").touch()
    assert prepared.ok("check") == "vendor/llama.cpp: in order, 2 patches"


def test_check_gets_the_archive_when_it_must(project: Project) -> None:
    assert project.ok("check") == "vendor/llama.cpp: in order, 2 patches"
    assert project.kept() == {"pristine"}
    assert "wrong hash" in Project(
        project.root, project.cache.with_name("other"), project.root / "tests" / "test_it.py"
    ).fails("check")


PLANTED: dict[str, tuple[Callable[[Project], object], str]] = {
    "no why": (lambda p: rewrite(patches(p)[0], "Why: because", "Because"), "its message has no line `Why: ...`"),
    "empty why": (lambda p: rewrite(patches(p)[0], "Why: because the test wants it so.", "Why:"), "no line `Why: ...`"),
    "no drop": (lambda p: rewrite(patches(p)[0], "Drop when: never.", "Never."), "has no line `Drop when: ...`"),
    "no test": (lambda p: rewrite(patches(p)[0], "Test: tests", "Tests: tests"), "has no line `Test: ...`"),
    "test is gone": (lambda p: (p.root / "tests" / "test_it.py").unlink(), "its test tests/test_it.py does not exist"),
    "stray patch": (
        lambda p: (p.folder / "patches" / "0009-x.patch").touch(),
        "patches/0009-x.patch is not in the series",
    ),
    "stray folder": (lambda p: (p.folder / "more").mkdir(), "more/ is unknown"),
    "stray file": (lambda p: (p.folder / "notes.txt").touch(), "notes.txt is unknown"),
    "listed twice": (
        lambda p: (p.folder / "series").write_text(2 * (p.folder / "series").read_text()),
        "series: 0001-lib-change-three.patch is listed twice",
    ),
    "listed, but absent": (
        lambda p: (p.folder / "series").write_text("0001-gone.patch\n"),
        "series: 0001-gone.patch is listed, but patches/ holds no such file",
    ),
    "collision": (
        lambda p: p.overlay("src/other.cpp", "ours\n"),
        "overlay/src/other.cpp would overwrite an upstream file",
    ),
    "copy of upstream": (
        lambda p: p.overlay("src/llama-nextn-lib.cpp", LIB.replace("value_1", "ours_1")),
        "% the same as upstream's src/lib.cpp; change that one through a patch",
    ),
    "does not apply": (
        lambda p: rewrite(patches(p)[1], " int value_29 = 29;", " int value_29 = 28;"),
        "0002-lib-change-thirty.patch does not apply: src/lib.cpp, hunk 1 of 1 (line 28), does not match the file",
    ),
    "edited by hand": (
        lambda p: rewrite(patches(p)[1], " @@ int value_26 = 26;", " @@"),
        "0002-lib-change-thirty.patch is not what an export writes: line 18 is '@@ -28,7 +28,7 @@', should be '@@ -28",
    ),
    "signature": (
        lambda p: patches(p)[1].write_text(patches(p)[1].read_text() + "-- \n2.39.5\n"),
        "0002-lib-change-thirty.patch is not what an export writes: it has",
    ),
    "renamed by hand": (
        lambda p: rename_second(p, "0002-x.patch"),
        "patches/0002-x.patch is not what an export writes: it would be named 0002-lib-change-thirty.patch",
    ),
    "blank line in the series": (
        lambda p: (p.folder / "series").write_text("\n" + (p.folder / "series").read_text()),
        "series is not what an export writes",
    ),
    "patch of an overlay file": (
        lambda p: rewrite(patches(p)[1], "src/lib.cpp", "include/llama-nextn.h"),
        "touches include/llama-nextn.h, which is a file of ours",
    ),
    "empty patch": (lambda p: patches(p)[1].write_text(""), "patches/0002-lib-change-thirty.patch changes nothing"),
}


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_problem_is_one_line(prepared: Project, plant: str) -> None:
    change, expected = PLANTED[plant]
    change(prepared)
    assert any(expected in line for line in problems(prepared)), problems(prepared)


def test_all_problems_are_listed(prepared: Project) -> None:
    for plant in ("no why", "no drop", "stray file", "edited by hand"):
        PLANTED[plant][0](prepared)
    found = problems(prepared)
    assert len(found) == 4
    assert all(line == line.strip() for line in found)


def test_patches_may_not_grow_too_large(prepared: Project, tmp_path: Path) -> None:
    prepared.ok("prepare", "--dest", tmp_path / "copy")
    small = "".join(f"int more_{n};\n" for n in range(60))
    commit(tmp_path / "copy", message("sixty"), {"src/other.cpp": "int other;\n" + small})
    prepared.ok("export", tmp_path / "copy")
    prepared.ok("check")
    commit(tmp_path / "copy", message("one"), {"src/other.cpp": small})
    commit(tmp_path / "copy", message("sixty-one"), {"src/other.cpp": "int other;\n"})
    prepared.ok("export", tmp_path / "copy")
    assert problems(prepared) == [
        "patches/0005-sixty-one.patch: 61 changed lines, at most 60 are allowed; move code to the overlay"
    ]


def test_the_queue_may_not_grow_too_large(prepared: Project, tmp_path: Path) -> None:
    prepared.ok("prepare", "--dest", tmp_path / "copy")
    text = "int other;\n"
    for number in range(7):
        text += "".join(f"int more_{number}_{n};\n" for n in range(58 if number < 6 else 49))
        commit(tmp_path / "copy", message(f"part {number}"), {"src/other.cpp": text})
    prepared.ok("export", tmp_path / "copy")
    assert problems(prepared) == ["series: 401 changed lines, at most 400 are allowed; move code to the overlay"]


def test_stats_count_lines(prepared: Project) -> None:
    assert prepared.ok("stats") == (
        "patches: changed lines (at most 60 each, 400 in all)\n"
        "      2  0001-lib-change-three.patch  (src/lib.cpp)\n"
        "      2  0002-lib-change-thirty.patch  (src/lib.cpp)\n"
        "      4  total of 2\n\n"
        "overlay: lines\n"
        "      2  include/llama-nextn.h\n"
        "      1  src/llama-nextn.cpp\n"
        "      3  total of 2"
    )


def test_stats_need_no_archive(project: Project) -> None:
    project.ok("stats", NEXTN_LLAMA_ARCHIVE=None)
    assert project.kept() == set()
