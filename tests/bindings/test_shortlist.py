"""What a draft head scores: which tokens, that each logit has the bits of the whole row, how the list changes."""

from __future__ import annotations

import nextn
import numpy as np
import pytest
from nextn import _core
from nextn.gguf import read_header
from nextn.quantize import quantize

OPTIONS = {"n_max": 4, "n_min": 0, "p_min": 0.0, "adaptive": False, "n_vocab": -1, "vocab_ids": []}
DRAW = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 5, "steady": False}  # so that rows are kept
REPACKED = {"Q4_0", "Q4_K", "IQ4_NL"}
OUTPUT = r"^output\.weight|shared_head_head"
N_RING = 4096  # rows for the tokens of the text


@pytest.fixture(scope="module")
def with_output(tiny_model, tmp_path_factory):
    """Return a function that makes a model with an output matrix, or two, of a type."""

    def make(type_name, n_vocab=2048, **options):
        shape = {"n_layer": 2, "full_attention_interval": 2, "tied": False, "n_vocab": n_vocab, **options}
        source = tiny_model("wide", type="bf16", **shape)
        path = tmp_path_factory.mktemp("output") / f"{type_name}.gguf"
        quantize(source, path, "BF16", recipe="base", tensor_types=[(OUTPUT, type_name)], n_threads=1)
        types = {t.name: t.type.name for t in read_header(path).tensors}
        assert types["output.weight"] == type_name
        return path

    return make


class Drafting:
    """A pair of contexts with a drafter that keeps the rows it scores."""

    def __init__(self, model, n_ctx=512, n_seq_max=1, **options):
        sizes = {"n_ctx": n_ctx, "n_batch": 512, "n_ubatch": 128, "n_threads": 1, "n_seq_max": n_seq_max}
        self.target = nextn.Context(model, n_rs_seq=4, **sizes)
        self.draft = nextn.Context(model, nextn_draft=True, **sizes)
        self.target.pair(self.draft)
        self.drafter = _core.Drafter(self.target._core, self.draft._core, **{**OPTIONS, **options})
        for seq_id in range(n_seq_max):
            self.drafter.draw(**DRAW, seq_id=seq_id)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for part in (self.drafter, self.draft, self.target):
            part.close()

    def read(self, tokens, seq_id=0):
        """A request begins with these tokens."""
        self.target.seq_rm(seq_id, -1, -1)
        self.drafter.begin(seq_id)
        for start in range(0, len(tokens), 512):
            part = tokens[start : start + 512]
            self.target.decode(part, seq_id=seq_id)
            self.drafter.feed(part, seq_id)

    def row(self, id_last, seq_id=0):
        """Logit of every token that is scored after the text and id_last."""
        self.drafter.draft(id_last, 1, seq_id)
        ids, logits = self.drafter.row()
        found = dict(zip(ids.tolist(), logits.view(np.uint32).tolist(), strict=True))
        assert len(found) == len(ids), "a token is there twice"
        return found


def specials(model):
    """The last tokens of every random model: control tokens, and tags of its chat form."""
    assert any(model.is_eog(i) for i in range(model.n_vocab - 7, model.n_vocab))
    return range(model.n_vocab - 7, model.n_vocab)


@pytest.mark.parametrize("type_name", ["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0", "IQ4_NL", "Q3_K"])
@pytest.mark.parametrize("own_head", [False, True], ids=["output", "shared_head_head"])
def test_each_logit_has_the_bits_of_the_whole_row(with_output, type_name, own_head):
    head_tensors = ("shared_head_norm", "shared_head_head") if own_head else ("shared_head_norm",)
    rng = np.random.default_rng(1)
    with nextn.Model(with_output(type_name, head_tensors=head_tensors)) as model:
        text = rng.integers(0, model.n_vocab, 60).tolist()
        ids = rng.choice(model.n_vocab, 300, replace=False).tolist()
        with Drafting(model) as whole:
            whole.read(text)
            expected = whole.row(700)
        with Drafting(model) as plain:  # what the draft context computes without a drafter
            plain.drafter.close()
            plain.target.decode(text)
            hidden = np.vstack((np.zeros((1, model.n_embd), np.float32), plain.target.hidden()))
            plain.draft.decode(text, hidden=hidden[:-1], outputs="none")
            plain.draft.decode([700], hidden=hidden[-1:])
            logits = plain.draft.logits()[-1]
        assert list(expected) == list(range(model.n_vocab))
        assert list(expected.values()) == logits.view(np.uint32).tolist()
        for options, wanted in (({"n_vocab": 512}, range(512)), ({"vocab_ids": ids}, ids)):
            with Drafting(model, **options) as short:
                short.read(text)
                row = short.row(700)
            assert set(row) >= {*wanted, *text, 700, *specials(model)}
            assert len(row) < model.n_vocab
            assert (len(row) > len({*wanted, *text, 700, *specials(model)})) == (type_name in REPACKED)  # whole groups
            assert row == {i: expected[i] for i in row}


@pytest.mark.parametrize("type_name", ["Q4_0", "Q8_0"])
def test_a_list_and_special_tokens_stay_whatever_the_text_brings(with_output, type_name):
    n_vocab, n_text = 16384, 6144 if type_name == "Q8_0" else 1536  # a repacked row brings seven others
    rng = np.random.default_rng(2)
    ids = rng.choice(n_vocab, 2000, replace=False).tolist()
    with nextn.Model(with_output(type_name, n_vocab)) as model, Drafting(model, n_text + 8, vocab_ids=ids) as short:
        always = {*ids, *specials(model)}
        short.read([5])
        at_first = set(short.row(5))
        assert at_first >= always
        text = [i for i in rng.permutation(n_vocab).tolist() if i not in at_first][:n_text]
        short.read(text)
        row = set(short.row(5))
        assert row >= always | set(text[-N_RING + 1 :] if type_name == "Q8_0" else text[-1:])
        assert not row >= set(text)  # the ring went round
        n_bytes, n_rows = short.drafter.stats()["n_extra_bytes"], (len(row) + 127) // 128 * 128
        assert n_bytes <= n_rows * {"Q4_0": 144, "Q8_0": 272}[type_name] + 4 * (n_rows + n_vocab) + 4096
        short.read([5])
        assert set(short.row(5)) == at_first


def test_special_tokens_stay_in_a_short_prefix(with_output):
    rng = np.random.default_rng(3)
    with nextn.Model(with_output("Q4_0", 16384)) as model, Drafting(model, 1600, n_vocab=256) as short:
        short.read(rng.permutation(16000)[:1536].tolist())
        assert set(short.row(5)) >= {*range(256), *specials(model)}


def test_the_words_of_a_text_go_with_it(tiny_model):
    """Each sequence brings its own words; what another one still says stays."""
    with nextn.Model(tiny_model("dense", n_vocab=2048)) as model, Drafting(model, n_seq_max=2, n_vocab=256) as two:
        two.read([300, 301, 302], 0)
        two.read([302, 400, 401], 1)
        assert set(two.row(5, 0)) >= {300, 301, 302, 400, 401}
        two.read([500], 0)
        row = set(two.row(5, 1))
        assert row >= {302, 400, 401, 500} and not row & {300, 301}
        two.read([6], 1)
        two.read([6], 0)
        assert set(two.row(5, 1)) == {*range(256), *specials(model)}


def test_the_prefix_narrows_and_widens(tiny_model):
    """It narrows while the target says nothing beyond it, and is never again as narrow as where that went wrong."""
    with nextn.Model(tiny_model("dense", n_vocab=81920)) as model, Drafting(model, n_vocab=0) as short:
        drafter = short.drafter

        def said(tokens):
            for i, token in enumerate(tokens):
                if i % 100 == 0:
                    short.read([5, 6, 7])
                drafter.draft(token, 1)
                drafter.accept([token], 1, 0.0)
            return drafter.stats()["n_prefix"]

        assert said([9] * 255) == 32768
        assert said([9]) == 16384
        assert said([9] * 600) == 16384  # less would save nothing
        high = iter(range(70000, 71000))
        assert said([next(high) if i % 10 == 0 else 9 for i in range(256)]) == 32768
        assert drafter.stats()["miss_rate"] > 0.04
        assert said([9] * 768) == 32768
        assert drafter.stats()["miss_rate"] < 0.002
