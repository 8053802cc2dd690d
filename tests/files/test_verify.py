"""Verification: sound files are good, every named kind of damage is found, and what passes does not end the engine."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time

import nextn
import numpy as np
import pytest
from nextn.errors import ModelFileError
from nextn.gguf import ValueType, check_loadable, format_report, read_header, verify
from nextn.gguf.vocabulary import MAX_TEMPLATE_DEPTH, template_depth

from .sketch import Sketch, array, mutate, scalar

I32, F32, TEXT, BOOL = ValueType.INT32, ValueType.FLOAT32, ValueType.STRING, ValueType.BOOL
NAN, INF = float("nan"), float("inf")


def tokens_of(s, change):
    """The vocabulary with its list changed."""
    start = [f"t{i}" for i in range(s.n_tokens)]
    change(start)
    s.key("tokenizer.ggml.tokens", array(TEXT, start))


def nested(text, n):
    return "{{ " + text * n + "1 }}"


# Each kind of damage: which small model, what is done to it, and the code of the finding.
DAMAGED = {
    "no architecture": ("dense", lambda s: s.drop("general.architecture"), "unreadable"),
    "architecture is a number": ("dense", lambda s: s.key("general.architecture", 7), "unreadable"),
    "no tensors": ("dense", lambda s: s.tensors.clear(), "no-tensors"),
    "alignment of 3": ("dense", lambda s: s.key("general.alignment", 3), "unreadable"),
    "alignment that the data does not have": ("dense", lambda s: s.key("general.alignment", 4096), "unreadable"),
    "no block count": ("dense", lambda s: s.drop("block_count"), "key-missing"),
    "block count 0": ("dense", lambda s: s.key("block_count", 0), "unreadable"),
    "block count 513": ("dense", lambda s: s.key("block_count", 513), "block-count"),
    "block count as text": ("dense", lambda s: s.key("block_count", "3", TEXT), "unreadable"),
    "block count as u64": ("dense", lambda s: s.key("block_count", 3, ValueType.UINT64), "key-kind"),
    "all blocks are NextN": ("dense", lambda s: s.key("nextn_predict_layers", 3), "unreadable"),
    "more NextN layers than blocks": ("dense", lambda s: s.key("nextn_predict_layers", 9), "unreadable"),
    "NextN layers as i32": ("dense", lambda s: s.key("nextn_predict_layers", 1, I32), "key-kind"),
    "no width": ("dense", lambda s: s.drop("embedding_length"), "key-missing"),
    "width 0": ("dense", lambda s: s.key("embedding_length", 0), "key-range"),
    "endless width": ("dense", lambda s: s.key("embedding_length", 2**32 - 1), "key-range"),
    "another width": ("dense", lambda s: s.key("embedding_length", 64), "tensor-shape"),
    "no context length": ("dense", lambda s: s.drop("context_length"), "key-missing"),
    "context length 0": ("dense", lambda s: s.key("context_length", 0), "key-range"),
    "no heads": ("dense", lambda s: s.key("attention.head_count", 0), "key-range"),
    "heads as float": ("dense", lambda s: s.key("attention.head_count", 2.0, F32), "key-kind"),
    "no KV heads": ("dense", lambda s: s.key("attention.head_count_kv", 0), "key-range"),
    "more KV heads than heads": ("dense", lambda s: s.key("attention.head_count_kv", 4), "head-sizes"),
    "key length 0": ("dense", lambda s: s.key("attention.key_length", 0), "key-range"),
    "other value length": ("dense", lambda s: s.key("attention.value_length", 8), "head-sizes"),
    "epsilon is not a number": ("dense", lambda s: s.key("attention.layer_norm_rms_epsilon", NAN, F32), "key-range"),
    "epsilon below 0": ("dense", lambda s: s.key("attention.layer_norm_rms_epsilon", -1.0, F32), "key-range"),
    "epsilon as u32": ("dense", lambda s: s.key("attention.layer_norm_rms_epsilon", 1), "key-kind"),
    "RoPE base 0": ("dense", lambda s: s.key("rope.freq_base", 0.0, F32), "key-range"),
    "RoPE base endless": ("dense", lambda s: s.key("rope.freq_base", INF, F32), "key-range"),
    "odd RoPE dimensions": ("dense", lambda s: s.key("rope.dimension_count", 7), "rope"),
    "RoPE wider than a head": ("dense", lambda s: s.key("rope.dimension_count", 64), "rope"),
    "no RoPE sections": ("dense", lambda s: s.drop("rope.dimension_sections"), "rope"),
    "three RoPE sections": ("dense", lambda s: s.key("rope.dimension_sections", array(I32, [2, 1, 1])), "rope"),
    "RoPE sections of 0": ("dense", lambda s: s.key("rope.dimension_sections", array(I32, [0] * 4)), "rope"),
    "RoPE sections below 0": ("dense", lambda s: s.key("rope.dimension_sections", array(I32, [-1, 2, 2, 0])), "rope"),
    "huge RoPE sections": ("dense", lambda s: s.key("rope.dimension_sections", array(I32, [2**30] * 4)), "rope"),
    "unknown RoPE scaling": ("dense", lambda s: s.key("rope.scaling.type", "cubic", TEXT), "rope-scaling"),
    "attention interval 0": ("dense", lambda s: s.key("full_attention_interval", 0), "key-range"),
    "no convolution": ("dense", lambda s: s.drop("ssm.conv_kernel"), "key-missing"),
    "convolution of 0": ("dense", lambda s: s.key("ssm.conv_kernel", 0), "key-range"),
    "state size 0": ("dense", lambda s: s.key("ssm.state_size", 0), "key-range"),
    "no key heads": ("dense", lambda s: s.key("ssm.group_count", 0), "key-range"),
    "key heads that do not divide": ("dense", lambda s: s.key("ssm.group_count", 3), "ssm-sizes"),
    "inner size that does not fit": ("dense", lambda s: s.key("ssm.inner_size", 17), "ssm-sizes"),
    "dense model with used experts": ("dense", lambda s: s.key("expert_used_count", 1), "experts"),
    "experts missing": ("moe", lambda s: s.drop("expert_count"), "experts"),
    "no experts used": ("moe", lambda s: s.key("expert_used_count", 0), "experts"),
    "more used than there are": ("moe", lambda s: s.key("expert_used_count", 5), "experts"),
    "too many experts": ("moe", lambda s: s.key("expert_count", 100_000), "key-range"),
    "experts in groups that do not divide": ("moe", lambda s: s.key("expert_group_count", 3), "experts"),
    "groups of which none is used": ("moe", lambda s: s.key("expert_group_count", 2), "experts"),
    "expert width 0": ("moe", lambda s: s.key("expert_feed_forward_length", 0), "key-range"),
    "no embedding": ("dense", lambda s: s.remove("token_embd.weight"), "tensor-missing"),
    "no final norm": ("dense", lambda s: s.remove("output_norm.weight"), "tensor-missing"),
    "norm of integers": ("dense", lambda s: s.retype(s.tensor("blk.0.attn_norm.weight"), "I32"), "tensor-type"),
    "norm in F16": ("dense", lambda s: s.retype(s.tensor("output_norm.weight"), "F16"), "tensor-type"),
    "matrix of doubles": ("dense", lambda s: s.retype(s.tensor("blk.1.ffn_up.weight"), "F64"), "tensor-type"),
    "matrix of bytes": ("dense", lambda s: s.retype(s.head("attn_k.weight"), "I8"), "tensor-type"),
    "convolution in F16": ("dense", lambda s: s.retype(s.tensor("blk.0.ssm_conv1d.weight"), "F16"), "tensor-type"),
    "eh_proj transposed": ("dense", lambda s: s.head("nextn.eh_proj.weight").shape.reverse(), "tensor-shape"),
    "enorm of half the width": ("dense", lambda s: s.reshape(s.head("nextn.enorm.weight"), [16]), "tensor-shape"),
    "head's query without gate": ("dense", lambda s: s.reshape(s.head("attn_q.weight"), [32, 32]), "tensor-shape"),
    "head's feed-forward too narrow": ("dense", lambda s: s.reshape(s.head("ffn_up.weight"), [32, 16]), "tensor-shape"),
    "an expert too few": ("moe", lambda s: s.reshape(s.head("ffn_up_exps.weight"), [32, 32, 3]), "tensor-shape"),
    "the head's own embedding of another vocabulary": (
        "dense",
        lambda s: s.add_to_head("nextn.embed_tokens.weight", [32, 269]),
        "tensor-shape",
    ),
    "the head's own output transposed": (
        "dense",
        lambda s: s.add_to_head("nextn.shared_head_head.weight", [270, 32]),
        "tensor-shape",
    ),
    "the head's own norm of half the width": (
        "dense",
        lambda s: s.add_to_head("nextn.shared_head_norm.weight", [16]),
        "tensor-shape",
    ),
    "the head's own norm in F16": (
        "dense",
        lambda s: s.add_to_head("nextn.shared_head_norm.weight", [32], "F16"),
        "tensor-type",
    ),
    "three-dimensional norm": ("dense", lambda s: s.reshape(s.head("attn_norm.weight"), [8, 2, 2]), "tensor-shape"),
    "no tokenizer": ("dense", lambda s: s.drop("tokenizer.ggml.model"), "tokenizer"),
    "no tokens": ("dense", lambda s: s.drop("tokenizer.ggml.tokens"), "tokenizer"),
    "empty vocabulary": ("dense", lambda s: s.key("tokenizer.ggml.tokens", array(TEXT, [])), "tokenizer"),
    "tokens as numbers": ("dense", lambda s: s.key("tokenizer.ggml.tokens", array(I32, [1, 2])), "tokenizer"),
    "one token too many": ("dense", lambda s: tokens_of(s, lambda t: t.append("more")), "tokenizer"),
    "a token twice": ("dense", lambda s: tokens_of(s, lambda t: t.__setitem__(3, "t4")), "duplicate-token"),
    "a token named like an empty one": (
        "dense",
        lambda s: tokens_of(s, lambda t: t.__setitem__(slice(0, 2), ["", "[EMPTY_0]"])),
        "duplicate-token",
    ),
    "a token twice up to a zero byte": (
        "dense",
        lambda s: tokens_of(s, lambda t: t.__setitem__(3, "t4\0more")),
        "duplicate-token",
    ),
    "no merges": ("dense", lambda s: s.drop("tokenizer.ggml.merges"), "tokenizer"),
    "merges as a number": ("dense", lambda s: s.key("tokenizer.ggml.merges", 5), "tokenizer"),
    "too few token types": ("dense", lambda s: s.key("tokenizer.ggml.token_type", array(I32, [1])), "tokenizer"),
    "token types as text": ("dense", lambda s: s.key("tokenizer.ggml.token_type", array(TEXT, ["a"])), "tokenizer"),
    "end token outside": ("dense", lambda s: s.key("tokenizer.ggml.eos_token_id", 270), "special-token"),
    "end token as i32": ("dense", lambda s: s.key("tokenizer.ggml.eos_token_id", -1, I32), "special-token"),
    "a missing token to be added": (
        "dense",
        lambda s: (s.drop("tokenizer.ggml.bos_token_id"), s.key("tokenizer.ggml.add_bos_token", True, BOOL)),
        "special-token",
    ),
    "template as a number": ("dense", lambda s: s.key("tokenizer.chat_template", 5), "unreadable"),
    "endless template": ("dense", lambda s: s.key("tokenizer.chat_template", "x" * (2 << 20), TEXT), "chat-template"),
    "template of brackets": (
        "dense",
        lambda s: s.key("tokenizer.chat_template", nested("(", 30_000), TEXT),
        "chat-template",
    ),
    "template of sums": (
        "dense",
        lambda s: s.key("tokenizer.chat_template", nested("1 + ", 30_000), TEXT),
        "chat-template",
    ),
    "template of conditions": (
        "dense",
        lambda s: s.key("tokenizer.chat_template", "{% if x %}" * 30_000, TEXT),
        "chat-template",
    ),
}


def damaged(name, sketch, write):
    kind, change, code = DAMAGED[name]
    s = sketch(kind)
    change(s)
    return write(s.build(), f"{name.replace(' ', '-')}.gguf"), code


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_found(name, sketch, write):
    path, code = damaged(name, sketch, write)
    report = verify(path)
    assert report.exit_code == 2, report
    assert report.findings[0].code == code, report
    assert all(f.message.isprintable() and f.advice for f in report.findings)
    with pytest.raises(ModelFileError, match=path.name):
        nextn.Model(path)


def test_tokens_that_are_no_utf8_are_not_alike(sketch, write):
    """Bytes count, not the replacement characters that they are shown as."""
    s = sketch()
    tokens_of(s, lambda t: t.__setitem__(slice(0, 2), [b"\xff", b"\xfe"]))
    check_loadable(write(s.build()))


def test_there_are_many_kinds():
    assert len(DAMAGED) >= 50


@pytest.mark.parametrize("kind", ["dense", "moe", "next"])
def test_what_is_put_together_unchanged_is_good(kind, sketch, small, write):
    """Otherwise the tests above would find the builder's own damage."""
    s = sketch(kind)
    assert s.build() == small(kind).read_bytes()
    assert verify(write(s.build())).exit_code == 0


def names_of_head(s):
    return [t.name for t in s.tensors if t.name.startswith("blk.2.")]


# What a draft head can be: which change, its state, the exit code.
HEADS = {
    "good": (lambda s: None, "complete", 0, None),
    "no head": (
        lambda s: (
            s.key("block_count", 2),
            s.drop("nextn_predict_layers"),
            s.remove(*names_of_head(s)),
        ),
        "none",
        1,
        "head-none",
    ),
    "lost": (lambda s: s.remove(*names_of_head(s)), "missing", 1, "head-missing"),
    "a tensor lost": (lambda s: s.remove("blk.2.nextn.eh_proj.weight"), "incomplete", 1, "head-incomplete"),
    "a feed-forward lost": (lambda s: s.remove("blk.2.ffn_down.weight"), "incomplete", 1, "head-incomplete"),
    "not declared": (lambda s: s.key("nextn_predict_layers", 0), "undeclared", 1, "head-undeclared"),
    "two layers": (
        lambda s: (s.key("block_count", 4), s.key("nextn_predict_layers", 2)),
        "unsupported",
        1,
        "head-unsupported",
    ),
    "a coarse matrix": (lambda s: s.retype(s.head("ffn_up.weight"), "Q4_0"), "complete", 1, "head-quantized"),
    "Q8_0": (lambda s: s.retype(s.head("ffn_up.weight"), "Q8_0"), "complete", 0, None),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_state_of_the_head(name, sketch, write):
    change, state, code, finding = HEADS[name]
    s = sketch()
    change(s)
    path = write(s.build())
    report = verify(path)
    assert (report.head, report.exit_code) == (state, code), report
    assert [f.code for f in report.findings if f.about == "head"] == ([finding] if finding else [])
    check_loadable(path)  # a poor head is no reason not to load the model


@pytest.mark.parametrize("part", ["full", "trunk", "head", "legacy-head"])
@pytest.mark.parametrize("kind", ["dense", "moe", "odd", "wide"])
@pytest.mark.parametrize("options", [{}, {"type": "q8_0", "tied": False}])
def test_sound_files_of_every_form_pass(tiny_model, kind, part, options):
    report = verify(tiny_model(kind, part=part, **options))
    assert report.exit_code == (1 if part == "trunk" else 0), format_report(report)
    assert not [f for f in report.findings if f.severity == "error"]


def test_files_that_are_no_gguf(tmp_path):
    (tmp_path / "page.gguf").write_text("<!DOCTYPE html>")
    report = verify(tmp_path / "page.gguf")
    assert report.exit_code == 2
    assert "a web page" in report.findings[0].message
    assert verify(tmp_path / "nothing.gguf").exit_code == 2
    assert verify(tmp_path).exit_code == 2


def test_report(demo_path, tmp_path):
    report = verify(demo_path)
    assert (report.exit_code, report.verdict, report.head, report.findings) == (0, "good", "complete", ())
    assert json.loads(json.dumps(report.to_dict()))["exit_code"] == 0
    path = shutil.copy(demo_path, tmp_path / "\x1b[2J.gguf")
    assert format_report(verify(path)).replace("\n", "").isprintable()


def test_loading_it_for_trial(demo_path, sketch, write):
    assert verify(demo_path, load=True).exit_code == 0
    s = sketch()
    s.remove("blk.0.ssm_a")  # the trunk's tensors are the engine's to check
    path = write(s.build())
    assert verify(path).exit_code == 0
    report = verify(path, load=True)
    assert (report.exit_code, report.findings[0].code) == (2, "load-failed")
    assert "blk.0.ssm_a" in report.findings[0].message


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Return a function that puts a shell script in the place of the process that loads the file."""
    from nextn.gguf import trial

    def put(script):
        path = tmp_path / "child.sh"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setattr(trial.sys, "executable", str(path))
        return trial

    return put


def test_a_crash_of_the_engine_is_a_finding(demo_path, child):
    child("kill -SEGV $$")
    finding = verify(demo_path, load=True).findings[0]
    assert (finding.code, "SIGSEGV" in finding.message) == ("load-crashed", True)


def test_an_engine_that_hangs_is_a_finding(demo_path, child, monkeypatch):
    trial = child("exec sleep 1000")
    monkeypatch.setattr(trial, "_SECONDS", 0.2)
    report = verify(demo_path, load=True)
    assert (report.exit_code, report.findings[0].code) == (2, "load-hung")


def test_a_head_that_drafts_nothing_is_a_finding(demo_path, child):
    child("""echo '{"draft_n": 0, "draft_n_accepted": 0}'""")
    report = verify(demo_path, load=True)
    assert [(f.code, f.about) for f in report.findings] == [("no-drafts", "head")]
    assert report.exit_code == 1


def test_memory_of_the_trial_is_limited():
    """What would take more than the limit is refused, and not the machine's memory taken."""
    code = (
        "import resource, sys; from nextn.gguf import trial; trial._limit_memory(int(sys.argv[1])); "
        "print(resource.getrlimit(resource.RLIMIT_DATA)[0], resource.getrlimit(resource.RLIMIT_CORE)[0])\n"
        "try:\n bytes(1 << 30)\nexcept MemoryError:\n print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(1 << 29)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(1 << 29), "0", "refused"]


def test_nothing_is_loaded_of_a_head_alone(small):
    report = verify(small(part="head"), load=True)
    assert report.exit_code == 0
    assert [(f.code, f.severity) for f in report.findings if f.code.startswith("load")] == [("load-skipped", "note")]


def test_what_does_not_decide_the_verdict_is_noted(sketch, write):
    """A coarse output matrix, and an architecture whose shapes are not known here."""
    s = sketch()
    s.retype(s.tensor("token_embd.weight"), "Q4_0")
    assert verify(write(s.build())).findings == ()
    s.retype(s.tensor("token_embd.weight"), "MXFP4")
    coarse = verify(write(s.build()))
    s = sketch()
    s.metadata["general.architecture"] = scalar(TEXT, "marvin")
    unknown = verify(write(s.build()))
    assert [(f.code, f.severity) for f in coarse.findings] == [("output-quantized", "note")]
    assert coarse.exit_code == 0
    assert "token_embd.weight" in coarse.findings[0].message
    assert unknown.exit_code == 1
    assert [f.code for f in unknown.findings] == ["head-undeclared", "unknown-architecture"]
    assert unknown.findings[1].severity == "note"


@pytest.mark.parametrize(
    "operator", ["(", "[", "not ", "- ", "1 + ", "x if y else ", "1 ~ ", "x and ", "x.a(", "x[", "x|f("]
)
def test_depth_of_a_template_counts_every_way_to_nest(operator):
    depths = [template_depth(nested(operator, n)) for n in (0, 10, 500)]
    assert depths[1] - depths[0] >= 10
    assert depths[2] - depths[0] >= 500
    assert template_depth("{% if a %}x{% endif %}" * 5000) < 5
    assert template_depth("text ((((" + '{{ "(((" }}') < 3
    assert template_depth("{# " + "(" * 5000 + " #}") == 0


def test_templates_at_the_limit_are_parsed(demo_path):
    """The engine's parser follows what the check lets through, in each way to nest."""
    from nextn import _core

    with nextn.Model(demo_path) as model:
        n = MAX_TEMPLATE_DEPTH - 20
        for source in ("(" * n + "1" + ")" * n, "not " * n + "x", "1" + " + 1" * n, "1 if x else " * (n // 2) + "2"):
            _core.ChatTemplate(model._core, "{{ " + source + " }}").apply([{"role": "user", "content": "Hi"}])


def test_every_prefix_of_a_header(small, write):
    """A download that stopped anywhere: refused at once, whether in the header or at its end."""
    data = small().read_bytes()
    n_header = read_header(small()).data_offset
    path = write(data)
    for length in range(n_header - 1, -1, -1):
        with path.open("rb+") as file:
            file.truncate(length)
        with pytest.raises(ModelFileError):
            check_loadable(path)


def survivors(n, seed, source, folder):
    """Random mutations of a file that pass the check."""
    rng = random.Random(seed)
    data, header = source.read_bytes(), read_header(source)
    spans, passed = list(header.spans.values()), []
    path = folder / f"{source.stem}-{seed}.gguf"
    with path.open("wb", buffering=0) as file:
        for i in range(n):
            mutated = mutate(rng, data, spans, header.data_offset)
            os.pwrite(file.fileno(), mutated, 0)  # one file for all: making one each would take most of the time
            os.ftruncate(file.fileno(), len(mutated))
            start = time.process_time()
            try:
                check_loadable(path)
                passed.append(path.with_stem(f"{path.stem}-{i}"))
                passed[-1].write_bytes(mutated)
            except ModelFileError as error:
                assert str(error).replace("\n", "").isprintable()
            assert time.process_time() - start < 1  # of this process's own: a hang, however busy the machine
    return passed


MUTATED = ["dense", "moe", "next", "dense-untied"]  # 5,000 mutations of each


def source_of(kind, small):
    kind, _, untied = kind.partition("-")
    return small(kind, tied=not untied, type="q8_0" if untied else "f32")


@pytest.mark.parametrize("kind", MUTATED)
def test_twenty_thousand_mutations(kind, small, tmp_path, load_all):
    """All go through the check; of those that pass it the engine gets some."""
    passed = survivors(5000, MUTATED.index(kind), source_of(kind, small), tmp_path)
    assert 500 < len(passed) < 4500
    some = random.Random(0).sample(passed, 60)
    results, crashed = load_all(some)
    assert crashed == {}
    assert len(results) == len(some)
    assert any("error" in result for result in results.values())
    assert any("draft_n" in result for result in results.values())
    for path in passed:
        path.unlink()


@pytest.mark.long
@pytest.mark.parametrize("kind", MUTATED)
def test_all_mutations_that_pass_load_or_fail_cleanly(kind, small, tmp_path, load_all):
    """The other 20,000, every one that passes the check in the engine."""
    for seed in range(10):
        passed = survivors(500, 1000 + seed, source_of(kind, small), tmp_path)
        _, crashed = load_all(passed)
        assert crashed == {}
        for path in passed:
            path.unlink()


# What one check takes in a process of its own: KiB more than before (the peak that Linux resets at exec; that of
# getrusage is inherited from the process that forks), processor seconds, and what was found.
_MEASURE = """
import json, sys, time
import nextn.gguf
from nextn.errors import ModelFileError
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before, start, found = peak(), time.process_time(), None
try:
    report = getattr(nextn.gguf, sys.argv[1])(sys.argv[2])
    found = report and [finding.code for finding in report.findings]
except ModelFileError as error:
    found = str(error)
print(json.dumps([peak() - before, time.process_time() - start, found]))
"""
EMPTY = struct.pack("<IIQ", ValueType.ARRAY, TEXT, 7_500_000) + bytes(60_000_000)
EMPTIES = struct.pack("<IIQ", ValueType.ARRAY, TEXT, 2 << 20) + bytes(16 << 20)


def measure(how, path):
    done = subprocess.run([sys.executable, "-c", _MEASURE, how, path], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@pytest.mark.parametrize("how", ["check_loadable", "verify"])
def test_a_file_with_thousands_of_tensors(how, write, sketch):
    """At most 64 MiB and one second of the process's own time; a vocabulary of 250,000 tokens with its merges."""
    s = sketch()
    s.key("tokenizer.ggml.tokens", array(TEXT, [f"token {i}" for i in range(250_000)]))
    s.key("tokenizer.ggml.merges", array(TEXT, [f"a b{i}" for i in range(250_000)]))
    s.key("tokenizer.ggml.token_type", array(I32, np.ones(250_000, np.int32)))
    s.reshape(s.tensor("token_embd.weight"), [32, 250_000])
    norm = s.tensor("output_norm.weight")
    s.tensors += [type(norm)(f"blk.1.extra.{i}.weight", norm.shape, norm.kind, norm.data) for i in range(3000)]
    path = write(s.build())
    runs = [measure(how, path) for _ in range(3)]
    assert not any(found for _, _, found in runs)
    assert max(kib for kib, _, _ in runs) < 64 << 10
    assert min(seconds for _, seconds, _ in runs) < 1  # 0.5 s; no other process's time is in it


def full_of_text(s):
    for i in range(10_000):
        s.metadata[f"key {i}"] = scalar(TEXT, "\U0001f600" + "x" * 350)


def full_of_tensors(s):
    norm = s.tensor("output_norm.weight")
    s.tensors += [type(norm)(f"t{i}", norm.shape, norm.kind, norm.data) for i in range(65_000)]


# Headers that are made to take memory: what is done to a small model, and what the finding says.
GREEDY = {
    "60 MB of empty tokens": (lambda s: s.key("tokenizer.ggml.tokens", EMPTY), "over the limit of 2,097,152"),
    "as many tokens as may be": (
        lambda s: (
            s.key("tokenizer.ggml.tokens", EMPTIES),
            s.drop("tokenizer.ggml.token_type"),
            s.remove("token_embd.weight"),  # so that it need not have a row for each
        ),
        "token_embd.weight is missing",
    ),
    "long tokens": (
        lambda s: tokens_of(s, lambda t: t.__setitem__(slice(0, 14), [f"{i}" + "x" * (4 << 20) for i in range(14)])),
        "over the limit",
    ),
    "long tokens of the longest length": (
        lambda s: tokens_of(s, lambda t: t.__setitem__(slice(0, 14), [f"{i}" + "x" * (4 << 19) for i in range(14)])),
        None,
    ),
    "texts": (full_of_text, None),
    "texts that are longer than text can be": (
        lambda s: [s.key(f"general.{i}", "x" * (1 << 20), TEXT) for i in range(4)],
        "longer than 4,194,304 bytes",
    ),
    "tensors": (full_of_tensors, None),
}


@pytest.mark.parametrize("how", ["check_loadable", "verify"])
@pytest.mark.parametrize("name", GREEDY)
def test_no_header_takes_more_than_64_mib(name, how, sketch, write):
    change, message = GREEDY[name]
    s = sketch()
    change(s)
    path = write(s.build())
    kib, _, found = measure(how, path)
    assert kib < 64 << 10
    assert bool(found) == bool(message)
    if message and how == "check_loadable":
        assert message in found


def test_a_token_twice_in_a_large_vocabulary(sketch, write):
    """Across windows of the file, with a long token between."""
    s = sketch()
    names = [f"token {i}" for i in range(300_000)]
    names[150_000] = "x" * (3 << 20)
    names[299_999] = "token 7"
    s.key("tokenizer.ggml.tokens", array(TEXT, names))
    s.key("tokenizer.ggml.token_type", array(I32, np.ones(300_000, np.int32)))
    s.reshape(s.tensor("token_embd.weight"), [32, 300_000])
    findings = verify(write(s.build())).findings
    assert [(f.code, "'token 7' occurs twice" in f.message) for f in findings] == [("duplicate-token", True)]


def test_a_model_in_parts(small, tmp_path):
    """Each file says which part it is, and together they hold what they promise."""

    def part(i, n=2, **changes):
        s = Sketch(small())
        s.tensors = s.tensors[i::2]
        s.key("split.no", changes.get("no", i), ValueType.UINT16)
        s.key("split.count", n, ValueType.UINT16)
        s.key("split.tensors.count", changes.get("count", len(Sketch(small()).tensors)), I32)
        return s

    paths = [tmp_path / f"m-{i + 1:05d}-of-00002.gguf" for i in range(2)]
    for i, path in enumerate(paths):
        path.write_bytes(part(i).build())
    assert verify(paths[0]).exit_code == 0
    paths[1].write_bytes(part(1, no=0).build())
    assert verify(paths[0]).findings[0].code == "split"
    paths[1].write_bytes(part(0).build())  # the same tensors twice
    assert {f.code for f in verify(paths[0]).findings} >= {"split"}
    paths[1].write_bytes(part(1).build())
    paths[0].write_bytes(part(0, count=99).build())
    assert "together, not 99" in verify(paths[0]).findings[0].message
    paths[1].unlink()
    assert "part 2 of 2 is missing" in verify(paths[0]).findings[0].message


def test_scalar_helper():
    assert scalar(BOOL, True) == b"\x07\x00\x00\x00\x01"
