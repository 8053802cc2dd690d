"""The header reader: right on sound files; ModelFileError and nothing else on others; bounded time and memory."""

import os
import random
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from gguf_bytes import F32, Q8_0, array, build, entry, model, number, string, strings, tensor, text, u32, u64
from nextn.errors import ModelFileError
from nextn.gguf import MetadataArray, ValueType, cursor, read_array, read_header

DEMO_MODEL = Path(__file__).parents[2] / "python" / "nextn" / "models" / "nextn-demo-q8_0.gguf"

ALL_KINDS = [
    entry("k.u8", ValueType.UINT8, b"\xff"),
    entry("k.i8", ValueType.INT8, b"\xff"),
    entry("k.u16", ValueType.UINT16, b"\xff\xff"),
    entry("k.i16", ValueType.INT16, b"\xff\xff"),
    entry("k.u32", ValueType.UINT32, u32(2**32 - 1)),
    entry("k.i32", ValueType.INT32, u32(2**32 - 1)),
    entry("k.f32", ValueType.FLOAT32, np.float32(0.5).tobytes()),
    entry("k.bool", ValueType.BOOL, b"\x01"),
    entry("k.str", ValueType.STRING, string("grüße")),
    entry("k.u64", ValueType.UINT64, u64(2**64 - 1)),
    entry("k.i64", ValueType.INT64, u64(2**64 - 1)),
    entry("k.f64", ValueType.FLOAT64, np.float64(0.25).tobytes()),
    array("k.ints", ValueType.INT32, 3, np.array([1, -2, 3], "<i4").tobytes()),
    array("k.bools", ValueType.BOOL, 2, b"\x01\x00"),
    strings("k.strings", ["a", "", "ÿ"]),
    array("k.none", ValueType.FLOAT32, 0, b""),
]

SMALL = model(
    [text("general.architecture", "qwen35"), number("qwen35.block_count", 2), strings("tokens", ["a", "bc", ""])],
    [("token_embd.weight", (32, 3), Q8_0), ("output_norm.weight", (32,), F32)],
)


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "m.gguf"
        path.write_bytes(data)
        return path

    return write


def test_every_kind_of_value(write):
    header = read_header(write(build(ALL_KINDS)))
    values = {key: value for key, value in header.metadata.items() if not isinstance(value, MetadataArray)}
    assert values == {
        "k.u8": 255,
        "k.i8": -1,
        "k.u16": 65535,
        "k.i16": -1,
        "k.u32": 2**32 - 1,
        "k.i32": -1,
        "k.f32": 0.5,
        "k.bool": True,
        "k.str": "grüße",
        "k.u64": 2**64 - 1,
        "k.i64": -1,
        "k.f64": 0.25,
    }
    assert values["k.bool"] is True
    assert list(read_array(header, "k.ints")) == [1, -2, 3]
    assert list(read_array(header, "k.bools")) == [True, False]
    assert read_array(header, "k.strings") == ["a", "", "ÿ"]
    assert len(read_array(header, "k.none")) == 0


def test_read_array_refuses_other_values(write):
    header = read_header(write(build(ALL_KINDS)))
    with pytest.raises(KeyError):
        read_array(header, "nothing")
    with pytest.raises(TypeError, match=r"k\.str holds one value, not an array"):
        read_array(header, "k.str")


def test_tensors(write):
    header = read_header(write(SMALL))
    first, second = header.tensors
    assert (first.name, first.shape, first.type.name, first.n_params) == ("token_embd.weight", (32, 3), "Q8_0", 96)
    assert (first.offset, first.size) == (header.data_offset, 102)
    assert (second.offset, second.size) == (header.data_offset + 128, 128)
    assert header.data_offset % header.alignment == 0
    assert (header.version, header.alignment, header.size) == (3, 32, len(SMALL))


def test_alignment_of_the_file(write):
    alignment = number("general.alignment", 256)
    data = build([alignment], [tensor("a", (1,)), tensor("b", (1,), offset=256)], n_data=512, alignment=256)
    header = read_header(write(data))
    assert [t.offset % 256 for t in header.tensors] == [0, 0]
    assert header.tensors[1].offset - header.tensors[0].offset == 256


def test_version_2_and_no_tensors_and_a_scalar(write):
    assert read_header(write(build([number("a", 1)], version=2))).version == 2
    assert read_header(write(build())).metadata == {}
    assert read_header(write(build([], [tensor("s", ())], n_data=4))).tensors[0].n_params == 1


def test_padding_after_the_last_tensor_may_be_absent(write):
    data = build([], [tensor("a", (1,))], n_data=4)
    assert read_header(write(data)).tensors[0].size == 4


def test_agrees_with_the_gguf_package_on_the_bundled_model():
    gguf = pytest.importorskip("gguf")
    theirs = gguf.GGUFReader(DEMO_MODEL)
    ours = read_header(DEMO_MODEL)
    for field in theirs.fields.values():
        if field.name.startswith("GGUF."):
            continue
        value = ours.metadata[field.name]
        if isinstance(value, MetadataArray):
            assert list(read_array(ours, field.name)) == field.contents(), field.name
        else:
            assert value == field.contents(), field.name
    assert len(ours.metadata) == len(theirs.fields) - 3
    rows = [(t.name, list(t.shape), t.type.name, t.offset, t.size) for t in ours.tensors]
    assert rows == [(t.name, list(t.shape), t.tensor_type.name, t.data_offset, int(t.n_bytes)) for t in theirs.tensors]


GOOD = tensor("a", (32,))
HUGE = 2**63 + 5

# Each kind of damage: the bytes, and what the message must say.
DAMAGED = {
    "empty": (b"", "is empty"),
    "one byte": (b"G", "is no GGUF file: it begins with 'G', not 'GGUF'"),
    "bad magic": (build(magic=b"GGML"), "begins with 'GGML', not 'GGUF'"),
    "control characters": (build(magic=b"\x1b[2J"), r"begins with '\x1b[2J'"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS pointer"),
    "web page": (b"<!DOCTYPE html><html>404</html>", "a web page"),
    "checkpoint": (b"PK\x03\x04" + bytes(50), "a PyTorch checkpoint; convert it to GGUF"),
    "byte-swapped magic": (build(magic=b"FUGG"), "big-endian"),
    "old format": (build(magic=b"tjgg"), "from before GGUF"),
    "only magic": (b"GGUF", "byte 4: version: needs 4 bytes, 0 bytes left"),
    "version 0": (build(version=0), "byte 4: version: 0 is not supported, only 2 and 3"),
    "version 1": (build(version=1), "byte 4: version: 1 is not supported"),
    "version 4": (build(version=4), "byte 4: version: 4 is not supported"),
    "big-endian": (build(version=0x03000000), "byte 4: version: is that of a big-endian file"),
    "no counts": (build()[:8], "byte 8: number of tensors: needs 8 bytes, 0 bytes left"),
    "tensors: too many": (build(n_tensors=HUGE), "byte 8: number of tensors: 9,223,372,036,854,775,813 do not fit"),
    "tensors: one too many": (
        build([], [GOOD], n_tensors=2, n_data=128),
        "name of tensor 1: is empty",
    ),
    "metadata: too many": (
        build(n_entries=2**64 - 1),
        "byte 16: number of metadata entries: 18,446,744,073,709,551,615",
    ),
    "metadata: one too many": (build([number("a", 1)], n_entries=2), "number of metadata entries: 2 do not fit"),
    "key: huge length": (build([u64(HUGE) + bytes(9)]), "byte 24: key of metadata entry 0: length 9,223,372,036,"),
    "key: too long": (build([string("k" * 65536) + u32(0) + b"\0"]), "length 65,536 is over the limit of 65,535 bytes"),
    "key: empty": (build([number("", 1)]), "byte 24: key of metadata entry 0: is empty"),
    "key: not UTF-8": (build([entry(b"\xff\xfe", 4, u32(1))]), "byte 32: key of metadata entry 0: is not UTF-8 text"),
    "key: twice": (build([number("a", 1), number("a", 2)]), "byte 41: metadata 'a': occurs twice"),
    "key: escaped in the message": (build([entry("\x1b[2J", 77, u32(1))]), r"metadata '\x1b[2J', kind of value: 77"),
    "key: shortened in the message": (build([entry("k" * 1000, 77, u32(1))]), "k...', kind of value: 77 is not a kind"),
    "kind: unknown": (build([entry("a", 13, u32(1))]), "byte 33: metadata 'a', kind of value: 13 is not a kind"),
    "kind: missing": (build([string("abcdef")]), "metadata 'abcdef', kind of value: needs 4 bytes, 0 bytes left"),
    "value: missing": (build([entry("abcde", 10, b"\0\0\0\0")]), "metadata 'abcde': needs 8 bytes, 4 bytes left"),
    "bool: neither": (build([entry("abc", ValueType.BOOL, b"\x02")]), "holds 2, which is neither true nor false"),
    "text: huge length": (build([entry("a", ValueType.STRING, u64(2**40))]), "metadata 'a': length 1,099,511,627,776"),
    "array: of arrays": (build([array("a", ValueType.ARRAY, 1, bytes(20))]), "arrays of arrays are not supported"),
    "array: kind unknown": (build([array("a", 99, 1, bytes(8))]), "metadata 'a', array elements, kind of value: 99"),
    "array: huge count": (build([array("a", ValueType.INT32, HUGE, bytes(8))]), "metadata 'a', array count: 9,223,372"),
    "array: wrapping count": (
        build([array("a", ValueType.INT64, 2**61, bytes(8))]),
        "metadata 'a', array count: 2,305,843,009,213,693,952 do not fit into the 8 bytes left",
    ),
    "array: strings end early": (
        build([array("a", ValueType.STRING, 2, string("x") + bytes(7))]),
        "metadata 'a', element 1: needs 8 bytes, 7 bytes left",
    ),
    "array: string of huge length": (
        build([array("a", ValueType.STRING, 2, string("x") + u64(2**62))]),
        "metadata 'a', element 1: length 4,611,686,018,427,387,904, but 0 bytes left",
    ),
    "alignment: 0": (build([number("general.alignment", 0)]), "'general.alignment': must be a power of two, not 0"),
    "alignment: 48": (build([number("general.alignment", 48)]), "must be a power of two, not 48"),
    "alignment: text": (build([text("general.alignment", "32")]), "must be a power of two, not '32'"),
    "alignment: array": (
        build([array("general.alignment", ValueType.INT8, 1, b"\x01")]),
        "must be a power of two, not an array",
    ),
    "name: too long": (build([], [tensor("n" * 64, (1,))], n_data=4), "length 64 is over the limit of 63 bytes"),
    "name: empty": (build([], [tensor("", (1,))], n_data=4), "byte 24: name of tensor 0: is empty"),
    "name: not UTF-8": (build([], [tensor(b"\xff", (1,))], n_data=4), "name of tensor 0: is not UTF-8 text"),
    "name: twice": (
        build([], [GOOD, tensor("a", (32,), offset=128)], n_data=256),
        "byte 57: tensor 'a': occurs twice",
    ),
    "shape: five dimensions": (build([], [tensor("a", (1,) * 5)], n_data=4), "5 dimensions, at most 4 are possible"),
    "shape: endless dimensions": (
        build([], [string("a") + u32(2**32 - 1) + bytes(99)]),
        "byte 33: tensor 'a': 4294967295 dimensions",
    ),
    "shape: nothing": (build([], [tensor("a", (4, 0))], n_data=4), "shape [4, 0] has no element"),
    "shape: overflow": (build([], [tensor("a", (2**32,) * 4)]), "has more elements than any file can hold"),
    "type: unknown": (build([], [tensor("a", (1,), 43)], n_data=4), "tensor 'a', type: 43 is not a known tensor type"),
    "type: negative": (build([], [tensor("a", (1,), 2**32 - 1)], n_data=4), "4294967295 is not a known tensor type"),
    "type: removed": (build([], [tensor("a", (1,), 31)], n_data=4), "type Q4_0_4_4 was removed from GGUF"),
    "type: half a block": (
        build([], [tensor("a", (33,), Q8_0)], n_data=99),
        "rows of 33 elements are not whole blocks",
    ),
    "offset: gap": (build([], [tensor("a", (1,), offset=64)], n_data=99), "data offset 64, expected 0"),
    "offset: overlap": (build([], [GOOD, tensor("b", (32,))], n_data=256), "tensor 'b': data offset 0, expected 128"),
    "offset: huge": (build([], [tensor("a", (1,), offset=HUGE)], n_data=4), "data offset 9,223,372,036,854,775,813"),
    "data: truncated": (
        build([], [GOOD], n_data=100),
        "byte 24: tensor 'a': its data ends at byte 192, but the file has 164: the file is truncated",
    ),
    "data: absent": (build([], [tensor("a", (2**40,))]), "the file is truncated (an unfinished download?)"),
    "tensor list: truncated": (build([], [GOOD + b"xx"], n_tensors=2)[:70], "number of tensors: 2 do not fit"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_named(write, name):
    data, message = DAMAGED[name]
    with pytest.raises(ModelFileError) as caught:
        read_header(write(data))
    shown = str(caught.value)
    assert message in shown
    assert shown.isprintable()
    assert "m.gguf" in shown
    assert len(shown) < 400


def test_every_prefix_of_a_small_file(write):
    """A download that stopped anywhere is refused; the last byte matters too."""
    for length in range(len(SMALL)):
        with pytest.raises(ModelFileError):
            read_header(write(SMALL[:length]))
    read_header(write(SMALL))


def test_every_prefix_of_a_file_with_all_kinds(write):
    data = build(ALL_KINDS)
    for length in range(len(data)):
        with pytest.raises(ModelFileError):
            read_header(write(data[:length]))


def mutate(rng, data):
    """One to four changes of the kinds that break parsers: bits, extreme numbers, bytes cut out or put in."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        change = rng.randrange(5)
        if change == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            data[at : at + 8] = rng.choice([2**64 - 1, 2**63, 2**32, 2**31 - 1, 0, 1, 255]).to_bytes(8, "little")
        elif change == 2:
            data[at] = rng.randrange(256)
        elif change == 3:
            del data[at : at + rng.randint(1, 16)]
        else:
            data[at:at] = rng.randbytes(rng.randint(1, 16))
        if not data:
            data = bytearray(b"\0")
    return bytes(data)


def test_random_mutations_give_a_header_or_a_model_file_error(write):
    rng = random.Random(2)
    sources = [SMALL, build(ALL_KINDS + [text("general.architecture", "x")], [GOOD], n_data=128)]
    outcomes = {"sound": 0, "refused": 0}
    tracemalloc.start()
    try:
        for i in range(2000):
            path = write(mutate(rng, sources[i % 2]))
            start = time.process_time()
            try:
                header = read_header(path)
                for key, value in header.metadata.items():
                    if isinstance(value, MetadataArray):
                        read_array(header, key)
                assert all(t.offset + t.size <= header.size for t in header.tensors)
                outcomes["sound"] += 1
            except ModelFileError as error:
                assert str(error).isprintable()
                outcomes["refused"] += 1
            assert time.process_time() - start < 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20
    assert min(outcomes.values()) > 100, outcomes


@pytest.mark.skipif(sys.platform == "win32", reason="needs sparse files")
@pytest.mark.parametrize(
    ("head", "message"),
    [
        (build([array("a", ValueType.FLOAT64, 2**26, b"")]), "the header is longer than 67,108,864 bytes"),
        (build([array("a", ValueType.FLOAT64, 2**30, b"")]), "1,073,741,824 is over the limit of 67,108,864"),
        (build([entry("a", ValueType.STRING, u64(2**30))]), "length 1,073,741,824 is over the limit of 4,194,304"),
        (build(n_tensors=2**30), "number of tensors: 1,073,741,824 is over the limit of 65,536"),
        (build(n_entries=2**30), "number of metadata entries: 1,073,741,824 is over the limit of 16,384"),
        (build([array("a", ValueType.STRING, 2**20, u64(2**25))]), "element 0: length 33,554,432 is over the limit"),
    ],
)
def test_counts_that_fit_into_a_large_file_are_bounded_too(write, head, message):
    path = write(head)
    os.truncate(path, 40 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(ModelFileError) as caught:
            read_header(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert message in str(caught.value)
    assert peak < 8 << 20


def test_endless_empty_strings_take_seconds_at_most(write):
    """The slowest header there is: zeros that read as empty strings, up to the limit of a header's length."""
    path = write(build([array(f"a{i}", ValueType.STRING, 2**21, bytes(2**24)) for i in range(5)]))
    start = time.process_time()
    with pytest.raises(ModelFileError, match="the header is longer than 67,108,864 bytes"):
        read_header(path)
    assert time.process_time() - start < 30  # 1.5 s of the processor, whatever else it does


def test_strings_across_windows(write, monkeypatch):
    """The walk over long arrays of strings reads in windows; entries that lie across two of them are not lost."""
    monkeypatch.setattr(cursor, "_WINDOW", 64)
    words = ["x" * (i % 97) for i in range(500)]
    header = read_header(write(build([strings("words", words), number("after", 7)])))
    assert header.metadata["after"] == 7
    assert read_array(header, "words") == words


def test_a_vocabulary_of_ordinary_size_is_fast(write):
    data = build([strings("tokens", ["token"] * 250_000), strings("merges", ["to ken"] * 250_000)])
    path = write(data)
    start = time.process_time()
    header = read_header(path)
    assert time.process_time() - start < 5  # it takes 0.1 s of the processor
    assert header.metadata["tokens"].count == 250_000


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(ModelFileError, match=r"nothing\.gguf does not exist"):
        read_header(tmp_path / "nothing.gguf")
    with pytest.raises(ModelFileError, match="is a directory"):
        read_header(tmp_path)
    with pytest.raises(ModelFileError, match="cannot be read: embedded null"):
        read_header("a\0b")
    with pytest.raises(ModelFileError, match="cannot be read: Not a directory"):
        (tmp_path / "file").write_bytes(b"")
        read_header(tmp_path / "file" / "m.gguf")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelFileError, match="is not a regular file"):
        read_header(tmp_path / "pipe")


def test_the_file_shrinks_while_it_is_read(write, monkeypatch):
    """The size is taken once; a file that is being written anew gives an error, not a short value."""
    path = write(SMALL)
    real = os.fstat

    class Longer:
        st_size = len(SMALL) + 4096

    monkeypatch.setattr(cursor.os, "fstat", lambda fd: Longer)
    path.write_bytes(SMALL[:40])
    with pytest.raises(ModelFileError, match="became shorter while it was read"):
        read_header(path)
    monkeypatch.setattr(cursor.os, "fstat", real)
