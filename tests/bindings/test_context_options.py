"""Options of a context: what is wrong is named, and none of it ends the process."""

from __future__ import annotations

import itertools
import random

import nextn
import pytest
from nextn._threads import default_n_threads

CACHE_TYPES = ["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"n_ctx": -1}, ValueError, "n_ctx must be an integer from 0 to 2147483647, not -1"),
        ({"n_ctx": 2**31}, ValueError, "n_ctx must be an integer from 0 to 2147483647, not 2147483648"),
        ({"n_ctx": 2**31 - 1}, ValueError, "n_ctx must be an integer from 0 to 2147483392, not 2147483647"),
        ({"n_ctx": 2**70}, ValueError, "n_ctx must be an integer"),
        ({"n_ctx": "512"}, TypeError, "n_ctx must be an integer from 0 to 2147483647, not '512'"),
        ({"n_ctx": 512.0}, TypeError, "n_ctx must be an integer"),
        ({"n_batch": 0}, ValueError, "n_batch must be an integer from 1"),
        ({"n_ubatch": 0}, ValueError, "n_ubatch must be an integer from 1"),
        ({"n_seq_max": 0}, ValueError, "n_seq_max must be an integer from 1"),
        ({"n_seq_max": 257}, ValueError, "n_seq_max must be an integer from 1 to 256, not 257"),
        (
            {"n_seq_max": 65, "n_batch": 64},
            ValueError,
            "n_seq_max must be at most 64 with n_ctx=512 and n_batch=64, not 65",
        ),
        ({"n_threads": 0}, ValueError, "n_threads must be an integer from 1"),
        ({"n_threads": 513}, ValueError, "n_threads must be an integer from 1 to 512, not 513"),
        ({"n_threads_batch": 513}, ValueError, "n_threads_batch must be an integer from 1 to 512, not 513"),
        ({"type_k": "q8"}, ValueError, "type_k must be one of 'f32', 'f16', .*'iq4_nl', not 'q8'"),
        ({"type_v": "F16"}, ValueError, "type_v must be one of 'f32', 'f16', .*'iq4_nl', not 'F16'"),
        ({"type_k": 1}, TypeError, "type_k must be a string, not int"),
        ({"flash_attn": "on"}, ValueError, "flash_attn must be one of 'auto', True, False, not 'on'"),
        ({"flash_attn": 1}, TypeError, "flash_attn must be one of 'auto', True, False, not 1"),
        ({"n_rs_seq": -1}, ValueError, "n_rs_seq must be an integer from 0"),
        ({"n_rs_seq": 1025}, ValueError, "n_rs_seq must be an integer from 0 to 1024, not 1025"),
        (
            {"n_rs_seq": 4, "n_ubatch": 5},
            ValueError,
            "n_rs_seq must be at most 3 with n_ubatch=5 and n_batch=256, not 4",
        ),
        (
            {"n_rs_seq": 4, "n_batch": 5},
            ValueError,
            "n_rs_seq must be at most 3 with n_ubatch=64 and n_batch=5, not 4",
        ),
        ({"nextn_draft": 1}, TypeError, "nextn_draft must be True or False, not 1"),
        ({"offload_kqv": None}, TypeError, "offload_kqv must be True or False, not None"),
        ({"hidden_tap": "mid"}, ValueError, "hidden_tap must be one of 'auto', 'post', 'pre', not 'mid'"),
        ({"hidden_tap": None}, TypeError, "hidden_tap must be a string, not NoneType"),
        (
            {"type_v": "q8_0", "flash_attn": False},
            nextn.ContextCreateError,
            'type_v="q8_0" needs flash attention; leave flash_attn at "auto" or use "f16"',
        ),
        (
            {"n_ctx": 2**31 - 256},
            nextn.ContextCreateError,
            r"n_ctx=2147483392, .* need at least 2048.0 GiB, \d+\.\d GiB are available",
        ),
        ({"n_ctx": 10**8, "nextn_draft": True}, nextn.ContextCreateError, "need at least"),
        ({"n_seq_max": 256, "n_rs_seq": 1000, "n_ubatch": 2048, "n_batch": 2048}, nextn.ContextCreateError, "GiB"),
        (
            {"n_ctx": 10**6, "n_batch": 10**6, "n_ubatch": 10**6},
            nextn.ContextCreateError,
            "n_ubatch=1000000 needs .* GiB of work space.*a smaller n_ubatch needs less",
        ),
        ({"n_context": 3}, TypeError, "n_context"),
    ],
    ids=str,
)
def test_wrong_options(demo, make_context, options, error, text):
    with pytest.raises(error, match=text):
        make_context(demo, **options)


def test_wrong_model(demo_path):
    with pytest.raises(TypeError, match=r"model must be a nextn\.Model, not str"):
        nextn.Context(str(demo_path))


@pytest.mark.parametrize("kind", ["type_k", "type_v"])
def test_quantized_cache_of_an_odd_head(tiny_model, make_context, kind):
    with nextn.Model(tiny_model("odd")) as model:
        text = f'{kind}="q8_0" stores blocks of 32 values, which do not divide this model\'s heads of 36; use "f16"'
        with pytest.raises(nextn.ContextCreateError, match=text):
            make_context(model, **{kind: "q8_0"})
        make_context(model, **{kind: "bf16"}).decode([1, 2, 3])


class TestDraftContexts:
    def test_over_a_model_without_a_head(self, tiny_model, make_context):
        path = tiny_model("dense", part="trunk")
        with nextn.Model(path) as model, pytest.raises(nextn.NoNextnLayerError) as info:
            make_context(model, nextn_draft=True)
        assert str(info.value).startswith(f"{path}: the model has no NextN layer; nextn inspect FILE lists")

    def test_over_a_model_loaded_without_its_head(self, demo_path, make_context):
        with nextn.Model(demo_path, load_nextn=False) as model:
            with pytest.raises(nextn.NoNextnLayerError, match=r"was loaded without its NextN layer.*load_nextn=True"):
                make_context(model, nextn_draft=True)
            assert make_context(model).decode([1, 2]) == 2  # the process and the model are well

    @pytest.mark.parametrize("part", ["head", "legacy-head"])
    def test_target_over_a_head_only_file(self, tiny_model, make_context, part):
        with nextn.Model(tiny_model("dense", part=part)) as model:
            with pytest.raises(nextn.ContextCreateError, match=r"holds only the NextN layer.*nextn_draft=True"):
                make_context(model)
            assert make_context(model, nextn_draft=True).is_draft

    def test_has_no_snapshots(self, demo, make_context):
        assert make_context(demo, nextn_draft=True, n_rs_seq=4).n_rs_seq == 0


def test_snapshots_that_the_engine_does_not_have(tiny_model, make_context):
    """Upstream keeps none for qwen3next, and would say so by an n_rs_seq of 0."""
    with nextn.Model(tiny_model("next")) as model:
        with pytest.raises(nextn.ContextCreateError, match=r"keeps no snapshots .* of qwen3next; only n_rs_seq=0"):
            make_context(model, n_rs_seq=2)
        assert make_context(model).max_rollback() == 0


def test_properties(demo, make_context):
    sizes = {"n_ctx": 1000, "n_batch": 128, "n_ubatch": 32, "n_seq_max": 2, "n_rs_seq": 3}
    context = make_context(demo, **sizes, n_threads=1, n_threads_batch=2)
    assert (context.n_ctx, context.n_ctx_seq, context.n_batch, context.n_ubatch) == (1024, 512, 128, 32)
    assert (context.n_seq_max, context.n_rs_seq, context.n_threads, context.n_threads_batch) == (2, 3, 1, 2)
    assert (context.is_draft, context.hidden_tap, context.closed) == (False, "post", False)
    assert context.model is demo
    assert repr(context) == "Context(n_ctx=1024, target)"
    assert make_context(demo, n_ctx=0).n_ctx == demo.n_ctx_train
    assert make_context(demo, n_threads=2).n_threads_batch == 2
    assert make_context(demo, n_threads=None).n_threads == default_n_threads()


def test_hidden_tap(demo, make_context):
    context = make_context(demo, hidden_tap="pre")
    assert context.hidden_tap == "pre"
    context.set_hidden_tap("post")
    assert context.hidden_tap == "post"
    with pytest.raises(ValueError, match="hidden_tap must be one of 'auto', 'post', 'pre', not 'x'"):
        context.set_hidden_tap("x")


@pytest.mark.parametrize("type_k", CACHE_TYPES)
@pytest.mark.parametrize("nextn_draft", [False, True])
def test_cache_types(demo, make_context, tokens, type_k, nextn_draft):
    import numpy as np

    context = make_context(demo, type_k=type_k, type_v=type_k, nextn_draft=nextn_draft)
    hidden = np.zeros((len(tokens), demo.n_embd), np.float32) if nextn_draft else None
    assert context.decode(tokens, hidden=hidden, outputs="last") == 1
    assert np.isfinite(context.logits()).all()


def test_memory_estimate_is_what_the_engine_takes(demo, make_context):
    """The refusal is a lower bound; on this architecture it is exact."""
    used = make_context(demo, n_ctx=1024, n_seq_max=2, n_rs_seq=3).memory_usage()["context"]
    huge = {"n_seq_max": 256, "n_rs_seq": 1000, "n_ubatch": 2048, "n_batch": 2048, "n_ctx": 256 * 256}
    with pytest.raises(nextn.ContextCreateError) as info:
        make_context(demo, **huge)
    kv_token = 2 * 2 * (64 + 64) * 2  # layers, heads, K and V, bytes
    recurrent = 6 * (3 * (256 + 2 * 4 * 64) + 64 * 256) * 4
    assert used == 1024 * kv_token + 2 * (1 + 3) * recurrent
    wanted = 256 * 256 * kv_token + 256 * 1001 * recurrent + 2048 * demo.n_embd * 4
    assert f"need at least {wanted / 2**30:.1f} GiB" in str(info.value)


def test_random_options_never_end_the_process(run_python, tiny_model):
    """Every mix of sizes gives a context that decodes, or one of our errors."""
    rng = random.Random(0)
    sizes = [1, 2, 3, 5, 8, 17, 64, 255, 256, 300, 1000]
    names = ["n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq"]
    cases = [
        {**{name: rng.choice(sizes) for name in rng.sample(names, 4)}, "nextn_draft": draft}
        for _, draft in itertools.product(range(30), (False, True))
    ]
    paths = [str(tiny_model(kind)) for kind in ("dense", "moe", "next", "odd")]
    printed = run_python(f"""
        made = refused = 0
        for path in {paths!r}:
            model = nextn.Model(path)
            for options in {cases!r}:
                try:
                    context = nextn.Context(model, n_threads=1, **options)
                except (ValueError, nextn.ContextCreateError) as e:
                    refused += 1
                    continue
                made += 1
                for seq_id in range(0, context.n_seq_max, 7):
                    n = min(5, context.n_batch)
                    hidden = np.zeros((n, model.n_embd), np.float32) if context.is_draft else None
                    for _ in range(3):
                        context.decode(list(range(n)), seq_id=seq_id, hidden=hidden)
                context.close()
        print(made, refused)
    """)
    made, refused = map(int, printed.split())
    assert made > 100
    assert refused > 20


def test_default_threads():
    assert 1 <= default_n_threads() <= 512
