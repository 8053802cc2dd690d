"""Write the commits of a working copy back as patches and overlay files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from vendoring.build import PatchError, build_chain, commit_overlay, scratch_repository, upstream_paths
from vendoring.layout import EXECUTABLE, PLAIN, Fork, OverlayFile, State, write_if_changed
from vendoring.pin import Pin
from vendoring.run import Git, VendorError
from vendoring.workcopy import fingerprint, git_path, object_folders, read_base, root_problem, write_base

FORMAT_OPTIONS = (
    "--zero-commit",  # commit ids change with every `git am`
    "--no-signature",  # holds git's version
    "--no-numbered",  # a patch must not change when another is added behind it
    "--full-index",  # short ids get longer as a repository grows
    "--no-renames",
    "--unified=3",
    "--diff-algorithm=myers",
)


def render(git: Git, pin: Pin, pristine: str, head: str) -> State:
    """Split a chain of commits into overlay files (new ones) and patches (changes of upstream's files).

    A file that the pristine tree does not have is ours, whichever commit brings it; the overlay holds it as it is at
    the end of the chain. What is left of each commit becomes one patch; a commit of which nothing is left, none.

    Args:
        git: a scratch repository that sees the objects.
        pin: what the chain begins with.
        pristine: the first commit.
        head: the last commit.
    """
    upstream = upstream_paths(git, pristine)
    own = own_entries(git, head, upstream)
    overlay = tuple(
        OverlayFile(path, git.run("cat-file", "blob", blob), mode == EXECUTABLE) for mode, blob, path in own
    )
    base = tip = commit_overlay(git, pristine, overlay)
    for commit in git.text("rev-list", "--reverse", f"{pristine}..{head}").split():
        tree = tree_with_overlay(git, commit, upstream, own)
        if tree != git.text("rev-parse", f"{tip}^{{tree}}"):
            tip = recommit(git, commit, tree, tip)
    return State(pin, overlay, tuple(format_patches(git, base, tip)))


def own_entries(git: Git, commit: str, upstream: set[str]) -> list[tuple[str, str, str]]:
    """Mode, blob and path of the files of a commit that the pristine tree does not have, sorted by path."""
    entries = []
    for entry in git.lines("ls-tree", "-r", "-z", commit):
        mode, _, rest = entry.split(" ", 2)
        blob, _, path = rest.partition("\t")
        if path in upstream:
            continue
        if mode not in (PLAIN, EXECUTABLE):
            raise VendorError(f"{path} is no plain file; the overlay holds plain files only")
        entries.append((mode, blob, path))
    return sorted(entries, key=lambda entry: entry[2])


def tree_with_overlay(git: Git, commit: str, upstream: set[str], own: list[tuple[str, str, str]]) -> str:
    """The tree of a commit with its own files replaced by the final overlay."""
    git.run("read-tree", commit)
    removed = [f"0 {'0' * 40}\t{path}\0" for path in git.lines("ls-files", "-z") if path not in upstream]
    added = [f"{mode} {blob}\t{path}\0" for mode, blob, path in own]
    git.run("update-index", "-z", "--index-info", stdin="".join(removed + added).encode("utf-8", "surrogateescape"))
    return git.text("write-tree")


def recommit(git: Git, commit: str, tree: str, parent: str) -> str:
    """Make a commit with the author and the message of another."""
    name, address, date = git.text("log", "-1", "--format=%an%x00%ae%x00%ad", "--date=raw", commit).split("\0")
    message = git.run("stripspace", stdin=git.run("log", "-1", "--format=%B", commit))
    subject = message.decode("utf-8", "replace").partition("\n")[0]
    if subject.startswith(("fixup!", "squash!", "amend!")):
        raise VendorError(
            f'the commit "{subject}" changes upstream files; melt it into its patch first '
            "(git rebase --interactive --autosquash pristine)"
        )
    author = {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": address, "GIT_AUTHOR_DATE": date}
    return git.text("commit-tree", tree, "-p", parent, "-F", "-", stdin=message, env=author)


def format_patches(git: Git, base: str, tip: str) -> list[tuple[str, bytes]]:
    """Names and contents of the patches between two commits."""
    with tempfile.TemporaryDirectory(prefix="patches-") as folder:
        names = git.text("format-patch", *FORMAT_OPTIONS, "--output-directory", folder, f"{base}..{tip}")
        paths = [Path(line) for line in names.splitlines()]
        return [(path.name, path.read_bytes()) for path in paths]


def export(fork: Fork, tree: Path, *, pin: Pin | None = None, force: bool = False) -> list[str]:
    """Write the commits of a working copy to vendor/llama.cpp.

    Args:
        fork: the project's folder.
        tree: the working copy.
        pin: what the working copy's first commit must be; the project's pin by default.
        force: overwrite what was changed in vendor/llama.cpp since the copy was made.

    Returns:
        One line per file that was written or removed.

    Raises:
        VendorError: the copy is not fit for it (uncommitted changes, merges, another pin), or a file would be lost.
    """
    pin = pin or fork.pin()
    tree = tree.absolute()
    git = Git(tree)
    refuse_unfit(git, pin)
    with scratch_repository(object_folders(git)) as scratch:
        head = git.text("rev-parse", "HEAD")
        pristine = git.text("rev-list", "--max-parents=0", "HEAD")
        rendered = render(scratch, pin, pristine, head)
        prove_round_trip(scratch, pristine, rendered)
    current = fork.files()
    if not force:
        refuse_to_overwrite(current, rendered.files(), read_base(git), tree)
    changes = write_rendered(fork, current, rendered)
    write_base(git, rendered.files())
    return changes


def refuse_unfit(git: Git, pin: Pin) -> None:
    """Stop unless the working copy is clean, in no operation, linear, and on the pinned tree."""
    if problem := root_problem(git, pin):
        raise VendorError(f"{git.directory} {problem}")
    for operation in ("rebase-apply", "rebase-merge"):
        if git_path(git, operation).exists():
            raise VendorError(f"{git.directory} is in the middle of a git am or rebase; finish it first")
    if changed := git.lines("status", "--porcelain", "-z", "--no-renames"):
        names = ", ".join(line[3:] for line in changed[:3])
        raise VendorError(f"{git.directory} has changes that are not committed: {names}; commit or remove them first")
    if merges := git.text("rev-list", "--min-parents=2", "HEAD"):
        raise VendorError(f"{git.directory} has merge commits ({merges.split()[0][:12]}); rebase them away first")


def prove_round_trip(git: Git, pristine: str, rendered: State) -> None:
    """Apply what was rendered and render it again: a message that looks like part of a diff does not survive that."""
    try:
        again = render(git, rendered.pin, pristine, build_chain(git, pristine, rendered))
    except PatchError as error:
        raise unsound(rendered.patches[error.index][0]) from error
    for (name, content), (_, other) in zip(rendered.patches, again.patches, strict=False):
        if content != other:
            raise unsound(name)
    if again != rendered:
        raise unsound("the series")


def unsound(name: str) -> VendorError:
    """Applying a patch does not give the commit it was made from."""
    return VendorError(
        f"{name} does not survive git am; does its message hold a line that looks like part of a diff or a mail?"
    )


def refuse_to_overwrite(
    current: Mapping[str, bytes], new: Mapping[str, bytes], base: Mapping[str, str], tree: Path
) -> None:
    """Stop when vendor/llama.cpp holds changes that the working copy has never seen."""
    have, want = fingerprint(current), fingerprint(new)
    lost = [path for path, digest in have.items() if digest not in (want.get(path), base.get(path))]
    lost += [path for path in base if path not in have and path in want]
    if lost:
        names = ", ".join(sorted(lost)[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        raise VendorError(
            f"vendor/llama.cpp has changed since {tree} was made from it ({names}); "
            "bring those changes into it, or overwrite them with --force"
        )


def write_rendered(fork: Fork, current: Mapping[str, bytes], rendered: State) -> list[str]:
    """Make the folder hold exactly this, touching only what differs."""
    files = rendered.files()
    changes = []
    for path in sorted(set(current) - set(files)):
        (fork.folder / path).unlink()
        changes.append(f"removed {path}")
    for path, content in sorted(files.items()):
        if write_if_changed(fork.folder / path, content):
            changes.append(f"{'changed' if path in current else 'added'} {path}")
    for file in rendered.overlay:
        target = fork.overlay / file.path
        mode = target.stat().st_mode
        target.chmod(mode | 0o111 if file.executable else mode & ~0o111)
    for folder in sorted((path for path in fork.folder.rglob("*") if path.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    return changes
