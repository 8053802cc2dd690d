"""nextn.gguf.inspect: what is said about sound files, files with a damaged or missing head, parts, and other models."""

from pathlib import Path

import pytest
from gguf_bytes import F32, Q8_0, build, model, number, strings, tensor, text
from nextn.errors import ModelFileError
from nextn.gguf import format_inspection, inspect
from nextn.gguf.heads import check_head

DEMO_MODEL = Path(__file__).parents[2] / "python" / "nextn" / "models" / "nextn-demo-q8_0.gguf"

ATTENTION = (
    "attn_norm",
    "attn_q",
    "attn_k",
    "attn_v",
    "attn_q_norm",
    "attn_k_norm",
    "attn_output",
    "post_attention_norm",
)
DENSE = ("ffn_gate", "ffn_up", "ffn_down")
EXPERTS = (
    *("ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"),
    *("ffn_gate_inp_shexp", "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp"),
)
NEXTN = ("nextn.eh_proj", "nextn.enorm", "nextn.hnorm")


def names(block, *groups):
    return [f"blk.{block}.{name}.weight" for group in groups for name in group]


def keys(architecture="qwen35", blocks=2, nextn=1, **more):
    entries = [text("general.architecture", architecture), number(f"{architecture}.block_count", blocks)]
    if nextn is not None:
        entries.append(number(f"{architecture}.nextn_predict_layers", nextn))
    return entries + [number(f"{architecture}.{key}", value) for key, value in more.items()]


def shapes(tensor_names, kind=F32):
    return [(name, (32,), kind) for name in tensor_names]


TRUNK = ["token_embd.weight", "output_norm.weight", *names(0, ATTENTION, DENSE)]


@pytest.fixture
def write(tmp_path):
    def write(data, name="m.gguf"):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def test_the_bundled_model():
    found = inspect(DEMO_MODEL)
    assert (found.architecture, found.kind, found.name, found.file_type) == ("qwen35", "model", "nextn demo", "Q8_0")
    assert (found.n_layer, found.n_layer_nextn, found.n_layer_attention, found.n_layer_recurrent) == (8, 1, 2, 6)
    assert (found.n_params, found.n_embd, found.n_ctx_train, found.n_expert) == (7_246_128, 256, 2048, 0)
    assert found.size == DEMO_MODEL.stat().st_size
    tokenizer = found.tokenizer
    assert (tokenizer.model, tokenizer.pre, tokenizer.n_tokens) == ("gpt2", "qwen35", 3072)
    assert tokenizer.chat_template
    head = found.head
    assert (head.state, head.problem, head.missing, head.block) == ("complete", None, (), 8)
    assert (head.output_tensor, head.output_type, next(iter(head.types))) == ("token_embd.weight", "Q8_0", "Q8_0")
    assert [part.name for part in found.parts] == [
        *("embedding", "attention", "delta net", "feed-forward", "NextN head", "output")
    ]
    assert sum(part.n_params for part in found.parts) == found.n_params
    assert sum(part.n_tensors for part in found.parts) == 123
    assert all(sum(part.types.values()) == part.size for part in found.parts)


def test_the_report_of_the_bundled_model():
    report = format_inspection(inspect(DEMO_MODEL)).splitlines()
    assert "7.91 MB (7,910,688 bytes), GGUF 3" in report[0]
    assert "  parameters      7.25 M (7,246,128)" in report
    assert "  layers          8 in the trunk (2 attention, 6 delta net), 1 NextN" in report
    assert "  tokenizer       3,072 tokens (gpt2, qwen35)" in report
    assert "  chat template   yes" in report
    head = "complete: block 8, 788 k parameters, mostly Q8_0; logits through token_embd.weight (Q8_0)"
    assert f"  draft head      {head}" in report
    assert "  NextN head          15        788 k    841 kB  Q8_0 99 %, F32 1 %" in report
    assert "  feed-forward        32       3.15 M   3.35 MB  Q8_0 100 %, F32 <1 %" in report


@pytest.mark.parametrize(("kind", "architecture"), [("dense", "qwen35"), ("moe", "qwen35moe"), ("next", "qwen3next")])
def test_random_models_of_every_architecture(tiny_model, kind, architecture):
    found = inspect(tiny_model(kind, type="q8_0"))
    assert (found.architecture, found.kind, found.head.state) == (architecture, "model", "complete")
    assert found.n_layer_attention + found.n_layer_recurrent == found.n_layer
    assert (found.n_expert > 0) == (kind != "dense")
    assert ("experts" in [part.name for part in found.parts]) == (kind != "dense")
    assert "other" not in [part.name for part in found.parts]


def test_a_trunk_alone_and_head_files_of_both_forms(tiny_model):
    full = inspect(tiny_model("dense"))
    trunk = inspect(tiny_model("dense", part="trunk"))
    assert (trunk.kind, trunk.head.state in ("none", "missing")) == ("model", True)
    assert (trunk.head.block, trunk.head.n_params, trunk.head.output_tensor) == (None, 0, None)
    for part, architecture in (("head", "qwen35"), ("legacy-head", "qwen35_mtp")):
        found = inspect(tiny_model("dense", part=part))
        assert (found.kind, found.architecture, found.head.state) == ("draft head", architecture, "complete")
        assert (found.n_layer, found.head.n_params) == (full.n_layer, full.head.n_params)
        report = format_inspection(found)
        assert f"{architecture}, draft head only" in report
        assert f"the NextN layer of a model with {full.n_layer}" in report


HEAD = {"qwen35": names(1, ATTENTION, DENSE, NEXTN), "qwen35moe": names(1, ATTENTION, EXPERTS, NEXTN)}


@pytest.mark.parametrize("architecture", HEAD)
def test_each_tensor_of_the_head_is_needed(write, architecture):
    whole = HEAD[architecture]
    assert inspect(write(model(keys(architecture), shapes(TRUNK + whole)))).head.state == "complete"
    for lost in whole:
        head = inspect(write(model(keys(architecture), shapes(TRUNK + [n for n in whole if n != lost])))).head
        assert (head.state, head.missing, head.problem) == ("incomplete", (lost,), f"missing: {lost}")


def test_fused_matrices_and_own_output_matrix(write):
    fused = [name for name in HEAD["qwen35"] if not name.endswith(("attn_q.weight", "attn_k.weight", "attn_v.weight"))]
    own = names(1, ["attn_qkv", "nextn.shared_head_head", "nextn.shared_head_norm"])
    head = inspect(write(model(keys(), shapes(TRUNK + fused) + shapes(own, Q8_0)))).head
    assert head.state == "complete"
    assert (head.output_tensor, head.output_type) == ("blk.1.nextn.shared_head_head.weight", "Q8_0")
    assert (
        check_head("qwen35moe", 1, 1, [n.replace("_gate_exps", "_gate_up_exps") for n in HEAD["qwen35moe"]]).missing
        == ()
    )


@pytest.mark.parametrize(
    ("entries", "tensors", "state", "problem"),
    [
        (keys(nextn=None), TRUNK, "none", None),
        (keys(nextn=0), TRUNK, "none", None),
        (keys(), TRUNK, "missing", "a NextN layer is declared, but block 1 has no tensor (lost in conversion or quan"),
        (keys(nextn=None), TRUNK + HEAD["qwen35"], "undeclared", "qwen35.nextn_predict_layers does not declare the"),
        (keys(blocks=3, nextn=2), TRUNK + HEAD["qwen35"], "unsupported", "2 NextN layers are declared, only one is"),
        (keys("glm4moe"), TRUNK + HEAD["qwen35"], "unsupported", "nextn does not run the draft head of glm4moe, only"),
        (keys("llama", 1, None), TRUNK, "none", None),
    ],
)
def test_state_of_the_head(write, entries, tensors, state, problem):
    found = inspect(write(model(entries, shapes(tensors))))
    assert found.head.state == state
    assert (found.head.problem or "").startswith(problem or "")
    report = format_inspection(found)
    assert ("none (plain decoding only)" if state == "none" else f"{state}: {problem[:30]}") in report


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "is no model: it has no general.architecture"),
        ([number("general.architecture", 1)], "metadata 'general.architecture' must be a text, not 1"),
        (
            [text("general.architecture", "a"), text("a.block_count", "2")],
            "'a.block_count' must be a whole number, not '2'",
        ),
        (
            [text("general.architecture", "a"), strings("general.name", [])],
            "'general.name' must be a text, not an array",
        ),
        (keys(blocks=1, nextn=1), "qwen35.nextn_predict_layers is 1 of 1 blocks: no trunk layer is left"),
        (keys(blocks=0, nextn=2**31), "is 2,147,483,648 of 0 blocks"),
    ],
)
def test_metadata_that_make_no_sense(write, entries, message):
    with pytest.raises(ModelFileError) as caught:
        inspect(write(model(entries, shapes(TRUNK))))
    assert message in str(caught.value)


def test_huge_block_counts_cost_nothing(write):
    found = inspect(write(model(keys(blocks=2**32 - 1, nextn=1), shapes([*TRUNK, "blk.999999999.attn_q.weight"]))))
    assert found.head.state == "missing"
    assert found.n_layer == 2**32 - 2


def test_a_file_that_says_little(write):
    found = inspect(write(build([text("general.architecture", "x")])))
    assert (found.n_layer, found.n_embd, found.n_params, found.tokenizer.n_tokens) == (None, None, 0, None)
    assert "not given" in format_inspection(found)


def test_names_from_the_file_cannot_drive_the_terminal(write):
    entries = [text("general.architecture", "\x1b[31mx\n"), text("general.name", "a" * 500)]
    report = format_inspection(inspect(write(build(entries, [tensor("blk.0.\x1b[2J", (1,))], n_data=4))))
    assert report.replace("\n", "").isprintable()
    assert max(map(len, report.splitlines()[1:])) < 120


def test_a_model_in_parts(write):
    first = [*keys(), number("split.count", 2)]
    write(model(first, shapes(TRUNK)), "m-00001-of-00002.gguf")
    second = write(model([number("split.count", 2)], shapes(HEAD["qwen35"])), "m-00002-of-00002.gguf")
    found = inspect(second)  # any part will do
    assert found.head.state == "complete"
    assert [Path(name).name for name in found.files] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert "and 1 more" in format_inspection(found)
    second.unlink()
    with pytest.raises(ModelFileError, match=r"part 2 of 2 is missing: .*m-00002-of-00002\.gguf;"):
        inspect(second.with_name("m-00001-of-00002.gguf"))
    with pytest.raises(
        ModelFileError, match=r"one of 2 files of a model, but not named like it; .*NAME-00001-of-00002\.gguf"
    ):
        inspect(write(model(first, shapes(TRUNK)), "other.gguf"))
    with pytest.raises(ModelFileError, match="one of 2 files of a model, but not named"):
        inspect(write(model(first, shapes(TRUNK)), "m-00001-of-00003.gguf"))
    with pytest.raises(ModelFileError, match="one of 99,999 files of a model"):
        inspect(write(model([*keys(), number("split.count", 99999)], shapes(TRUNK)), "m-00001-of-99999.gguf"))
