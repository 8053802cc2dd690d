"""Check a tree that the user brings (NEXTN_LLAMA_SOURCE) before anything is built from it."""

from __future__ import annotations

from pathlib import Path

from vendoring.layout import STAMP_HEADER, Fork, stamp_header, write_if_changed
from vendoring.run import Git, VendorError
from vendoring.workcopy import root_problem

OWN_HEADER = "include/llama-nextn.h"


def check_source(fork: Fork, tree: Path) -> Path:
    """Make sure that a tree is a working copy of the pinned llama.cpp with our files, and stamp it.

    The stamp of such a tree names what is committed in it, because it may be ahead of the project's own folder.

    Returns:
        The absolute path of the tree.

    Raises:
        VendorError: says what the tree lacks.
    """
    tree = tree.absolute()
    git = Git(tree)
    problem = root_problem(git, fork.pin())
    if not problem and not (tree / OWN_HEADER).is_file():
        problem = f"has no {OWN_HEADER}: it is llama.cpp without nextn's files"
    if problem:
        raise VendorError(
            f"NEXTN_LLAMA_SOURCE={tree} {problem}; make a working copy with `scripts/vendor.py prepare --dest DIR`, "
            "or unset NEXTN_LLAMA_SOURCE to build the pinned tree"
        )
    write_if_changed(tree / STAMP_HEADER, stamp_header(source_stamp(git)))
    return tree


def source_stamp(git: Git) -> str:
    """The committed tree's id, and whether files differ from it."""
    status = git.run("status", "--porcelain", "-z", "--", ":/", f":(exclude){STAMP_HEADER}")
    return f"source-{git.text('rev-parse', '--short=20', 'HEAD^{tree}')}{'-modified' * bool(status)}"
