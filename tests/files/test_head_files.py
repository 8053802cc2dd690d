"""Draft heads as files: taken out, put back, byte for byte; and what a head file drafts."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import nextn
import numpy as np
import pytest
from nextn.gguf import extract_head, graft_head, inspect, read_array, read_header, verify
from nextn.gguf.writer import copied_metadata, copied_tensors, write_gguf

from .conftest import SMALL
from .sketch import Sketch, array

gguf = pytest.importorskip("gguf")
KINDS = ("dense", "moe", "next")


def tensor_bytes(path):
    """Every tensor's type, shape and bytes, read by the gguf package."""
    reader = gguf.GGUFReader(path)
    return {t.name: (t.tensor_type.name, t.shape.tolist(), t.data.tobytes()) for t in reader.tensors}


def values(path):
    """Every metadata value, read by the gguf package."""
    fields = gguf.GGUFReader(path).fields.values()
    return {field.name: field.contents() for field in fields if not field.name.startswith("GGUF.")}


def without_head(path, out):
    """The model without its NextN block and without the keys that declare it, as a converter leaves it."""
    header = read_header(path)
    architecture = header.metadata["general.architecture"]
    n_layer = header.metadata[f"{architecture}.block_count"] - 1
    metadata = copied_metadata(header, header.metadata)
    del metadata[f"{architecture}.nextn_predict_layers"]
    metadata[f"{architecture}.block_count"] = b"\x04\0\0\0" + n_layer.to_bytes(4, "little")
    write_gguf(out, metadata, copied_tensors(header, lambda name: not name.startswith(f"blk.{n_layer}.")))
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(kind, small, tmp_path):
    """Take the head out, lose it, put it back: the same tensors, byte for byte, and the same metadata."""
    model = small(kind, type="q8_0", tied=False)
    bare = without_head(model, tmp_path / "bare.gguf")
    assert verify(bare).head == "none"
    extract_head(model, tmp_path / "head.gguf")
    graft_head(bare, tmp_path / "head.gguf", tmp_path / "whole.gguf")
    assert tensor_bytes(tmp_path / "whole.gguf") == tensor_bytes(model)
    assert values(tmp_path / "whole.gguf") == values(model)
    assert verify(tmp_path / "whole.gguf", load=True).findings == verify(model, load=True).findings


@pytest.mark.parametrize("kind", KINDS)
def test_extracted_file_equals_one_that_was_made_alone(kind, small, tmp_path):
    """tiny_gguf writes head-only files by itself: the same tensors and metadata."""
    extract_head(small(kind), tmp_path / "head.gguf")
    assert tensor_bytes(tmp_path / "head.gguf") == tensor_bytes(small(kind, part="head"))
    assert values(tmp_path / "head.gguf") == values(small(kind, part="head"))
    assert inspect(tmp_path / "head.gguf").kind == "draft head"
    assert verify(tmp_path / "head.gguf").exit_code == 0


@pytest.mark.parametrize("part", ["head", "full", "legacy-head"])
@pytest.mark.parametrize("kind", ["dense", "moe"])
def test_graft_from_every_form_of_head_file(kind, part, small, tmp_path):
    graft_head(small(kind, part="trunk"), small(kind, part=part), tmp_path / "whole.gguf")
    assert tensor_bytes(tmp_path / "whole.gguf") == tensor_bytes(small(kind))
    assert values(tmp_path / "whole.gguf") == values(small(kind))


def test_graft_into_a_file_that_declares_what_it_lost(sketch, small, write, tmp_path):
    s = sketch()
    s.remove(*[t.name for t in s.tensors if t.name.startswith("blk.2.")])
    broken = write(s.build())
    assert verify(broken).head == "missing"
    graft_head(broken, small(part="head"), tmp_path / "whole.gguf")
    assert tensor_bytes(tmp_path / "whole.gguf") == tensor_bytes(small())


def test_extracted_head_drafts_the_same(demo_path, tmp_path):
    """The demo model with its own head, and without one beside the extracted file: the same drafts and tokens."""
    extract_head(demo_path, tmp_path / "head.gguf")
    bare = without_head(demo_path, tmp_path / "bare.gguf")
    runs = []
    for model, head in ((demo_path, None), (bare, tmp_path / "head.gguf")):
        draft = nextn.DraftParams(n_max=4, adaptive=False, vocab="full")
        with nextn.Speculator(model, draft_model=head, draft=draft, n_ctx=512, n_threads=1) as speculator:
            result = speculator.chat([{"role": "user", "content": "How do I sort a list in Python?"}], max_tokens=80)
        runs.append((result.tokens, result.stats.draft_n, result.stats.accepted_per_position))
    assert runs[0] == runs[1]
    assert runs[0][1] > 30


def test_of_a_model_in_parts(small, tmp_path):
    paths = [tmp_path / f"m-{i + 1:05d}-of-00002.gguf" for i in range(2)]
    for i, path in enumerate(paths):
        s = Sketch(small())
        s.tensors = s.tensors[i::2]
        for key, value in (("split.no", i), ("split.count", 2)):
            s.metadata[key] = b"\x02\0\0\0" + value.to_bytes(2, "little")
        path.write_bytes(s.build())
    extract_head(paths[0], tmp_path / "head.gguf")
    assert tensor_bytes(tmp_path / "head.gguf") == tensor_bytes(small(part="head"))
    assert values(tmp_path / "head.gguf") == values(small(part="head"))
    with pytest.raises(ValueError, match="one of those to read"):
        extract_head(paths[0], paths[1])


def refusal(path, head, out, error=nextn.ModelFileError):
    with pytest.raises(error) as info:
        graft_head(path, head, out)
    assert not out.exists()
    return str(info.value)


def test_refusals(small, tiny_model, sketch, write, tmp_path):
    out, trunk = tmp_path / "out.gguf", small(part="trunk")
    assert "has tensors of a draft head already" in refusal(small(), small(part="head"), out)
    assert "is a head of qwen35moe" in refusal(trunk, small("moe", part="head"), out)
    assert "holds only a draft head itself" in refusal(small(part="head"), small(), out)
    assert "the file has no draft head" in refusal(trunk, trunk, out, nextn.NoNextnLayerError)

    def head(change):
        s = sketch(part="head")
        change(s)
        return write(s.build(), "other.gguf")

    text = refusal(trunk, head(lambda s: s.key("attention.head_count", 4)), out)
    assert "is damaged" in text or "shape" in text or "attention.head_count is 4, not 2" in text
    assert "rope.freq_base is 1.0, not 10000.0" in refusal(
        trunk, head(lambda s: s.metadata.update({"qwen35.rope.freq_base": b"\x06\0\0\0\0\0\x80\x3f"})), out
    )
    sections = array(nextn.gguf.ValueType.INT32, [4, 0, 0, 0])
    assert "other rope.dimension_sections" in refusal(
        trunk, head(lambda s: s.key("rope.dimension_sections", sections)), out
    )
    tokens = array(nextn.gguf.ValueType.STRING, [f"x{i}" for i in range(270)])
    assert "vocabularies differ" in refusal(trunk, head(lambda s: s.key("tokenizer.ggml.tokens", tokens)), out)
    deeper = tiny_model("dense", part="head", **{**SMALL, "n_layer": 4})
    assert "of a model of 4 layers" in refusal(trunk, deeper, out)
    with pytest.raises(nextn.NoNextnLayerError, match="no draft head"):
        extract_head(trunk, out)
    with pytest.raises(ValueError, match="one of those to read"):
        extract_head(small(), small())
    os.link(small(), tmp_path / "link.gguf")
    with pytest.raises(ValueError, match="one of those to read"):
        extract_head(small(), tmp_path / "link.gguf")


def test_written_files_are_whole_or_not_there(small, tmp_path):
    out = tmp_path / "head.gguf"
    out.write_bytes(b"before")

    class StopError(Exception):
        pass

    def stop(share):
        raise StopError

    with pytest.raises(StopError):
        extract_head(small(), out, progress=stop)
    assert out.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["head.gguf"]
    with pytest.raises(FileNotFoundError, match="is no directory"):
        extract_head(small(), tmp_path / "none" / "head.gguf")
    with pytest.raises(IsADirectoryError):
        extract_head(small(), tmp_path)
    shares = []
    extract_head(small(), out, progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    again = tmp_path / "again.gguf"
    extract_head(small(), again)
    assert again.read_bytes() == out.read_bytes()


def test_writing_one_file_from_several_threads(small, tmp_path):
    """Each of them writes a file of its own; the last one to end gives the name its content."""
    model, out = small(), tmp_path / f"{'ä' * 120}.gguf"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: extract_head(model, out), range(32)))
    assert tensor_bytes(out) == tensor_bytes(small(part="head"))
    assert list(tmp_path.iterdir()) == [out]


def test_unusual_metadata_is_kept(sketch, write, tmp_path):
    """Every kind of value, and texts that are no UTF-8, go through as they are."""
    s = sketch()
    odd = b"\x08\0\0\0" + (5).to_bytes(8, "little") + b"a\xff\xfe\x00b"
    s.metadata |= {"extra.text": odd, "extra.f64": b"\x0c\0\0\0" + np.float64(1 / 3).tobytes()}
    extract_head(write(s.build()), tmp_path / "head.gguf")
    header = read_header(tmp_path / "head.gguf")
    assert copied_metadata(header, ["extra.text"])["extra.text"] == odd
    assert header.metadata["extra.f64"] == 1 / 3
    assert len(read_array(header, "tokenizer.ggml.tokens")) == 270


def command(*args, code=0):
    done = subprocess.run([sys.executable, "-m", "nextn", *map(str, args)], capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def test_commands(demo_path, small, tmp_path):
    assert "good" in command("verify")
    assert "no-tensors" not in command("verify", "--load", demo_path)
    assert "head-none" in command("verify", small(part="trunk"), code=1)
    (tmp_path / "cut.gguf").write_bytes(demo_path.read_bytes()[:100_000])
    assert '"exit_code": 2' in command("verify", "--json", tmp_path / "cut.gguf", code=2)
    assert "head.gguf: " in command("extract-head", demo_path, tmp_path / "head.gguf")
    bare = without_head(demo_path, tmp_path / "bare.gguf")
    assert '"size": 7910' in command("graft-head", "--json", bare, tmp_path / "head.gguf", tmp_path / "whole.gguf")
    assert tensor_bytes(tmp_path / "whole.gguf") == tensor_bytes(demo_path)
    assert "one of those to read" in command("extract-head", demo_path, demo_path, code=2)
