"""Memory: the draft context shares the weights, and what was made is given back."""

from __future__ import annotations

import sys

import pytest

MEASURE = """
    import gc, pathlib
    def resident():
        gc.collect()
        fields = dict(line.split(":") for line in pathlib.Path("/proc/self/status").read_text().splitlines())
        return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssFile")) * 1024
    def mapped():
        lines = pathlib.Path("/proc/self/maps").read_text().splitlines()
        sizes = [line.split(maxsplit=5) for line in lines if line.endswith(".gguf")]
        return sum(int(hi, 16) - int(lo, 16) for lo, hi in (entry[0].split("-") for entry in sizes))
"""


@pytest.fixture(scope="module")
def heavy(tiny_model):
    """Return a function that makes a model whose weights are much more than all else (60 MB and up)."""
    shape = {"n_embd": 1024, "n_vocab": 24000, "n_ff": 4096, "n_layer": 8, "tied": False}
    return lambda kind: tiny_model("dense", type=kind, **shape)


@pytest.mark.slow
@pytest.mark.parametrize("use_mmap", [True, False])
@pytest.mark.parametrize("weights", ["q8_0", "q4_0"])
def test_a_draft_context_shares_the_weights(run_python, heavy, weights, use_mmap):
    """Its increase is the KV cache of one layer and the work space; Q4_0 weights are repacked when they are loaded."""
    path = heavy(weights)
    printed = run_python(
        MEASURE
        + f"""
    model = nextn.Model({str(path)!r}, use_mmap={use_mmap})
    options = dict(n_ctx=512, n_batch=64, n_ubatch=64, n_threads=1)
    target = nextn.Context(model, **options)
    target.decode(list(range(64)))  # every weight of the trunk has been read
    # the head's own weights are read at its first use: once by a draft context that is freed again
    with nextn.Context(model, nextn_draft=True, **options) as first:
        first.decode([1], hidden=target.hidden()[:1])
    before, before_map = resident(), mapped()
    draft = nextn.Context(model, nextn_draft=True, **options)
    target.pair(draft)
    draft.decode(list(range(64)), hidden=target.hidden(), outputs="last")
    after, after_map = resident(), mapped()
    usage = draft.memory_usage()
    print(model.size, after - before, usage["context"] + usage["compute"], after_map - before_map, before)
"""
    )
    size, increase, own, mapped, before = map(int, printed.split())
    assert before > size > 60e6
    assert mapped == 0
    assert increase <= own + 5e6  # the rest: the engine's graphs and the rows of a decode
    assert increase < 0.15 * size


def test_memory_usage_names_the_same_weights(demo, make_context):
    target, draft = make_context(demo), make_context(demo, nextn_draft=True)
    assert target.memory_usage()["model"] == draft.memory_usage()["model"]
    assert set(target.memory_usage()) == {"model", "context", "compute"}
    assert draft.memory_usage()["context"] == 512 * 2 * (64 + 64) * 2  # one layer: heads, K and V, bytes


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/smaps")
def test_large_weights_ask_for_huge_pages(run_python, heavy):
    printed = run_python(
        f"""
    import pathlib
    model = nextn.Model({str(heavy("q8_0"))!r}, use_mmap=False)
    size = 0
    for line in pathlib.Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        size = int(rest.split()[0]) if name == "Size" else size
        if name == "VmFlags" and "hg" in rest.split() and size >= 32 << 10:
            print(size)
"""
    )
    assert printed.strip()


def test_contexts_give_their_memory_back(run_python):
    printed = run_python(
        MEASURE
        + """
    model = nextn.Model(DEMO)
    def use():
        target = nextn.Context(model, n_ctx=2048, n_rs_seq=4, n_threads=1)
        draft = nextn.Context(model, n_ctx=2048, nextn_draft=True, n_threads=1)
        target.pair(draft)
        target.decode([1, 2, 3])
        draft.decode([1, 2, 3], hidden=target.hidden_view())
    for _ in range(5):
        use()
    before = resident()
    for _ in range(40):
        use()
    print(resident() - before)
"""
    )
    assert int(printed) < 200e6  # forty pairs take 800 MB; malloc keeps some of what it is given


def test_models_give_their_memory_back(run_python):
    printed = run_python(
        MEASURE
        + """
    def use():
        model = nextn.Model(DEMO, use_mmap=False)
        nextn.Context(model, n_ctx=256, n_threads=1).decode([1])
        assert len(model.metadata) > 20
    for _ in range(5):
        use()
    before = resident()
    for _ in range(20):
        use()
    print(resident() - before)
"""
    )
    assert int(printed) < 60e6  # twenty models take 160 MB


def test_decodes_leak_nothing(run_python):
    printed = run_python(
        MEASURE
        + """
    context = nextn.Context(nextn.Model(DEMO), n_ctx=512, n_rs_seq=2, n_threads=1)
    def use():
        for _ in range(200):
            context.decode([1, 2, 3])
            context.logits(), context.hidden(), context.logits_view()
            context.nextn_seq_rm(0, -1, -1)
            try:
                context.decode([-1])
            except ValueError:
                pass
    use()
    before = resident()
    for _ in range(5):
        use()
    print(resident() - before)
"""
    )
    assert int(printed) < 8e6  # a thousand leaked copies of the logits are 37 MB
