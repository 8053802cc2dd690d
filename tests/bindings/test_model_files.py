"""Files that are no model, or not all of one: the error's class, the path in its text, and what to do."""

from __future__ import annotations

import os
import re
import shutil
import struct

import gguf
import nextn
import numpy as np
import pytest


def refused(path, error=nextn.ModelFileError):
    """The text of the error that loading raises; its path must be in it."""
    with pytest.raises(error) as info:
        nextn.Model(path)
    assert type(info.value) is error
    assert re.match(rf"{re.escape(str(path))}(: | is )", str(info.value))
    return str(info.value)


def write_gguf(path, architecture="qwen35", keys=(), tensors=True):
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in keys:
        writer.add_uint32(key, value)
    if tensors:
        writer.add_tensor("token_embd.weight", np.zeros((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_missing_file(tmp_path):
    assert refused(tmp_path / "none.gguf").endswith("no such file")


def test_missing_directory(tmp_path):
    assert refused(tmp_path / "none" / "none.gguf").endswith("no such file")


def test_directory(tmp_path):
    assert refused(tmp_path).endswith("is a directory; give the .gguf file in it")


def test_fifo_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert refused(tmp_path / "pipe").endswith("is not a regular file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path):
    path = tmp_path / "secret.gguf"
    path.write_bytes(b"GGUF")
    path.chmod(0)
    assert refused(path).endswith("Permission denied")


def test_empty_file(tmp_path):
    (tmp_path / "empty.gguf").touch()
    assert refused(tmp_path / "empty.gguf").endswith("is empty")


@pytest.mark.parametrize("content", [b"GG", b"PK\x03\x04 a zip archive", b"<!DOCTYPE html>"])
def test_not_a_gguf_file(tmp_path, content):
    (tmp_path / "x.gguf").write_bytes(content)
    assert refused(tmp_path / "x.gguf").endswith("is not a GGUF file")


@pytest.mark.parametrize("size", [4, 5, 12, 23, 24, 100, 1000, 30_000])
def test_truncated_metadata(demo_path, tmp_path, size):
    path = tmp_path / "cut.gguf"
    path.write_bytes(demo_path.read_bytes()[:size])
    assert "is damaged at byte" in refused(path)


@pytest.mark.parametrize("missing", [1, 1000, 3_000_000])
def test_truncated_tensors(demo_path, tmp_path, missing):
    data = demo_path.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(data[:-missing])
    assert re.search(
        rf"its data ends at byte [\d,]+, but the file has {len(data) - missing:,}: .*truncat", refused(path)
    )


def test_bad_version(demo_path, tmp_path):
    path = tmp_path / "future.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 99) + demo_path.read_bytes()[8:])
    assert "version" in refused(path)


def test_unknown_architecture(tmp_path):
    path = write_gguf(tmp_path / "new.gguf", "brand_new")
    text = refused(path, nextn.UnsupportedArchitectureError)
    assert text.endswith("unknown model architecture: 'brand_new'; this version of the engine cannot run it")


def test_no_architecture(tmp_path):
    path = tmp_path / "none.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + b"\0" * 8)
    assert refused(path).endswith("is no model: it has no general.architecture")


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ([("qwen35.block_count", 0)], "qwen35.block_count is 0; the engine takes 1 to 512"),
        ([("qwen35.block_count", 10**6)], "qwen35.block_count is 1000000; the engine takes 1 to 512"),
        (
            [("qwen35.block_count", 2), ("qwen35.nextn_predict_layers", 3)],
            "qwen35.nextn_predict_layers is 3 of 2 blocks: no trunk layer is left",
        ),
        ([], "metadata 'qwen35.block_count' is missing: the engine needs it"),
    ],
)
def test_counts_that_the_engine_asserts_on(tmp_path, keys, text):
    assert text in refused(write_gguf(tmp_path / "counts.gguf", keys=keys))


def test_missing_tensor(tmp_path, tiny_model):
    reader = gguf.GGUFReader(tiny_model("dense"))
    path = tmp_path / "hole.gguf"
    writer = gguf.GGUFWriter(path, "qwen35")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            kind = field.types[0]
            writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        if tensor.name != "blk.1.ffn_up.weight":
            writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "blk.1.ffn_up.weight" in refused(path)


class TestParts:
    @pytest.fixture
    def parts(self, tmp_path, tiny_model):
        """A model in three parts: every third of the tensors in its own file."""
        reader = gguf.GGUFReader(tiny_model("dense"))
        paths = [tmp_path / f"model-{i + 1:05d}-of-00003.gguf" for i in range(3)]
        for i, path in enumerate(paths):
            writer = gguf.GGUFWriter(path, "qwen35")
            for field in reader.fields.values():
                if i == 0 and not field.name.startswith("GGUF.") and field.name != "general.architecture":
                    kind = field.types[0]
                    sub = field.types[-1] if len(field.types) > 1 else None
                    writer.add_key_value(field.name, field.contents(), kind, sub)
            writer.add_uint16("split.no", i)
            writer.add_uint16("split.count", 3)
            writer.add_int32("split.tensors.count", len(reader.tensors))
            for tensor in reader.tensors[i::3]:
                writer.add_tensor(tensor.name, tensor.data)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
            writer.close()
        return paths

    def test_all_parts_load(self, parts, tiny_model):
        with nextn.Model(parts[0]) as model, nextn.Model(tiny_model("dense")) as whole:
            assert model.n_params == whole.n_params
            assert model.has_nextn_layer

    def test_missing_part(self, parts):
        parts[1].unlink()
        assert refused(parts[0]).endswith(f"part 2 of 3 is missing: {parts[1]}; put all parts into one directory")

    def test_another_part_than_the_first(self, parts):
        assert refused(parts[2]).endswith(f"is part 3 of 3; give the first part: {parts[0]}")

    def test_renamed_part(self, parts, tmp_path):
        path = shutil.copy(parts[0], tmp_path / "renamed.gguf")
        assert "not named like it" in refused(path)
        assert refused(path).endswith("NAME-00001-of-00003.gguf")

    def test_truncated_part(self, parts):
        parts[2].write_bytes(parts[2].read_bytes()[:-8])
        with pytest.raises(nextn.ModelFileError, match=re.escape(f"{parts[2]} is damaged at byte")):
            nextn.Model(parts[0])


def test_path_that_is_not_utf8(demo_path, tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.gguf"
    shutil.copy(demo_path, path)
    with nextn.Model(path) as model:
        assert os.fsencode(model.path) == path
    with pytest.raises(nextn.ModelFileError) as info:
        nextn.Model(path + b"x")
    assert os.fsencode(str(info.value)).startswith(path)


@pytest.mark.parametrize(
    ("path", "error", "text"),
    [
        ("", ValueError, "path is empty"),
        ("a\0b", ValueError, "path holds a null character"),
        (7, TypeError, "path must be a path .*, not 7"),
        (None, TypeError, "path must be a path .*, not None"),
    ],
)
def test_wrong_paths(path, error, text):
    with pytest.raises(error, match=text):
        nextn.Model(path)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"n_gpu_layers": -2}, ValueError, "n_gpu_layers must be an integer from -1 to 2147483647, not -2"),
        ({"n_gpu_layers": "all"}, TypeError, "n_gpu_layers must be an integer"),
        ({"use_mmap": 1}, TypeError, "use_mmap must be True or False, not 1"),
        ({"load_nextn": None}, TypeError, "load_nextn must be True or False, not None"),
        ({"progress": 3}, TypeError, "progress must be callable or None, not 3"),
        ({"n_gpu_layer": 3}, TypeError, "n_gpu_layer"),
    ],
)
def test_wrong_options(demo_path, options, error, text):
    with pytest.raises(error, match=text):
        nextn.Model(demo_path, **options)


class TestProgress:
    def test_is_called_from_0_to_1(self, demo_path):
        shares = []
        with nextn.Model(demo_path, progress=shares.append):
            assert shares == sorted(shares)
            assert len(shares) > 2
            assert 0 <= shares[0] < 0.5
            assert shares[-1] == 1

    def test_false_cancels(self, demo_path):
        with pytest.raises(nextn.ModelFileError, match="loading was cancelled"):
            nextn.Model(demo_path, progress=lambda share: share < 0.5)

    @pytest.mark.parametrize("answer", [None, True, 0, ""])
    def test_only_false_cancels(self, demo_path, answer):
        nextn.Model(demo_path, progress=lambda share: answer).close()

    def test_exception_cancels_and_is_passed_on(self, demo_path):
        class StopItError(Exception):
            pass

        def progress(share):
            raise StopItError(share)

        with pytest.raises(StopItError):
            nextn.Model(demo_path, progress=progress)

    def test_other_threads_run_meanwhile(self, demo_path, run_python):
        run_python("""
            ran = threading.Event()
            def wait(share):
                threading.Thread(target=ran.set).start()
                assert ran.wait(10)
            nextn.Model(DEMO, progress=wait)
        """)


@pytest.mark.parametrize("options", [{"use_mmap": False}, {"use_mlock": True}, {"check_tensors": True}])
def test_load_options(demo_path, options):
    with nextn.Model(demo_path, **options) as model:
        assert model.has_nextn_layer


def test_invalid_tensor_is_found_when_asked(tmp_path, tiny_model):
    data = bytearray(tiny_model("dense").read_bytes())
    data[-64:] = np.full(16, np.nan, np.float32).tobytes()
    path = tmp_path / "nan.gguf"
    path.write_bytes(data)
    nextn.Model(path).close()
    with pytest.raises(nextn.ModelFileError, match="invalid data"):
        nextn.Model(path, check_tensors=True)
