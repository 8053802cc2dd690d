"""Inflated models: more layers, the same function."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from inflate_gguf import ZERO, inflate, main
from nextn.bundled import bundled_model


def split(name: str) -> tuple[int, str]:
    """Layer and name within it; layer -1 for tensors outside."""
    block = re.fullmatch(r"blk\.(\d+)\.(.*)", name)
    return (int(block[1]), block[2]) if block else (-1, name)


def check_structure(source: Path, out: Path, trunk: int, added: int) -> None:
    old, new = gguf.GGUFReader(source), gguf.GGUFReader(out)
    before = {n: (f.types, f.contents()) for n, f in old.fields.items() if not n.startswith("GGUF.")}
    after = {n: (f.types, f.contents()) for n, f in new.fields.items() if not n.startswith("GGUF.")}
    arch = before["general.architecture"][1]
    count = f"{arch}.block_count"
    assert after[count][1] == before[count][1] + added
    assert {k: v for k, v in after.items() if k != count} == {k: v for k, v in before.items() if k != count}

    tensors = {t.name: t for t in new.tensors}
    period = before[f"{arch}.full_attention_interval"][1]
    expected = 0
    for t in old.tensors:
        layer, rest = split(t.name)
        moved = tensors[t.name if layer < trunk else f"blk.{layer + added}.{rest}"]
        assert moved.data.tobytes() == t.data.tobytes()
        assert (moved.tensor_type, moved.shape.tolist()) == (t.tensor_type, t.shape.tolist())
        expected += 1
        if trunk - period <= layer < trunk:
            for copy in range(layer + period, trunk + added, period):
                check_added(rest, t, tensors[f"blk.{copy}.{rest}"])
                expected += 1
    assert len(tensors) == expected


def check_added(name: str, old: gguf.ReaderTensor, new: gguf.ReaderTensor) -> None:
    assert (new.tensor_type, new.shape.tolist()) == (old.tensor_type, old.shape.tolist())
    a, b = (gguf.quants.dequantize(t.data, t.tensor_type) for t in (old, new))
    if name in ZERO:
        assert not b.any()
    elif a.ndim == 1:
        assert (a == b).all()
    else:
        assert b.std() == pytest.approx(a.std(), rel=0.2)
        assert not (a == b).all()


def test_the_bundled_model(tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    assert inflate(bundled_model(), out, groups=2) == (8, 16)
    check_structure(bundled_model(), out, trunk=8, added=8)


@pytest.mark.parametrize("kind", ["dense", "moe", "next"])
def test_other_shapes(kind: str, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    source, out = tiny_model(kind), tmp_path / "out.gguf"
    assert inflate(source, out, groups=1) == (4, 8)
    check_structure(source, out, trunk=4, added=4)


def test_a_model_without_a_head(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    source, out = tiny_model("dense", part="trunk"), tmp_path / "out.gguf"
    assert inflate(source, out, groups=1) == (4, 8)
    check_structure(source, out, trunk=4, added=4)


def test_the_seed_decides_the_weights(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abc"]
    for path, seed in zip(files, (0, 0, 1), strict=True):
        inflate(tiny_model("dense"), path, groups=1, seed=seed)
    first, same, other = (path.read_bytes() for path in files)
    assert first == same
    assert first != other


def test_the_command_line_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.gguf"
    main([str(bundled_model()), str(out), "--groups", "1"])
    assert capsys.readouterr().out == f"{out}: 8 -> 12 trunk layers\n"


def test_what_cannot_be_inflated(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(ValueError, match="groups is 0; it must be at least 1"):
        inflate(bundled_model(), out, groups=0)
    with pytest.raises(ValueError, match="is the model to read; write to another file"):
        inflate(bundled_model(), bundled_model())
    with pytest.raises(ValueError, match="5 trunk layers are not a multiple of the layer pattern's period, 4"):
        inflate(tiny_model("odd"), out)
    plain = tmp_path / "plain.gguf"
    writer = gguf.GGUFWriter(str(plain), "llama")
    writer.add_block_count(2)
    writer.add_tensor("output_norm.weight", np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ValueError, match=r"no llama\.full_attention_interval: not a model with a repeating pattern"):
        inflate(plain, out)
    assert not out.exists()
