"""The command that makes the demo model: the steps that need no PyTorch, run on the bundled model."""

from __future__ import annotations

import re
from pathlib import Path

import inflate_gguf
import make_demo_model
import nextn
import pytest
from demo_model import heldout
from demo_model.corpus.phrases import DATA
from demo_model.measure import Acceptance, Answered, measure, table_row
from nextn.bundled import bundled_model

FEW = heldout.read()[::10]


def answered(n: int, tokens: tuple[int, ...], *, drafted: int, accepted: int, rounds: int) -> Answered:
    counters = nextn.stats.Counters(completion_tokens=len(tokens), predicted=0.001 * (len(tokens) - 1))
    for i in range(rounds):
        counters.count_round(drafted // rounds, accepted // rounds + (i < accepted % rounds))
    result = nextn.GenerationResult(text="", tokens=tokens, finish_reason="stop", stats=counters.snapshot())
    return Answered(prompt=heldout.read()[n], result=result)


def test_counters_are_summed_before_they_are_divided() -> None:
    one = answered(0, (1, 2, 3), drafted=4, accepted=4, rounds=1)
    two = answered(1, (1, 2, 3), drafted=8, accepted=2, rounds=2)
    both = Acceptance.of([one, two])
    assert both == Acceptance(drafted=12, accepted=6, rounds=3)
    assert str(both) == "0.500 (6/12) 3.00"
    assert str(Acceptance.of([])) == "-"


def test_other_tokens_than_plain_decoding_are_reported() -> None:
    plain = [answered(n, (1, 2, 3), drafted=0, accepted=0, rounds=1) for n in (0, 20)]
    right, wrong = plain[0], answered(20, (1, 2, 4), drafted=2, accepted=1, rounds=1)
    row = table_row(2, [right, wrong], plain)
    assert row.split()[-3:] == ["1", "1.00", "(a20-math)"]
    assert table_row(2, plain, plain).split()[-2:] == ["0", "1.00"]


def test_measuring_the_bundled_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert measure(bundled_model(), FEW, draft_lengths=[1, 4], max_tokens=48, threads=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["code", "math", "general"]
    assert "2 prompts" in lines[0]
    one, four = lines[-2:]
    for line, n_max in ((one, 1), (four, 4)):
        assert line.startswith(f"{n_max} ")
        cells = re.findall(r"(\d\.\d{3}) \((\d+)/(\d+)\) (\d\.\d\d)", line)
        assert len(cells) == 4
        assert sum(int(c[2]) for c in cells[:3]) == int(cells[3][2])  # the arms sum up to `all`
        assert all(float(rate) > 0.6 and 1 < float(length) <= 1 + n_max for rate, _, _, length in cells)
        assert re.search(r" 0 +\d+\.\d\d$", line)


def test_an_inflated_model_gives_the_same_tokens(tmp_path: Path) -> None:
    out = tmp_path / "inflated.gguf"
    inflate_gguf.inflate(bundled_model(), out, groups=1)
    results = []
    for path in (bundled_model(), out):
        with nextn.Speculator(
            path, n_ctx=512, n_threads=1, draft=nextn.DraftParams(n_max=4, adaptive=False)
        ) as speculator:
            results.append([speculator.chat([{"role": "user", "content": p.prompt}], max_tokens=48) for p in FEW])
    for small, big in zip(*results, strict=True):
        assert big.tokens == small.tokens
        assert big.stats.draft_n == small.stats.draft_n
        assert big.stats.accepted_per_position == small.stats.accepted_per_position


def test_the_model_answers_as_the_generator_does() -> None:
    with nextn.Speculator(bundled_model(), n_ctx=512, n_threads=1) as speculator:
        texts = [speculator.chat([{"role": "user", "content": p.prompt}], max_tokens=128).text for p in FEW]
    right = sum(text.strip() == p.answer.strip() for text, p in zip(texts, FEW, strict=True))
    assert right >= len(FEW) - 1  # 42 of all 50


def test_the_corpus_step_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_demo_model.main(["corpus", "--n", "40", "--show", "1", "--heldout", str(tmp_path)])
    printed = capsys.readouterr().out
    assert printed.startswith("--- ")
    assert "<|im_start|>assistant" in printed
    assert sum(map(int, re.findall(r": (\d+) conversations", printed))) == 40
    for name in (heldout.PROMPTS, heldout.REFERENCES):
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()


def test_the_smoke_sizes_are_options_of_the_training() -> None:
    source = (Path(make_demo_model.__file__).parent / "demo_model" / "train.py").read_text(encoding="utf-8")
    for name in make_demo_model.SMOKE:
        assert re.search(rf"^    {name}: ", source, re.MULTILINE), name
