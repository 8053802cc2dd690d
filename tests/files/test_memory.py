"""The estimate of memory against what the engine's contexts take."""

from __future__ import annotations

import nextn
import pytest
from nextn.gguf.memory import estimate_memory

from .test_head_files import command


@pytest.mark.parametrize("kind", ["dense", "moe", "odd", "demo"])
@pytest.mark.parametrize(("n_ctx", "n_draft"), [(256, 0), (1000, 3), (2048, 6)])
def test_estimate_is_what_the_engine_takes(kind, n_ctx, n_draft, tiny_model, demo_path):
    path = demo_path if kind == "demo" else tiny_model(kind)
    found = estimate_memory(path, n_ctx, n_draft)
    options = {"n_ctx": n_ctx, "n_batch": 64, "n_ubatch": 64, "n_threads": 1}
    with nextn.Model(path) as model:
        with nextn.Context(model, n_rs_seq=n_draft, **options) as target:
            taken = target.memory_usage()["context"]
        with nextn.Context(model, nextn_draft=True, **options) as head:
            taken_by_head = head.memory_usage()["context"]
    assert found.kv_cache + found.states + found.draft_states == pytest.approx(taken, rel=0.02)
    assert found.draft_kv_cache == pytest.approx(taken_by_head, rel=0.02)
    assert found.plain < found.drafting


@pytest.mark.parametrize(("type_k", "type_v"), [("f32", "f16"), ("q8_0", "q8_0"), ("q8_0", "q4_0")])
def test_types_of_the_cache_count(type_k, type_v, demo_path):
    found = estimate_memory(demo_path, 2048, 0, type_k=type_k, type_v=type_v)
    options = {"n_batch": 64, "n_ubatch": 64, "n_threads": 1, "type_k": type_k, "type_v": type_v}
    with nextn.Model(demo_path) as model, nextn.Context(model, n_ctx=2048, **options) as target:
        taken = target.memory_usage()["context"]
    assert found.kv_cache + found.states == pytest.approx(taken, rel=0.02)


def test_a_type_that_there_is_not(demo_path):
    with pytest.raises(ValueError, match="type_v must be a type such as 'f16' or 'q8_0', not 'f17'"):
        estimate_memory(demo_path, 256, 0, type_v="f17")


@pytest.mark.parametrize("output_type", ["q4_0", "f16"])
def test_estimate_of_the_shortlist_is_the_most_it_takes(output_type, tiny_model):
    path = tiny_model("wide", type="q8_0", output_type=output_type, n_vocab=65536, n_layer=2, full_attention_interval=2)
    found = estimate_memory(path, 256, 1)
    with nextn.Speculator(path, n_ctx=256, n_threads=1) as speculator:
        taken = speculator._drafter.stats()["n_extra_bytes"]
    assert 0.7 * found.draft_shortlist < taken <= found.draft_shortlist
    assert found.drafting == found.plain + found.draft_states + found.draft_kv_cache + found.draft_shortlist


def test_command(demo_path):
    shown = command("inspect", demo_path, "-c", "1024")
    assert "memory at 1,024 tokens" in shown
    assert "KV cache (F16) " in shown
    assert "KV cache (Q8_0 and F16) " in command("inspect", demo_path, "-c", "1024", "-ctk", "q8_0")
    assert '"memory"' in command("inspect", demo_path, "-c", "1024", "--json")
    assert "memory" not in command("inspect", demo_path)
