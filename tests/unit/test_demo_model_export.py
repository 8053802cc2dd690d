"""The GGUF export of the demo model: the shipped file's weights give the shipped file again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from demo_model.config import Config
from demo_model.corpus.phrases import DATA
from demo_model.export_gguf import TYPES, export, tensor_names
from nextn.bundled import bundled_model
from numpy.typing import NDArray

CFG = Config()
TOKENIZER = DATA / "tokenizer.json"
Weights = dict[str, NDArray[np.float32]]


def metadata(reader: gguf.GGUFReader) -> dict[str, tuple[list[gguf.GGUFValueType], Any]]:
    return {name: (field.types, field.contents()) for name, field in reader.fields.items()}


@pytest.fixture(scope="module")
def shipped() -> gguf.GGUFReader:
    return gguf.GGUFReader(bundled_model())


@pytest.fixture(scope="module")
def weights(shipped: gguf.GGUFReader) -> Weights:
    """The shipped model's weights under the names of the PyTorch model, as a checkpoint has them."""
    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in shipped.tensors}
    names = tensor_names(CFG)
    return {
        ours: np.log(-tensors[theirs]) if ours.endswith("a_log") else tensors[theirs] for ours, theirs in names.items()
    }


@pytest.fixture(scope="module")
def again(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> gguf.GGUFReader:
    out = tmp_path_factory.mktemp("export") / "again.gguf"
    export(out, CFG, weights, TOKENIZER, weight_type="q8_0")
    return gguf.GGUFReader(out)


def test_metadata_and_tokenizer_are_the_shipped_ones(shipped: gguf.GGUFReader, again: gguf.GGUFReader) -> None:
    assert metadata(again) == metadata(shipped)
    assert list(again.fields) == list(shipped.fields)


def test_tensors_are_the_shipped_ones(shipped: gguf.GGUFReader, again: gguf.GGUFReader) -> None:
    assert [t.name for t in again.tensors] == [t.name for t in shipped.tensors]
    for ours, theirs in zip(again.tensors, shipped.tensors, strict=True):
        assert ours.tensor_type == theirs.tensor_type, ours.name
        assert ours.shape.tolist() == theirs.shape.tolist(), ours.name
        assert ours.data_offset == theirs.data_offset, ours.name
        if ours.name.endswith("ssm_a"):  # stored as a logarithm in the checkpoint
            np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-6)
        else:
            assert ours.data.tobytes() == theirs.data.tobytes(), ours.name


def test_every_tensor_of_the_file_has_a_name_in_the_model(shipped: gguf.GGUFReader) -> None:
    assert sorted(tensor_names(CFG).values()) == sorted(t.name for t in shipped.tensors)


@pytest.mark.parametrize("weight_type", TYPES)
def test_random_weights_give_the_same_structure(
    weight_type: str, weights: Weights, shipped: gguf.GGUFReader, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    random_weights = {name: rng.standard_normal(w.shape).astype(np.float32) for name, w in weights.items()}
    out = tmp_path / "random.gguf"
    export(out, CFG, random_weights, TOKENIZER, weight_type=weight_type)
    reader = gguf.GGUFReader(out)
    different = {k for k, v in metadata(reader).items() if v != metadata(shipped)[k]}
    assert different == (set() if weight_type == "q8_0" else {"general.file_type"})
    kind, _ = TYPES[weight_type]
    tensors = {t.name: t for t in reader.tensors}
    for theirs in shipped.tensors:
        quantized = theirs.tensor_type == gguf.GGMLQuantizationType.Q8_0
        assert tensors[theirs.name].tensor_type == (kind if quantized else gguf.GGMLQuantizationType.F32)
        assert tensors[theirs.name].shape.tolist() == theirs.shape.tolist()
    names = tensor_names(CFG)
    embedding = gguf.quants.dequantize(tensors[names["embed.weight"]].data, kind)
    np.testing.assert_allclose(embedding, random_weights["embed.weight"], atol=0.02)
    np.testing.assert_allclose(tensors["blk.0.ssm_a"].data, -np.exp(random_weights["layers.0.attn.a_log"]), rtol=1e-6)


def test_missing_weights_are_refused(weights: Weights, tmp_path: Path) -> None:
    few = {k: v for k, v in weights.items() if k != "nextn.eh_proj.weight"}
    with pytest.raises(ValueError, match=r"not the weights of this model: \['nextn\.eh_proj\.weight'\]"):
        export(tmp_path / "out.gguf", CFG, few, TOKENIZER, weight_type="f16")


def test_a_tokenizer_of_another_size_is_refused(weights: Weights, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 3072 tokens, the model has 3000"):
        export(tmp_path / "out.gguf", Config(vocab_size=3000), weights, TOKENIZER, weight_type="f16")
