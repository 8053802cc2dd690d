"""What is inside the wheel, read from its files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSection, DynamicTag
from elftools.elf.elffile import ELFFile

from .conftest import ROOT

# What every Linux of the wheel's platform tag has (PEP 600).
SYSTEM_LIBRARIES = {
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
}


def elf_files(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def dynamic(path: Path) -> list[DynamicTag]:
    with path.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".dynamic")
        assert isinstance(section, DynamicSection), path
        return list(section.iter_tags())  # read while the file is open


@pytest.fixture(scope="module")
def binaries(unpacked: Path) -> list[Path]:
    found = list(elf_files(unpacked))
    assert len(found) > 5
    return found


def test_tag_names_a_platform_and_not_just_linux(wheel: Path) -> None:
    assert re.search(r"-cp3\d+-cp3\d+-manylinux_2_\d+_", wheel.name), wheel.name


def test_holds_every_part(unpacked: Path) -> None:
    package = unpacked / "nextn"
    assert list(package.glob("_core.*.so"))
    for name in (
        "py.typed",
        "_core.pyi",
        "bin/llama-server",
        "bin/llama-cli",
        "bin/ggml-rpc-server",
        "lib/libllama.so",
        "models/nextn-demo-q8_0.gguf",
    ):
        assert (package / name).is_file(), name
    assert (package / "bin" / "llama-server").stat().st_size > 10_000


def test_holds_nothing_else(unpacked: Path) -> None:
    assert {path.name.partition("-")[0] for path in unpacked.iterdir()} == {"nextn", "nextn.libs"}
    suffixes = {path.suffix for path in unpacked.rglob("*") if path.is_file() and path.parent.name != "licenses"}
    known = {".0", ".typed", ".gguf", ".jinja", ".json", ".jsonl", ".md", ".py", ".pyi", ".so", ".txt"}
    assert suffixes - known == {""}
    assert not list(unpacked.rglob("__pycache__"))


def test_has_a_baseline_and_faster_cpu_kernels(unpacked: Path) -> None:
    variants = {path.stem.removeprefix("libggml-cpu-") for path in unpacked.rglob("libggml-cpu-*.so")}
    assert "x64" in variants
    assert {"haswell", "skylakex", "icelake", "zen4"} <= variants
    # AMX kernels depend on how many rows are computed together: NEXTN_AMX in cmake/cpu_variants.cmake
    assert "sapphirerapids" not in variants


def test_licenses_go_with_the_code(unpacked: Path) -> None:
    (own,) = unpacked.glob("nextn-*.dist-info/licenses/LICENSE")
    assert own.read_text() == (ROOT / "LICENSE").read_text()
    upstream = (unpacked / "nextn" / "licenses" / "LICENSE-llama.cpp").read_text()
    assert "MIT License" in upstream
    assert "ggml" in upstream
    assert (unpacked / "nextn" / "licenses" / "LICENSE-cpp-httplib").is_file()


def test_metadata_is_the_projects(unpacked: Path) -> None:
    (metadata,) = unpacked.glob("nextn-*.dist-info/METADATA")
    text = metadata.read_text()
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version
    assert f"\nVersion: {version[1]}\n" in text
    assert "\nLicense-Expression: Apache-2.0\n" in text
    required = [line for line in text.splitlines() if line.startswith("Requires-Dist: ") and "extra ==" not in line]
    assert [re.split(r"[ <>=]", line.partition(": ")[2])[0] for line in required] == ["numpy"]


def test_runtime_paths_are_relative(binaries: list[Path]) -> None:
    for path in binaries:
        tags = dynamic(path)
        for entry in (getattr(tag, "rpath", None) or getattr(tag, "runpath", None) for tag in tags):
            for part in (entry or "").split(":"):
                assert part == "" or part.startswith("$ORIGIN"), f"{path}: {entry}"


def test_every_needed_library_is_inside_or_the_systems(unpacked: Path, binaries: list[Path]) -> None:
    inside = {path.name for path in binaries}
    for path in binaries:
        for tag in dynamic(path):
            needed = getattr(tag, "needed", None)
            if needed is None or needed in SYSTEM_LIBRARIES:
                continue
            assert needed in inside, f"{path} needs {needed}"


def test_no_path_of_the_building_machine(binaries: list[Path]) -> None:
    for path in binaries:
        content = path.read_bytes()
        for machine_path in (ROOT, Path.home() / ".cache"):
            assert str(machine_path).encode() + b"/" not in content, f"{path} names {machine_path}"
