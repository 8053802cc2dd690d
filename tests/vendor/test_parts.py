"""The parts that read files: the pin and patches."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from vendoring.patchfile import parse_patch
from vendoring.pin import format_pin, pin_for_version, read_pin

from .project import REPOSITORY

PIN_FILE = REPOSITORY / "vendor" / "llama.cpp" / "UPSTREAM.toml"

PATCH = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: =?UTF-8?q?d=C3=A9v?= <dev@example.org>
Date: Sat, 1 Jan 2000 00:00:00 +0000
Subject: [PATCH] [core] =?UTF-8?q?=C3=A4ndere?= a subject that is so long that it is
 folded

Why: it has
two lines. One says Test: nothing.

Drop when: upstream
 does it.
Test: tests/a.py, tests/b.py::test_b
---
 a.c | 2 +-

diff --git a/a.c b/a.c
index 1..2 100644
--- a/a.c
+++ b/a.c
@@ -1,3 +1,4 @@ int main()
 context
---- a removed line that begins with two dashes
++++ an added line
+@@ -9,9 +9,9 @@ an added line that looks like a hunk

@@ -20 +21 @@
-old
\\ No newline at end of file
+new
diff --git a/dir/new b/dir/new
new file mode 100644
index 0..1
--- /dev/null
+++ b/dir/new
@@ -0,0 +1 @@
+diff --git a/not b/not
"""


def test_a_patch_is_taken_apart() -> None:
    patch = parse_patch("x.patch", PATCH.encode())
    assert patch.subject == "[core] ändere a subject that is so long that it is folded"
    assert patch.files == ("a.c", "dir/new")
    assert patch.added == ("dir/new",)
    assert [(hunk.path, hunk.number, hunk.line, hunk.changed) for hunk in patch.hunks] == [
        ("a.c", 1, 1, 3),
        ("a.c", 2, 20, 2),
        ("dir/new", 1, 0, 1),
    ]
    assert patch.changed == 6
    assert patch.body.endswith("test_b")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Why", "it has two lines. One says Test: nothing."),
        ("Drop when", "upstream does it."),
        ("Test", "tests/a.py, tests/b.py::test_b"),
        ("Because", ""),
    ],
)
def test_labels_of_a_message(label: str, expected: str) -> None:
    assert parse_patch("x.patch", PATCH.encode()).labeled(label) == expected


def test_the_pin_survives_writing_and_reading(tmp_path: Path) -> None:
    pin = read_pin(PIN_FILE)
    (tmp_path / "pin").write_text(format_pin(pin))
    assert read_pin(tmp_path / "pin") == pin
    assert format_pin(pin) == PIN_FILE.read_text()


def test_the_pin_is_toml() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader to compare with")
    assert tomllib.loads(PIN_FILE.read_text()) == asdict(read_pin(PIN_FILE))


def test_the_pin_of_another_version_knows_nothing_yet() -> None:
    pin = pin_for_version(read_pin(PIN_FILE), "1.2.3")
    assert (pin.requirement, pin.archive) == ("llama-cpp-python==1.2.3", "llama_cpp_python-1.2.3.tar.gz")
    assert (pin.sha256, pin.tree, pin.commit) == ("", "", "")
