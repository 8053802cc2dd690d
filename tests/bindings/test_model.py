"""What a loaded model tells: sizes, metadata, vocabulary."""

from __future__ import annotations

import gguf
import nextn
import pytest
from nextn import _core


def test_properties(demo, demo_path):
    reader = gguf.GGUFReader(demo_path)
    assert demo.path == str(demo_path)
    assert demo.architecture == "qwen35"
    assert demo.description == "qwen35 ?B Q8_0"
    assert (demo.n_layer, demo.n_layer_nextn, demo.n_embd, demo.n_vocab, demo.n_ctx_train) == (8, 1, 256, 3072, 2048)
    assert demo.n_params == sum(t.n_elements for t in reader.tensors)
    assert demo.size == sum(t.n_bytes for t in reader.tensors)
    assert demo.has_nextn_layer is True
    assert demo.is_nextn_only is False
    assert demo.chat_template == reader.get_field("tokenizer.chat_template").contents()
    assert repr(demo) == f"Model({str(demo_path)!r})"


def test_metadata_has_every_key_with_its_type(demo, demo_path):
    fields = gguf.GGUFReader(demo_path).fields
    wanted = {name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")}
    assert demo.metadata == wanted
    assert {k: type(v) for k, v in demo.metadata.items()} == {k: type(v) for k, v in wanted.items()}
    assert demo.metadata is demo.metadata


def test_metadata_of_all_types(tmp_path, tiny_model):
    path = tmp_path / "types.gguf"
    reader = gguf.GGUFReader(tiny_model("dense"))
    writer = gguf.GGUFWriter(path, "qwen35")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            writer.add_key_value(
                field.name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None
            )
    extra = {
        "x.u8": (255, "UINT8"), "x.i8": (-128, "INT8"), "x.u16": (65535, "UINT16"), "x.i16": (-(2**15), "INT16"),
        "x.u32": (2**32 - 1, "UINT32"), "x.i32": (-(2**31), "INT32"), "x.u64": (2**64 - 1, "UINT64"),
        "x.i64": (-(2**63), "INT64"), "x.f32": (0.5, "FLOAT32"), "x.f64": (1e300, "FLOAT64"), "x.bool": (True, "BOOL"),
        "x.str": ("Grüße", "STRING"),
    }  # fmt: skip
    for key, (value, kind) in extra.items():
        writer.add_key_value(key, value, gguf.GGUFValueType[kind])
    for name, values, kind in (("b", [True, False], "BOOL"), ("f", [0.5, -1.0], "FLOAT64"), ("s", ["", "é"], "STRING")):
        writer.add_key_value(f"x.a{name}", values, gguf.GGUFValueType.ARRAY, gguf.GGUFValueType[kind])
        extra[f"x.a{name}"] = (values, kind)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with nextn.Model(path) as model:
        for key, (value, _) in extra.items():
            assert model.metadata[key] == value
            assert type(model.metadata[key]) is type(value)


@pytest.mark.parametrize("text", ["", "Hello", " two  words\n", "Grüße 😀 日本", "3 + 4 = 7", "a" * 5000])
def test_text_survives_tokens(demo, text):
    tokens = demo.tokenize(text)
    assert all(type(token) is int and 0 <= token < demo.n_vocab for token in tokens)
    assert demo.detokenize(tokens) == text
    assert b"".join(demo.token_to_piece(token) for token in tokens).decode() == text


def test_control_tokens(demo):
    plain = demo.tokenize("<|im_end|>")
    assert len(plain) > 1
    assert demo.detokenize(plain) == "<|im_end|>"
    [token] = demo.tokenize("<|im_end|>", parse_special=True)
    assert token == demo.eos_token == 3071
    assert demo.is_eog(token)
    assert demo.eog_tokens == {3069, 3071}
    assert isinstance(demo.eog_tokens, frozenset)
    assert demo.bos_token == 3069
    assert demo.token_to_piece(token) == b"<|im_end|>"
    assert demo.token_to_piece(token, special=False) == b""
    assert demo.detokenize([token], unparse_special=False) == ""
    assert not demo.is_eog(plain[0])


def test_part_of_a_character(demo):
    tokens = demo.tokenize("€")
    assert len(tokens) > 1
    assert demo.detokenize(tokens[:1]) == "\N{REPLACEMENT CHARACTER}"
    assert demo.token_to_piece(tokens[0]) == "€".encode()[:1]


def test_null_character_in_text(demo):
    assert demo.detokenize(demo.tokenize("a\0b")) == "a\0b"


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m: m.tokenize(b"x"), TypeError, "text must be a string, not bytes"),
        (lambda m: m.tokenize("\ud800"), UnicodeEncodeError, "surrogates"),
        (lambda m: m.detokenize([0, 3072]), ValueError, r"tokens\[1\] must be an integer from 0 to 3071, not 3072"),
        (lambda m: m.detokenize([-1]), ValueError, r"tokens\[0\] must be an integer from 0 to 3071, not -1"),
        (lambda m: m.detokenize("12"), TypeError, "tokens must be a sequence of integers, not str"),
        (lambda m: m.detokenize(5), TypeError, "tokens must be a sequence of integers, not int"),
        (lambda m: m.token_to_piece(3072), ValueError, "token must be an integer from 0 to 3071, not 3072"),
        (lambda m: m.token_to_piece(2**80), ValueError, "token is 1208925819614629174706176, out of range"),
        (lambda m: m.is_eog(-1), ValueError, "token must be an integer from 0 to 3071, not -1"),
        (lambda m: m.is_eog("x"), TypeError, "token must be an integer, not str"),
        (lambda m: m.is_eog(1.0), TypeError, "token must be an integer, not float"),
    ],
)
def test_wrong_arguments(demo, call, error, text):
    with pytest.raises(error, match=text):
        call(demo)


def test_close(demo_path):
    with nextn.Model(demo_path) as model:
        assert not model.closed
    assert model.closed
    model.close()
    assert repr(model) == f"Model({str(demo_path)!r}, closed)"
    assert model.path == str(demo_path)
    for use in (lambda: model.n_embd, lambda: model.tokenize("x"), lambda: model.metadata, lambda: model.eog_tokens):
        with pytest.raises(nextn.ClosedError, match="the model is closed"):
            use()
    with pytest.raises(nextn.ClosedError, match="the model is closed"):
        nextn.Context(model)


class TestOtherFiles:
    def test_without_its_head(self, demo_path):
        with nextn.Model(demo_path, load_nextn=False) as model:
            assert not model.has_nextn_layer
            assert model.n_layer_nextn == 1
            assert model.n_layer == 8

    def test_trunk(self, tiny_model):
        with nextn.Model(tiny_model("dense", part="trunk")) as model:
            assert (model.has_nextn_layer, model.n_layer_nextn, model.is_nextn_only) == (False, 0, False)

    @pytest.mark.parametrize("kind", ["dense", "moe"])
    @pytest.mark.parametrize("part", ["head", "legacy-head"])
    def test_head_only(self, tiny_model, kind, part):
        with nextn.Model(tiny_model(kind, part=part)) as model:
            assert (model.has_nextn_layer, model.n_layer_nextn, model.is_nextn_only) == (True, 1, True)

    def test_no_chat_template(self, tiny_model):
        with nextn.Model(tiny_model("dense")) as model:
            template = model.metadata.get("tokenizer.chat_template")
            assert model.chat_template == template


def test_engine_info():
    info = _core.engine_info()
    assert info["stamp"] == _core.build_stamp()
    assert "CPU" in [backend["name"] for backend in info["backends"]]
    assert all(isinstance(value, str) for backend in info["backends"] for value in backend["features"].values())
    assert "cpu" in [device["type"] for device in info["devices"]]
    assert info["max_devices"] >= 1
    assert isinstance(info["supports_gpu_offload"], bool)
    assert info["system_info"].startswith("CPU")
