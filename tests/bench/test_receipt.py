"""Receipts: what the schema asks for, what is refused, what a crash leaves behind."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import os
import time

import gguf
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from nextn.bench import BenchOptions, ReceiptError, load_receipt, make_arms, save_receipt
from nextn.bench.machine import file_facts, sha256_of
from nextn.bench.receipt import check_same_run
from nextn.bench.suite import DATA

from .synthetic import make_receipt, make_suite

SCHEMA = json.loads((DATA / "receipt.schema.json").read_text())


@pytest.fixture
def receipt():
    return make_receipt(make_suite(3), make_arms([2], adaptive=4), BenchOptions(contexts=(64,), raw=True))


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)


def test_round_trip(receipt, tmp_path):
    path = tmp_path / "receipt.json"
    save_receipt(path, receipt)
    assert load_receipt(path) == receipt
    assert os.stat(path).st_mode & 0o777 == 0o666 & ~current_umask()
    text = path.read_text()
    assert sum(line.startswith('  {"arm"') for line in text.splitlines()) == len(receipt["rows"])  # one line a row


def test_a_compressed_one(receipt, tmp_path, monkeypatch):
    path = tmp_path / "receipt.json.gz"
    save_receipt(path, receipt)
    data = path.read_bytes()
    save_receipt(tmp_path / "receipt.json", receipt)
    assert gzip.decompress(data) == (tmp_path / "receipt.json").read_bytes()
    assert load_receipt(path) == receipt
    time.sleep(1.1)
    save_receipt(path, receipt)
    assert path.read_bytes() == data
    for damaged in (data[:-9], data[:2], data[:30] + b"\xff\xff" + data[32:], b"\x1f\x8bxx"):
        path.write_bytes(damaged)
        with pytest.raises(ReceiptError, match="is no receipt of nextn bench"):
            load_receipt(path)
    monkeypatch.setattr("nextn.bench.receipt._MOST_BYTES", 1 << 10)
    path.write_bytes(data)
    with pytest.raises(ReceiptError, match="unpacks to more than"):
        load_receipt(path)


def test_an_empty_one_is_valid(receipt, tmp_path):
    receipt["rows"] = []
    save_receipt(tmp_path / "r.json", receipt)
    assert load_receipt(tmp_path / "r.json")["rows"] == []


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def places(value, path=()):
    """Every place in a receipt; of lists the first entry."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from places(inner, (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


OPTIONAL = {("versions", "numpy"), ("versions", "httpx")}  # may be missing, but must be right when they are there


def test_a_damaged_receipt_is_refused_wherever_the_damage_is(receipt, tmp_path):
    """Each key of each object, taken out and replaced by something of another type."""
    path = tmp_path / "receipt.json"
    n_checked = 0
    for place in places(receipt):
        if place[0] == "context" and len(place) > 1:
            continue  # holds whatever options the contexts had
        for change in ("replace",) if place in OPTIONAL else ("remove", "replace"):
            damaged = copy.deepcopy(receipt)
            parent = damaged
            for step in place[:-1]:
                parent = parent[step]
            if change == "remove":
                del parent[place[-1]]
            else:
                parent[place[-1]] = {"not": ["what", "it", "was"]}
            if place == ("context",) and change == "replace":
                continue
            path.write_text(json.dumps(damaged))
            with pytest.raises(ReceiptError, match=str(path)):
                load_receipt(path)
            n_checked += 1
    assert n_checked > 100


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"format": "other/2"}', b"[" * 100_000])
def test_other_files_are_no_receipts(tmp_path, content):
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(ReceiptError, match=r"other\.json is no receipt of nextn bench"):
        load_receipt(path)


def test_rows_of_unknown_prompts_and_arms_are_refused(receipt, tmp_path):
    for key in ("prompt", "arm"):
        damaged = copy.deepcopy(receipt)
        damaged["rows"][1][key] = "nobody"
        with pytest.raises(ReceiptError, match="rows/1 names a prompt or an arm that it does not list"):
            save_receipt(tmp_path / "r.json", damaged)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(receipt, tmp_path, monkeypatch):
    path = tmp_path / "receipt.json"
    save_receipt(path, receipt)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        save_receipt(path, {**receipt, "finished": False})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_another_run_is_told_apart(receipt):
    for place, value, message in (
        (("model", "sha256"), "f" * 64, r"its model\.sha256 is \"0000.*now it is \"ffff"),
        (("options", "max_tokens"), 7, r"its options\.max_tokens is 128, now it is 7"),
        (("engine", "stamp"), "t", r"its engine\.stamp"),
        (("machine", "cpu"), "abacus", r"its machine\.cpu"),
        (("context", "n_threads"), 7, r"its context\.n_threads is null, now it is 7"),
    ):
        other = copy.deepcopy(receipt)
        other[place[0]][place[1]] = value
        with pytest.raises(ReceiptError, match=f"r.json cannot be continued: {message}"):
            check_same_run(receipt, other, "r.json")
    check_same_run(receipt, copy.deepcopy(receipt), "r.json")


def test_all_parts_of_a_model_are_hashed(tmp_path):
    """As one would by hand: cat m-*.gguf | sha256sum."""
    paths = [tmp_path / f"m-{i + 1:05d}-of-00002.gguf" for i in range(2)]
    for i, path in enumerate(paths):
        writer = gguf.GGUFWriter(path, "qwen35")
        writer.add_uint16("split.no", i)
        writer.add_uint16("split.count", 2)
        writer.add_tensor(f"t{i}", np.ones(64 * (i + 1), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    both = b"".join(path.read_bytes() for path in paths)
    expected = {"file": paths[0].name, "bytes": len(both), "sha256": hashlib.sha256(both).hexdigest()}
    assert file_facts(paths[0]) == file_facts(paths[1]) == expected
    paths[1].write_bytes(paths[1].read_bytes()[:-1] + b"x")
    sha256_of.cache_clear()
    assert file_facts(paths[0])["sha256"] != expected["sha256"]
