"""Check a tree that the user brings (NEXTN_LLAMA_SOURCE) before anything is built from it."""

from __future__ import annotations

from pathlib import Path

from vendoring.layout import STAMP_HEADER, Fork, stamp_header, write_if_changed
from vendoring.run import Git, VendorError

OWN_HEADER = "include/llama-nextn.h"


def check_source(fork: Fork, tree: Path) -> Path:
    """Make sure that a tree is a working copy of the pinned llama.cpp with our files, and stamp it.

    The stamp of such a tree names what is committed in it, because it may be ahead of the project's own folder.

    Returns:
        The absolute path of the tree.

    Raises:
        VendorError: says what the tree lacks.
    """
    pin = fork.pin()
    tree = tree.absolute()
    advice = f"make one with `scripts/vendor.py prepare --dest DIR`, or unset NEXTN_LLAMA_SOURCE to build {pin.requirement}"
    if not tree.is_dir():
        raise VendorError(f"NEXTN_LLAMA_SOURCE={tree} is not a directory; {advice}")
    git = Git(tree)
    top = git.try_run("rev-parse", "--show-toplevel")
    if top.returncode != 0 or Path(top.stdout.decode().rstrip("\n")).resolve() != tree.resolve():
        raise VendorError(f"NEXTN_LLAMA_SOURCE={tree} is not the top of a git working copy; {advice}")
    roots = git.try_run("log", "--max-parents=0", "--format=%T", "HEAD").stdout.decode().split()
    if roots != [pin.tree]:
        found = ", ".join(roots) or "no commit"
        raise VendorError(
            f"NEXTN_LLAMA_SOURCE={tree} is not the pinned llama.cpp {pin.commit}: its first commit should hold tree "
            f"{pin.tree}, found {found}; {advice}"
        )
    if not (tree / OWN_HEADER).is_file():
        raise VendorError(f"NEXTN_LLAMA_SOURCE={tree} has no {OWN_HEADER}: it is llama.cpp without nextn's files; {advice}")
    write_if_changed(tree / STAMP_HEADER, stamp_header(source_stamp(git)))
    return tree


def source_stamp(git: Git) -> str:
    """The committed tree's id, and whether files differ from it."""
    status = git.run("status", "--porcelain", "-z", "--", ":/", f":(exclude){STAMP_HEADER}")
    return f"source-{git.text('rev-parse', '--short=20', 'HEAD^{tree}')}{'-modified' * bool(status)}"
