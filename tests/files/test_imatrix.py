"""Importance matrices: the numbers are right, the head is covered, the form is llama.cpp's; and the measurements."""

from __future__ import annotations

import json
import subprocess

import nextn
import numpy as np
import pytest
from nextn.gguf import read_header
from nextn.gguf.writer import copied_metadata, copied_tensors, write_gguf
from nextn.quantize import Entry, ImportanceMatrix, quantize, read_imatrix, write_imatrix
from nextn.quantize.collect import collect
from nextn.quantize.matrix import format_matrix, make_matrix
from nextn.quantize.measure import measure_drafting, perplexity

from .test_head_files import command, tensor_bytes
from .test_quantize import llama_quantize, source  # noqa: F401  (fixtures)

TEXT = "Speculation drafts tokens, and the model checks them all at once. " * 40


def values_of(path, name):
    """An F32 tensor of a file [rows, columns]."""
    tensor = next(t for t in read_header(path).tensors if t.name == name)
    data = np.frombuffer(path.read_bytes()[tensor.offset : tensor.offset + tensor.size], np.float32)
    return data.reshape(tensor.shape[::-1])


def normed(rows, weight):
    rows = rows.astype(np.float64)
    return rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + 1e-6) * weight


def test_sums_of_the_head_are_those_of_its_inputs(tiny_model):
    """The input of eh_proj is known: normed embeddings beside normed hidden rows. Both steps of a draft, by NumPy."""
    path = tiny_model("dense")
    with nextn.Model(path) as model:
        tokens = model.tokenize(TEXT, parse_special=True)[:64]
        found = collect(model, TEXT, n_ctx=64, max_chunks=1, n_threads=1)
        with (
            nextn.Context(model, n_ctx=64, n_threads=1) as target,
            nextn.Context(model, n_ctx=64, n_threads=1, nextn_draft=True) as head,
        ):
            target.decode(tokens)
            rows = [target.hidden()]
            before = np.vstack([np.zeros_like(rows[0][:1]), rows[0][:-1]])
            head.decode(tokens, hidden=before)
            rows.append(head.hidden())
    embedding = values_of(path, "token_embd.weight")[tokens]
    wanted = np.zeros(2 * embedding.shape[1])
    for hidden in rows:
        before = np.vstack([np.zeros_like(hidden[:1]), hidden[:-1]])
        inputs = np.hstack(
            [normed(embedding, values_of(path, "blk.4.nextn.enorm.weight")),
             normed(before, values_of(path, "blk.4.nextn.hnorm.weight"))]
        )  # fmt: skip
        wanted += (inputs**2).sum(axis=0)
    entry = found.entries["blk.4.nextn.eh_proj.weight"]
    assert entry.counts.tolist() == [128]
    np.testing.assert_allclose(entry.sums[0], wanted, rtol=1e-3)


def test_every_matrix_of_every_block_is_covered(small):
    for kind in ("dense", "moe"):
        with nextn.Model(small(kind)) as model:
            found = collect(model, TEXT, n_ctx=64, max_chunks=2, n_threads=1)
        header = read_header(small(kind))
        matrices = {
            t.name: t for t in header.tensors
            if t.name.startswith("blk.") and len(t.shape) > 1 and "conv1d" not in t.name and "norm" not in t.name
        }  # fmt: skip
        assert set(matrices) <= set(found.entries)
        for name, entry in found.entries.items():
            shape = matrices[name].shape if name in matrices else (entry.sums.shape[1],)
            assert entry.sums.shape == (shape[2] if len(shape) > 2 else 1, shape[0])
            rows = 2 * 64 * (2 if name.startswith("blk.2.") else 1)
            per_row = 2 if "_exps" in name else 1  # experts per token
            assert entry.counts.sum() == rows * per_row, name


def test_quantizing_with_it_is_what_llama_quantize_does(source, tmp_path, llama_quantize):  # noqa: F811
    """Our file is read by upstream's program, and both make the same tensors of it."""
    with nextn.Model(source) as model:
        write_imatrix(tmp_path / "i.gguf", collect(model, TEXT, dataset="text.txt", n_ctx=64, n_threads=1))
    for kind in ("Q4_K_M", "Q2_K_S"):
        quantize(source, tmp_path / "ours.gguf", kind, recipe="base", imatrix=tmp_path / "i.gguf")
        subprocess.run(
            [llama_quantize, "--imatrix", tmp_path / "i.gguf", source, tmp_path / "theirs.gguf", kind],
            check=True,
            capture_output=True,
        )
        assert tensor_bytes(tmp_path / "ours.gguf") == tensor_bytes(tmp_path / "theirs.gguf")
    quantize(source, tmp_path / "without.gguf", "Q4_K_M", recipe="base")
    quantize(source, tmp_path / "with.gguf", "Q4_K_M", recipe="base", imatrix=tmp_path / "i.gguf")
    name = "blk.2.nextn.eh_proj.weight"
    assert tensor_bytes(tmp_path / "with.gguf")[name] != tensor_bytes(tmp_path / "without.gguf")[name]
    header = read_header(tmp_path / "with.gguf")
    assert header.metadata["quantize.imatrix.file"] == "i.gguf"
    assert header.metadata["quantize.imatrix.dataset"] == "text.txt"


def test_file_round_trip(tmp_path):
    entries = {
        "blk.0.a.weight": Entry(sums=np.array([[1.0, 4.0]]), counts=np.array([2])),
        "blk.0.e.weight": Entry(sums=np.array([[2.0, 6.0], [0.0, 0.0]]), counts=np.array([2, 0])),
    }
    matrix = ImportanceMatrix(entries=entries, datasets=("a", "ü"), n_chunk=3, chunk_size=512)
    write_imatrix(tmp_path / "i.gguf", matrix)
    again = read_imatrix(tmp_path / "i.gguf")
    assert (again.datasets, again.n_chunk, again.chunk_size) == (("a", "ü"), 3, 512)
    assert again.entries["blk.0.a.weight"].importance().tolist() == [0.5, 2.0]
    assert again.entries["blk.0.e.weight"].importance().tolist() == [1.0, 3.0, 1.0, 1.0]


def test_files_that_do_not_fit(source, small, tmp_path):  # noqa: F811
    out = tmp_path / "out.gguf"
    with pytest.raises(nextn.ModelFileError, match="is no importance matrix"):
        quantize(source, out, "Q4_K_M", imatrix=small())
    path = tmp_path / "i.gguf"
    for entries, text in (
        ({"other.weight": Entry(sums=np.ones((1, 4)), counts=np.ones(1, np.int64))}, "it is of another model"),
        (
            {"blk.0.ffn_up.weight": Entry(sums=np.ones((1, 4)), counts=np.ones(1, np.int64))},
            "has 4 sums for blk.0.ffn_up",
        ),
        ({"blk.0.ffn_up.weight": Entry(sums=-np.ones((1, 256)), counts=np.ones(1, np.int64))}, "no sums of squares"),
        ({"blk.0.ffn_up.weight": Entry(sums=np.full((1, 256), np.nan), counts=np.ones(1, np.int64))}, "no sums of sq"),
    ):
        write_imatrix(path, ImportanceMatrix(entries=entries))
        with pytest.raises(nextn.ModelFileError, match=text):
            quantize(source, out, "Q4_K_M", imatrix=path)
    good = {"blk.0.ffn_up.weight": Entry(sums=np.ones((1, 256)), counts=np.ones(1, np.int64))}
    write_imatrix(path, ImportanceMatrix(entries=good))
    with pytest.raises(nextn.ModelFileError, match="has no entry for"):
        quantize(source, out, "IQ2_XXS", imatrix=path)
    header = read_header(path)
    write_gguf(path, copied_metadata(header, header.metadata), copied_tensors(header, lambda name: "sum2" in name))
    with pytest.raises(nextn.ModelFileError, match="has sums but no counts"):
        quantize(source, out, "Q4_K_M", imatrix=path)
    assert not out.exists()


def test_too_short_a_text(demo_path):
    with nextn.Model(demo_path) as model:
        with pytest.raises(nextn.NextnError, match="at least 16 are needed"):
            collect(model, "Hi")
        with pytest.raises(nextn.NextnError, match="fewer than one chunk of 512"):
            perplexity(model, "Hi")
        assert collect(model, TEXT[:200], n_ctx=512, n_threads=1).n_chunk == 1  # a short text is read as far as it goes


def test_perplexity(demo_path):
    """By definition, from the logits of whole chunks."""
    with nextn.Model(demo_path) as model:
        found = perplexity(model, TEXT, n_ctx=128, n_threads=1)
        tokens, losses = model.tokenize(TEXT), []
        for start in range(0, len(tokens) - 127, 128):
            chunk = tokens[start : start + 128]
            with nextn.Context(model, n_ctx=128, n_threads=1) as context:
                context.decode(chunk)
                logits = context.logits().astype(np.float64)
            logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
            losses += [-logs[i, chunk[i + 1]] for i in range(64, 127)]
    assert found == pytest.approx(np.exp(np.mean(losses)), rel=5e-3)  # batches of other widths


def test_drafting_of_the_demo_model(demo_path):
    with nextn.Model(demo_path) as model:
        found = measure_drafting(model, ["How do I sort a list in Python?"], n_draft=2, max_tokens=64, n_threads=1)
    assert found.draft_n > 20
    assert found.acceptance_rate > 0.8
    assert found.tokens_per_second > 0


def test_matrix_of_several_types(tiny_model, tmp_path):
    path = tiny_model("wide", tied=False, agreement=0.92, n_layer=2, full_attention_interval=2, n_vocab=512)
    rows = make_matrix(
        path, tmp_path, ["Q8_0", "Q4_K_M"], ["base", "nextn"], TEXT, prompts=["Hi"], n_ctx=64, n_threads=1
    )
    assert [row.name for row in rows] == ["source", "Q8_0 base", "Q8_0 nextn", "Q4_K_M base", "Q4_K_M nextn"]
    sizes = [row.size for row in rows]
    assert sizes[0] > sizes[1] > sizes[4] > sizes[3]
    assert all(row.perplexity > 1 and row.drafting.draft_n > 0 for row in rows)
    table = format_matrix(rows).splitlines()
    assert len(table) == 7
    assert all(line.count("|") == 7 for line in table)


def test_commands(demo_path, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    found = json.loads(command("imatrix", demo_path, tmp_path / "text.txt", tmp_path / "i.gguf", "-c", "64", "--json"))
    assert found["chunks"] > 5
    assert "blk.8.nextn.eh_proj.weight" in read_imatrix(tmp_path / "i.gguf").entries
    shown = command(
        "quantize-matrix", demo_path, tmp_path, "Q4_0", "--recipe", "nextn", "--text", tmp_path / "text.txt",
        "--allow-requantize", "--imatrix", tmp_path / "i.gguf", "-c", "64", "-t", "1",
    )  # fmt: skip
    assert "| source | 7.91 MB |" in shown
    assert "| Q4_0 nextn |" in shown
    assert "no such file" in command("imatrix", tmp_path / "none.gguf", tmp_path / "text.txt", tmp_path / "x", code=1)
