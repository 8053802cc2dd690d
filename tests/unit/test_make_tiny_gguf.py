"""The generator of random models: the same bytes each time, a valid file, a vocabulary that works."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import gguf
import make_tiny_gguf
import numpy as np
import pytest
from tiny_gguf import PRESETS, Shape, make, make_projector, writer
from tiny_gguf.vocab import SPECIAL_TOKENS, byte_characters, synthetic_vocab

TINY = [name for name in PRESETS if not name.startswith("shape-")]
SMALL = Shape(n_layer=1, full_attention_interval=2, n_vocab=270)


def read(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a file as floats, by name."""
    return {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}


def meta(path: Path) -> dict[str, object]:
    fields = gguf.GGUFReader(path).fields
    return {k: f.contents() for k, f in fields.items() if not k.startswith(("GGUF.", "tokenizer.ggml.tokens"))}


def test_same_arguments_same_bytes(tmp_path: Path) -> None:
    first = make(tmp_path / "a.gguf", PRESETS["tiny-moe"], seed=3, weight_type="q8_0").read_bytes()
    assert make(tmp_path / "b.gguf", PRESETS["tiny-moe"], seed=3, weight_type="q8_0").read_bytes() == first
    assert make(tmp_path / "c.gguf", PRESETS["tiny-moe"], seed=4, weight_type="q8_0").read_bytes() != first


def test_command_line_makes_the_same_file_in_another_process(tmp_path: Path) -> None:
    shape = dataclasses.replace(PRESETS["odd"], tied=False, n_vocab=300, head_tensors=("shared_head_head",))
    expected = make(tmp_path / "a.gguf", shape, seed=9, weight_type="q4_0", output_type="q8_0", part="head")
    options = "--preset odd --untied --n-vocab 300 --head-tensors shared_head_head --seed 9 --type q4_0"
    command = [make_tiny_gguf.__file__, str(tmp_path / "b.gguf"), *options.split(), "--output-type=q8_0", "--head-only"]
    run = subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True)
    assert (tmp_path / "b.gguf").read_bytes() == expected.read_bytes()
    assert run.stdout == f"{tmp_path / 'b.gguf'}: {expected.stat().st_size:,} bytes\n"


def test_numbers_never_change() -> None:
    """Figures in notes and cached files rest on these numbers; the stream may not depend on the NumPy version."""
    values = writer.uniform(0, "blk.0.attn_q.weight", (2, 3), 0.5, 1.0)
    expected = [[1.109535, 0.9904195, 1.1446592], [0.20043033, 0.48242772, 1.3885459]]
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    many = writer.uniform(1, "x", (100_000,), 0.5, 1.0)
    assert many.std() == pytest.approx(0.5, rel=0.01)
    assert many.mean() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q4_0"])
def test_a_quantized_file_is_the_f32_file_quantized(tmp_path: Path, kind: str) -> None:
    exact = read(make(tmp_path / "f32.gguf", PRESETS["odd-moe"]))
    path = make(tmp_path / "q.gguf", PRESETS["odd-moe"], weight_type=kind)
    for t in gguf.GGUFReader(path).tensors:
        expected = exact[t.name]
        if t.tensor_type != gguf.GGMLQuantizationType.F32:
            expected = gguf.quants.dequantize(gguf.quants.quantize(expected, t.tensor_type), t.tensor_type)
        np.testing.assert_array_equal(gguf.quants.dequantize(t.data, t.tensor_type), expected, err_msg=t.name)


def test_types_by_role(tmp_path: Path) -> None:
    shape = dataclasses.replace(SMALL, tied=False, n_ff=48)
    path = make(tmp_path / "m.gguf", shape, weight_type="q4_0", output_type="q8_0", embd_type="bf16")
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors}
    assert types["output.weight"] == "Q8_0"
    assert types["token_embd.weight"] == "BF16"
    assert types["blk.0.attn_qkv.weight"] == "Q4_0"
    assert types["blk.0.ffn_down.weight"] == "F16"  # 48 columns are not whole blocks of 32
    assert types["blk.0.ssm_alpha.weight"] == types["blk.0.attn_norm.weight"] == "F32"


@pytest.mark.parametrize("preset", TINY)
def test_head_only_files_fit_the_full_file(tmp_path: Path, preset: str) -> None:
    shape = dataclasses.replace(PRESETS[preset], tied=False)
    full = read(make(tmp_path / "full.gguf", shape, seed=5))
    trunk = read(make(tmp_path / "trunk.gguf", shape, seed=5, part="trunk"))
    head = read(make(tmp_path / "head.gguf", shape, seed=5, part="head"))
    legacy = read(make(tmp_path / "legacy.gguf", shape, seed=5, part="legacy-head"))
    shared = {"token_embd.weight", "output.weight", "output_norm.weight"}
    assert trunk.keys() | head.keys() == full.keys()
    assert trunk.keys() & head.keys() == shared
    assert head.keys() == legacy.keys()
    assert all(name.startswith(f"blk.{shape.n_layer}.") for name in head.keys() - shared)
    for part in (trunk, head, legacy):
        for name, values in part.items():
            np.testing.assert_array_equal(values, full[name], err_msg=name)


def test_metadata_of_the_parts(tmp_path: Path) -> None:
    parts = {part: meta(make(tmp_path / f"{part}.gguf", PRESETS["tiny-moe"], part=part)) for part in writer.PARTS}
    assert parts["full"] == parts["head"]
    assert parts["full"]["qwen35moe.block_count"] == 5
    assert parts["full"]["qwen35moe.nextn_predict_layers"] == 1
    assert parts["trunk"]["qwen35moe.block_count"] == 4
    assert "qwen35moe.nextn_predict_layers" not in parts["trunk"]
    assert parts["legacy-head"]["general.architecture"] == "qwen35moe_mtp"
    renamed = {k.replace("qwen35moe_mtp.", "qwen35moe."): v for k, v in parts["legacy-head"].items()}
    assert {**renamed, "general.architecture": "qwen35moe"} == parts["full"]


def test_published_sizes() -> None:
    """Embedding, attention and feed-forward of the shapes named after published models."""
    small, large = PRESETS["shape-0.8b"], PRESETS["shape-35b-a3b-8l"]
    assert (small.n_embd, small.n_layer, small.n_vocab, small.tied) == (1024, 24, 248320, True)
    assert (large.n_embd, large.n_expert, large.n_expert_used, large.n_vocab) == (2048, 256, 8, 248320)
    assert small.rope_sections == large.rope_sections == [11, 11, 10, 0]
    for shape in PRESETS.values():
        assert sum(shape.rope_sections) == shape.n_rot // 2


def test_large_matrices_have_distinct_rows_and_weak_control_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "VOCAB_ELEMENTS", 64 * 3000)
    n_vocab = 4000  # the last 1000 rows repeat the first ones, rotated
    shape = dataclasses.replace(SMALL, n_vocab=n_vocab, tied=False)
    path = make(tmp_path / "m.gguf", shape, weight_type="q8_0", embd_type="f16")
    for name in ("output.weight", "token_embd.weight"):
        rows = read(path)[name]
        assert rows.shape == (n_vocab, 64)
        assert len(np.unique(rows, axis=0)) == n_vocab
        np.testing.assert_array_equal(rows[3010], np.roll(rows[10], 32))
    output = read(path)["output.weight"]
    control = output[-len(SPECIAL_TOKENS) :]
    assert control.std() == pytest.approx(0.2 * output[:-100].std(), rel=0.1)


def test_agreement_mixes_the_embedding_into_the_head(tmp_path: Path) -> None:
    shape = dataclasses.replace(SMALL, tied=False, agreement=0.9)
    weights = read(make(tmp_path / "m.gguf", shape))
    mix = weights["blk.1.nextn.eh_proj.weight"]
    plain = read(make(tmp_path / "p.gguf", dataclasses.replace(shape, agreement=0.0)))["blk.1.nextn.eh_proj.weight"]
    np.testing.assert_allclose(mix, 0.1 * plain + 0.5 * np.eye(64, 128), atol=1e-6)


@pytest.mark.parametrize("size", [263, 264, 512, 20_000, 248_320])
def test_vocabulary(size: int) -> None:
    vocab = synthetic_vocab(size)
    assert len(vocab.tokens) == len(vocab.types) == len(set(vocab.tokens)) == size
    assert vocab.tokens[:256] == byte_characters()
    assert vocab.tokens[-len(SPECIAL_TOKENS) :] == list(SPECIAL_TOKENS)
    rank = {token: i for i, token in enumerate(vocab.tokens)}
    assert len(vocab.merges) == size - 256 - len(SPECIAL_TOKENS)
    for i, merge in enumerate(vocab.merges, 256):
        left, right = merge.split(" ")
        assert rank[left + right] == i, "each merge makes the next token"
        assert max(rank[left], rank[right]) < i, "from earlier ones"


def test_common_letters_have_low_ids() -> None:
    tokens = synthetic_vocab(2000).tokens
    assert tokens.index("Ġt") < tokens.index("th") < tokens.index("Ġth")
    assert tokens.index("th") < tokens.index("qz")


def test_vocabulary_size_out_of_range() -> None:
    with pytest.raises(ValueError, match="size must be at least 263, got 262"):
        synthetic_vocab(262)
    with pytest.raises(ValueError, match=r"size must be at most 4\d\d\d\d\d, got 1000000"):
        synthetic_vocab(1_000_000)


def test_file_appears_complete_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"before")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(writer, "_pack", fail)
    with pytest.raises(OSError, match="disk full"):
        make(path, SMALL)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "llama"}, "arch must be one of"),
        ({"n_head": 3}, "n_head must be a multiple of n_head_kv"),
        ({"value_heads": 3}, "value_heads must be a multiple of key_heads"),
        ({"n_rot": 7}, "n_rot must be even"),
        ({"n_rot": 64}, "n_rot must be even, at least 6 and at most head_dim"),
        ({"arch": "qwen35moe"}, "qwen35moe needs 1 <= n_expert_used"),
        ({"n_expert": 4}, "qwen35 is dense: n_expert must be 0, got 4"),
        ({"n_vocab": 200}, "n_vocab must be at least 263, got 200"),
        ({"head_tensors": ("lm_head",)}, "head_tensors must be among"),
        ({"agreement": 0.5}, "agreement needs an untied model"),
        ({"agreement": 1.0, "tied": False}, "agreement must be at least 0 and below 1, got 1.0"),
    ],
)
def test_wrong_sizes(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PRESETS["tiny-dense"], **change)


def test_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("weight_type", "q3_0"), ("output_type", "q3"), ("embd_type", ""), ("part", "tail")):
        with pytest.raises(ValueError, match=f"{name} must be one of .*, got '{value}'"):
            make(tmp_path / "m.gguf", SMALL, **{name: value})
    with pytest.raises(SystemExit, match="2"):
        make_tiny_gguf.main([str(tmp_path / "m.gguf"), "--n-vocab", "12"])
    assert "n_vocab must be at least 263, got 12" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_projector_depends_on_seed_and_width_alone(tmp_path: Path) -> None:
    first = make_projector(tmp_path / "a.gguf", 48, seed=3)
    assert make_projector(tmp_path / "b.gguf", 48, seed=3).read_bytes() == first.read_bytes()
    assert make_projector(tmp_path / "c.gguf", 48, seed=4).read_bytes() != first.read_bytes()
    assert read(first)["mm.2.weight"].shape[0] == 48
    assert meta(first)["clip.vision.projection_dim"] == 48
