"""Quantization: the plan is the file, the file is what llama-quantize makes, and nothing is left of what fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import files as installed_files

import nextn
import pytest
from nextn.gguf import read_header, verify
from nextn.quantize import make_plan, quantize, read_recipe, recipe_names, run_plan
from nextn.quantize import run as run_module

from .sketch import Sketch
from .test_head_files import command, tensor_bytes, values

gguf = pytest.importorskip("gguf")


@pytest.fixture(scope="module")
def source(tiny_model):
    """A model whose rows are whole blocks of K-quants."""
    return tiny_model("wide", n_layer=2, full_attention_interval=2, n_vocab=512)


@pytest.fixture(scope="module")
def llama_quantize():
    found = [entry.locate() for entry in installed_files("nextn") or [] if entry.name == "llama-quantize"]
    if not found:
        pytest.skip("llama-quantize is not installed")
    return found[0]


def types_of(path):
    return {tensor.name: tensor.type.name for tensor in read_header(path).tensors}


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K_M", "Q5_K_S", "Q3_K_L", "Q4_0", "IQ4_NL", "IQ4_XS", "F16", "BF16"])
def test_base_recipe_is_what_llama_quantize_makes(kind, source, tmp_path, llama_quantize):
    """Tensor by tensor, byte by byte."""
    quantize(source, tmp_path / "ours.gguf", kind, recipe="base", n_threads=2)
    subprocess.run([llama_quantize, source, tmp_path / "theirs.gguf", kind, "1"], check=True, capture_output=True)
    assert tensor_bytes(tmp_path / "ours.gguf") == tensor_bytes(tmp_path / "theirs.gguf")
    theirs = values(tmp_path / "theirs.gguf")
    ours = values(tmp_path / "ours.gguf")
    assert {key: value for key, value in ours.items() if not key.startswith("nextn.")} == theirs


def test_experts_like_llama_quantize(small, tmp_path, llama_quantize):
    quantize(small("moe"), tmp_path / "ours.gguf", "Q4_K_M", recipe="base")
    subprocess.run([llama_quantize, small("moe"), tmp_path / "theirs.gguf", "Q4_K_M"], check=True, capture_output=True)
    assert tensor_bytes(tmp_path / "ours.gguf") == tensor_bytes(tmp_path / "theirs.gguf")


def test_recipes(source, tmp_path):
    assert recipe_names() == ["base", "combined", "nextn", "turbo-kv"]
    made = {}
    for recipe in recipe_names():
        plan = quantize(source, tmp_path / f"{recipe}.gguf", "Q4_K_M", recipe=recipe)
        made[recipe] = types_of(tmp_path / f"{recipe}.gguf")
        assert made[recipe] == {tensor.name: tensor.target.name for tensor in plan.tensors}
        assert values(tmp_path / f"{recipe}.gguf")["nextn.quantize.recipe"] == recipe
    head = [name for name in made["base"] if name.startswith("blk.2.")]
    for name in head:
        wanted = "F32" if "norm" in name else "Q8_0"
        assert made["nextn"][name] == made["combined"][name] == wanted, name
    assert made["base"]["blk.2.nextn.eh_proj.weight"] == "Q4_K"
    for name in ("blk.1.attn_q.weight", "blk.1.attn_k.weight"):
        assert (made["base"][name], made["nextn"][name]) == ("Q4_K", "Q4_K")
        assert (made["turbo-kv"][name], made["combined"][name]) == ("Q6_K", "Q6_K")
    rest = [name for name in made["base"] if name not in head and "attn_q" not in name and "attn_k" not in name]
    assert all(made[recipe][name] == made["base"][name] for recipe in made for name in rest)
    assert verify(tmp_path / "combined.gguf").exit_code == 0
    assert verify(tmp_path / "base.gguf").findings[0].code == "head-quantized"


def test_recipes_never_lower_a_type(source, tmp_path):
    quantize(source, tmp_path / "q8.gguf", "Q8_0", recipe="combined")
    assert set(types_of(tmp_path / "q8.gguf").values()) == {"Q8_0", "F32"}
    quantize(source, tmp_path / "f16.gguf", "F16", recipe="combined")
    assert set(types_of(tmp_path / "f16.gguf").values()) == {"F16", "F32"}
    # nor more bits than there are: the coarse tensors of a quantized file stay as they are
    plan = make_plan(tmp_path / "q8.gguf", "Q4_K_M", recipe="nextn")
    assert {t.target.name for t in plan.tensors if t.name.startswith("blk.2.")} == {"Q8_0", "F32"}
    assert len(plan.requantized) > 10


def test_explicit_types(source, tmp_path):
    given = [(r"blk\.2\..*ffn", "q5_k"), (r"ffn_down", "Q3_K"), ("token_embd", "F16")]
    quantize(source, tmp_path / "a.gguf", "Q4_K", tensor_types=given)
    made = types_of(tmp_path / "a.gguf")
    assert made["blk.2.ffn_up.weight"] == made["blk.2.ffn_down.weight"] == "Q5_K"
    assert made["blk.0.ffn_down.weight"] == "Q3_K"
    assert made["token_embd.weight"] == "F16"
    assert made["blk.2.nextn.eh_proj.weight"] == "Q8_0"
    recorded = values(tmp_path / "a.gguf")
    assert recorded["nextn.quantize.tensor_types"] == r"blk\.2\..*ffn=Q5_K,ffn_down=Q3_K,token_embd=F16"
    assert recorded["nextn.quantize.type"] == "Q4_K_M"
    quantize(source, tmp_path / "b.gguf", "F16", recipe="base", tensor_types=[("ffn_up", "Q8_0")])
    made = types_of(tmp_path / "b.gguf")
    assert (made["blk.0.ffn_up.weight"], made["blk.0.ffn_down.weight"]) == ("Q8_0", "F16")
    assert values(tmp_path / "b.gguf")["general.file_type"] == 1
    assert verify(tmp_path / "b.gguf", load=True).exit_code == 0


def test_rows_that_are_no_whole_blocks(tiny_model, tmp_path):
    """The engine's fallback is in the plan."""
    plan = quantize(tiny_model("odd"), tmp_path / "a.gguf", "Q4_K_M", recipe="base")
    assert types_of(tmp_path / "a.gguf") == {tensor.name: tensor.target.name for tensor in plan.tensors}
    assert {tensor.target.name for tensor in plan.tensors} & {"Q5_0", "Q8_0"}


@pytest.mark.parametrize("kind", ["dense", "moe", "next"])
def test_quantized_models_draft(kind, small, tmp_path):
    quantize(small(kind), tmp_path / "a.gguf", "Q4_K_M")
    before, after = verify(small(kind), load=True), verify(tmp_path / "a.gguf", load=True)
    assert (after.exit_code, after.findings) == (before.exit_code, before.findings)


def test_same_options_same_bytes(source, tmp_path):
    quantize(source, tmp_path / "a.gguf", "Q4_K_M", n_threads=1)
    quantize(source, tmp_path / "b.gguf", "Q4_K_M", n_threads=3)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_a_model_in_parts(source, tmp_path):
    whole = Sketch(source)
    for i in range(2):
        s = Sketch(source)
        s.tensors = s.tensors[i::2]
        for key, value in (("split.no", i), ("split.count", 2)):
            s.metadata[key] = b"\x02\0\0\0" + value.to_bytes(2, "little")
        s.metadata["split.tensors.count"] = b"\x05\0\0\0" + len(whole.tensors).to_bytes(4, "little")
        (tmp_path / f"m-{i + 1:05d}-of-00002.gguf").write_bytes(s.build())
    first = tmp_path / "m-00001-of-00002.gguf"
    quantize(first, tmp_path / "parts.gguf", "Q4_K_M")
    quantize(source, tmp_path / "whole.gguf", "Q4_K_M")
    assert tensor_bytes(tmp_path / "parts.gguf") == tensor_bytes(tmp_path / "whole.gguf")
    with pytest.raises(ValueError, match="one of those to read"):
        quantize(first, tmp_path / "m-00002-of-00002.gguf", "Q4_K_M")


@pytest.mark.parametrize(
    ("kind", "options", "error", "text"),
    [
        ("Q4_K_X", {}, ValueError, r"type must be one of .*, not 'Q4_K_X'; did you mean Q4_K"),
        ("Q4_K_M", {"recipe": "best"}, ValueError, "recipe must be one of base, combined, nextn, turbo-kv, not 'best'"),
        ("Q4_K_M", {"tensor_types": [("(", "Q8_0")]}, ValueError, "is no regular expression"),
        ("Q4_K_M", {"tensor_types": [("ffn_sideways", "Q8_0")]}, ValueError, "no tensor has a name that"),
        ("Q4_K_M", {"tensor_types": [("ffn_up", "Q9")]}, ValueError, "'Q9' is no type of a matrix"),
        ("Q4_K_M", {"tensor_types": [("ffn_up", "I32")]}, ValueError, "'I32' is no type of a matrix"),
        ("Q4_K_M", {"n_threads": 0}, ValueError, "n_threads must be an integer from 1 to 512, not 0"),
        ("IQ2_XXS", {}, nextn.NextnError, "IQ2_XXS needs an importance matrix for"),
    ],
)
def test_refusals(kind, options, error, text, source, tmp_path):
    with pytest.raises(error, match=text):
        quantize(source, tmp_path / "out.gguf", kind, **options)
    assert list(tmp_path.iterdir()) == []


def test_quantized_files_only_when_allowed(source, tmp_path):
    quantize(source, tmp_path / "q8.gguf", "Q8_0")
    with pytest.raises(nextn.NextnError, match="tensors are quantized already"):
        quantize(tmp_path / "q8.gguf", tmp_path / "q4.gguf", "Q4_0", recipe="base")
    assert not (tmp_path / "q4.gguf").exists()
    quantize(tmp_path / "q8.gguf", tmp_path / "q4.gguf", "Q4_0", recipe="base", allow_requantize=True)
    assert types_of(tmp_path / "q4.gguf")["blk.0.ffn_up.weight"] == "Q4_0"


def test_in_is_never_out(source, tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(source.read_bytes())
    os.link(path, tmp_path / "link.gguf")
    for out in (path, tmp_path / "link.gguf", tmp_path / "." / "m.gguf"):
        with pytest.raises(ValueError, match="one of those to read"):
            quantize(path, out, "Q8_0")
    assert path.read_bytes() == source.read_bytes()


class TestWhatFailsLeavesNothing:
    @pytest.fixture
    def out(self, tmp_path):
        (tmp_path / "out.gguf").write_bytes(b"before")
        yield tmp_path / "out.gguf"
        assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]
        assert (tmp_path / "out.gguf").read_bytes() == b"before"

    def test_cancelled(self, source, out, monkeypatch):
        class StopError(Exception):
            pass

        def stop(share):
            raise StopError

        monkeypatch.setattr(run_module, "_POLL_SECONDS", 0.001)
        with pytest.raises(StopError):
            quantize(source, out, "Q8_0", progress=stop)

    def test_the_process_dies(self, source, out, monkeypatch):
        monkeypatch.setattr(run_module.sys, "executable", "/bin/false")
        with pytest.raises(nextn.NextnError, match=r"ended without a word \(exit code 1\)"):
            quantize(source, out, "Q8_0")

    def test_the_process_dies_before_its_job_is_sent(self, source, out, monkeypatch):
        send = run_module._send

        def late(worker, job):
            worker.wait()
            send(worker, job)

        monkeypatch.setattr(run_module.sys, "executable", "/bin/false")
        monkeypatch.setattr(run_module, "_send", late)
        with pytest.raises(nextn.NextnError, match=r"ended without a word \(exit code 1\)"):
            quantize(source, out, "Q8_0")

    def test_the_engine_refuses(self, sketch, out, tmp_path_factory):
        s = sketch()
        s.tensor("blk.0.ffn_up.weight").data = b"\0\0\xc0\x7f" * (32 * 32)  # not a number
        path = tmp_path_factory.mktemp("nan") / "nan.gguf"
        path.write_bytes(s.build())
        with pytest.raises(nextn.NextnError, match=r"cannot be quantized: .*invalid data"):
            quantize(path, out, "Q8_0")

    def test_no_room(self, source, out, monkeypatch):
        monkeypatch.setattr(run_module.shutil, "disk_usage", lambda path: os.terminal_size((1, 10)) and _Usage)
        with pytest.raises(OSError, match="the new file needs .* bytes, 10 are free"):
            quantize(source, out, "Q8_0")

    def test_another_file_than_planned(self, source, out, monkeypatch):
        monkeypatch.setattr(run_module, "engine_types", lambda plan: (7, []))
        with pytest.raises(nextn.NextnError, match="not .* as planned"):
            quantize(source, out, "Q4_K_M")


class _Usage:
    free = 10


def test_the_worker_ends_with_its_parent(source, tmp_path):
    """Standard input that closes is a parent that is gone."""
    job = subprocess.run([sys.executable, "-m", "nextn.quantize.worker"], input=b"", capture_output=True, timeout=60)
    assert job.returncode != 0


def test_progress_and_plan(source, tmp_path):
    shares = []
    plan = make_plan(source, "Q4_K_M")
    run_plan(plan, tmp_path / "a.gguf", progress=shares.append)
    assert shares[-1] == 1
    assert shares == sorted(shares)
    assert plan.size > plan.new_size > 0
    assert abs(sum(t.size for t in read_header(tmp_path / "a.gguf").tensors) - plan.new_size) == 0
    assert read_recipe("combined").description


def test_commands(source, tmp_path):
    out = tmp_path / "q.gguf"
    shown = command("quantize", source, out, "Q4_K_M", "--dry-run")
    assert "F32 -> Q8_0" in shown
    assert "Q4_K_M, recipe combined" in shown
    assert not out.exists()
    plan = json.loads(
        command("quantize", source, out, "q4_k", "--recipe", "base", "--tensor-type", "ffn_up=Q8_0", "--json")
    )
    made = types_of(out)
    assert {tensor["name"]: tensor["to"] for tensor in plan["tensors"]} == made
    assert made["blk.0.ffn_up.weight"] == "Q8_0"
    assert "takes PATTERN=TYPE" in command("quantize", source, out, "Q8_0", "--tensor-type", "Q8_0", code=2)
    assert "one of those to read" in command("quantize", source, source, "Q8_0", code=2)
