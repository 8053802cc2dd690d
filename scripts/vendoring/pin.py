"""UPSTREAM.toml: which archive the fork is built from."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from vendoring.run import VendorError

# The file is a flat list of strings, so one regular expression reads it and Python 3.10 needs no TOML package.
LINE = re.compile(r'(?P<key>[a-z0-9_]+)\s*=\s*"(?P<value>[^"\\]*)"\s*(#.*)?')

HEADER = "# The one place that says which llama.cpp this is. `scripts/vendor.py bump VERSION` rewrites it.\n"


@dataclass(frozen=True, kw_only=True)
class Pin:
    """The archive, the folder in it that is llama.cpp, and what that folder must be.

    Attributes:
        package: name of the source distribution that carries llama.cpp.
        version: its version.
        archive: file name of the source distribution.
        sha256: hash of that file.
        subdirectory: folder inside it that is llama.cpp.
        commit: the llama.cpp commit the folder was taken from (for people; nothing depends on it).
        tree: git tree id of the folder; empty while a bump works it out.
    """

    package: str
    version: str
    archive: str
    sha256: str
    subdirectory: str
    commit: str
    tree: str

    @property
    def requirement(self) -> str:
        """The pin as pip spells it."""
        return f"{self.package}=={self.version}"


def read_pin(path: Path) -> Pin:
    """Read UPSTREAM.toml; VendorError names what is missing or unknown."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise VendorError(f"{path} is missing: it names the llama.cpp to build from") from error
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise VendorError(f'{path}, line {number}: expected key = "value", found {line.strip()!r}')
        if match["key"] in found:
            raise VendorError(f"{path}, line {number}: {match['key']} is given twice")
        found[match["key"]] = match["value"]
    names = [field.name for field in fields(Pin)]
    missing = [name for name in names if not found.get(name)]
    unknown = [key for key in found if key not in names]
    if missing or unknown:
        parts = [f"missing {', '.join(missing)}"] * bool(missing) + [f"unknown {', '.join(unknown)}"] * bool(unknown)
        raise VendorError(f"{path}: {'; '.join(parts)}")
    return Pin(**found)


def format_pin(pin: Pin) -> str:
    """The text of UPSTREAM.toml for a pin."""
    return HEADER + "".join(f'{key} = "{value}"\n' for key, value in asdict(pin).items())


def pin_for_version(pin: Pin, version: str) -> Pin:
    """The same package at another version, with everything a download must find out left empty."""
    archive = f"{pin.package.replace('-', '_')}-{version}.tar.gz"
    return replace(pin, version=version, archive=archive, sha256="", commit="", tree="")
