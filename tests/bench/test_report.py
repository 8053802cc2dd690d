"""Reports: every figure follows the rows, Markdown and HTML say the same, plots are in it, receipts are compared."""

from __future__ import annotations

import copy
import math
import re
from html.parser import HTMLParser
from statistics import median

import pytest
from nextn.bench import BenchOptions, make_arms, statistics, summarise
from nextn.bench.compare import make_document
from nextn.bench.document import to_html, to_markdown, write_figures
from nextn.bench.report import show_number

from .synthetic import digest, make_receipt, make_suite

ARMS = make_arms([1, 2, 4], adaptive=6)
OPTIONS = BenchOptions(seeds=(1, 2, 3), raw=True, contexts=(64, 128), n_sweep_prompts=6)


@pytest.fixture(scope="module", autouse=True)
def fewer_resamples():
    """Intervals are tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "N_RESAMPLES", 199)
        yield


@pytest.fixture(scope="module")
def receipt():
    return make_receipt(make_suite(), ARMS, OPTIONS, noise=0.05, factors={"k=2": 1.4, "k=4": 0.7, "adaptive": 1.3})


@pytest.fixture(scope="module")
def document(receipt):
    return make_document([receipt], ["r"])


def tables(markdown: str) -> dict[str, list[list[str]]]:
    """The tables of a page by their first header, cells as text."""
    found: dict[str, list[list[str]]] = {}
    for block in re.findall(r"(?:^\|.*\|$\n?)+", markdown, re.MULTILINE):
        header, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines())
        found[" ".join(header[:2])] = rows
    return found


def test_the_table_of_arms_is_computed_from_the_rows(receipt, document):
    """Against a plain calculation with nothing of nextn.bench in it."""
    chat = [row for row in receipt["rows"] if row["mode"] == "chat" and row["n_context"] is None]
    speed = {(r["arm"], r["prompt"], r["seed"]): 1e3 * (r["completion_tokens"] - 1) / r["predicted_ms"] for r in chat}
    prompts, seeds = {r["prompt"] for r in chat}, {r["seed"] for r in chat}
    shown = {row[0]: row for row in tables(to_markdown(document))["arm tokens/s"]}
    assert list(shown) == [arm.name for arm in ARMS]
    for arm in shown:
        mine = [r for r in chat if r["arm"] == arm]
        tokens, ms = sum(r["completion_tokens"] - 1 for r in mine), sum(r["predicted_ms"] for r in mine)
        assert float(shown[arm][1]) == pytest.approx(1e3 * tokens / ms, rel=6e-3)
        drafted, accepted = sum(r["draft_n"] for r in mine), sum(r["draft_n_accepted"] for r in mine)
        assert shown[arm][3] == (f"{100 * accepted / drafted:.1f} %" if drafted else "–")
        if arm == "plain":
            assert shown[arm][2] == "1"
            continue
        ratios = [median(speed[arm, p, s] / speed["plain", p, s] for s in seeds) for p in prompts]
        mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
        value, low, high = map(float, re.findall(r"\d\.\d+", shown[arm][2]))
        assert value == pytest.approx(mean, abs=6e-4)
        assert low < value < high


def test_it_says_when_there_are_too_few_prompts():
    """A mark of its own, with their number; two prompts have no interval, and the rest of the report has."""
    options = BenchOptions(raw=True, n_sweep_prompts=2)
    page = to_markdown(make_document([make_receipt(make_suite(), ARMS, options, noise=0.05)], ["r"]))
    raw = {row[0]: row for row in tables(page)["arm tokens/s raw"]}
    assert re.fullmatch(r"\d\.\d+ † \(2 prompts\)", raw["k=2"][3])
    assert raw["k=2"][5] == "25.0 % † (2 prompts)"
    assert "† too few prompts for an interval" in page
    few = to_markdown(make_document([make_receipt(make_suite(1), ARMS, BenchOptions())], ["r"]))
    assert "Adaptive drafting: 1.000 times the speed of plain decoding over 1 prompt, too few for an interval." in few
    assert "† one prompt alone" in few
    assert "† " not in to_markdown(make_document([make_receipt(make_suite(), ARMS, BenchOptions(), noise=0.05)], ["r"]))


def test_tables_of_parts_say_what_many_intervals_mean(receipt, document):
    by_part = [
        section.title
        for section in document.sections
        if any("some exclude 1.0 by chance" in getattr(item, "text", "") for item in section.items)
    ]
    assert by_part == [
        "By topic and by seed",
        "Raw prompts and chat prompts",
        "Speed against the length of the conversation",
    ]


def test_a_changed_row_changes_the_report(receipt):
    before = to_markdown(make_document([receipt], ["r"]))
    changed = copy.deepcopy(receipt)
    for row in changed["rows"]:
        if row["arm"] == "k=2" and row["prompt"] == "p3":
            row["predicted_ms"] /= 2
            row["accepted_per_position"] = [6, 0]
            row["draft_n_accepted"] = 6
    after = to_markdown(make_document([changed], ["r"]))
    differing = [a for a, b in zip(before.splitlines(), after.splitlines(), strict=True) if a != b]
    assert all("k=2" in line for line in differing)
    assert len(differing) >= 5


def test_it_says_when_nothing_can_be_told(receipt, document):
    page = to_markdown(document)
    assert re.search(r"Control: plain decoding against itself is [\d. ()to]+, not distinguishable from 1.0", page)
    assert "Adaptive drafting is 1." in page
    same = make_receipt(make_suite(), ARMS, BenchOptions(), noise=0.05)
    page = to_markdown(make_document([same], ["r"]))
    assert re.search(r"Adaptive drafting: [\d. ()to]+ times the speed .*: not distinguishable from 1\.0\.", page)


def test_it_says_when_the_control_fails(receipt):
    damaged = copy.deepcopy(receipt)
    for row in damaged["rows"]:
        row["predicted_ms"] *= 0.8 if row["arm"] == "plain again" else 1
    assert "**The control fails: " in to_markdown(make_document([damaged], ["r"]))


def test_it_says_when_outputs_differ(receipt, document):
    assert "Output: identical. The 486 runs of 30 prompts" in to_markdown(document)
    damaged = copy.deepcopy(receipt)
    damaged["rows"][5]["tokens_sha256"] = digest("another")
    page = to_markdown(make_document([damaged], ["r"]))
    assert "**Output: DIFFERENT for 1 of 30 prompts." in page
    assert "identical" not in page


def test_it_names_what_was_run(receipt, document):
    sized = copy.deepcopy(receipt)
    sized["model"] |= {"description": "qwen35 ?B Q8_0", "n_params": 7_246_128}
    assert "bytes, qwen35 Q8_0, 7.25 M parameters; sha256" in to_markdown(make_document([sized], ["r"]))
    page = to_markdown(document)
    for fact in ("made-up.gguf", "0" * 64, "0c1e57098", receipt["suite"]["sha256"], receipt["machine"]["cpu"]):
        assert fact in page


def test_figures(document, tmp_path):
    write_figures(document, tmp_path / "plots")
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names == {f"made-up-{name}.svg" for name in ("speedup", "positions", "lengths", "contexts")}
    page = to_markdown(document, "plots")
    alts = re.findall(r"!\[(.*?)\]", page)
    assert len(alts) == 4 and all(len(alt) > 40 and alt + "." in page for alt in alts), alts
    assert set(re.findall(r"!\[.*?\]\(plots/(.*?)\)", page)) == names
    assert all((tmp_path / "plots" / name).read_text().startswith("<svg") for name in names)


def test_figures_are_the_same_each_time(receipt, document):
    again = make_document([receipt], ["r"])
    assert [figure.svg for figure in again.figures] == [figure.svg for figure in document.figures]


class Page(HTMLParser):
    """What a page loads, and its cells."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.cells: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.open = [tag]
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and not str(value).startswith("#"):
                self.loaded.append(str(value))
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data):
        if self.open == ["td"]:
            self.cells[-1] += data


def test_html_is_one_page_that_says_the_same(document):
    html = to_html(document)
    page = Page()
    page.feed(html)
    assert page.loaded == [] and "@import" not in html and "url(http" not in html
    assert html.count("<svg") == html.count("<figcaption>") == 4
    markdown = tables(to_markdown(document))
    cells = [cell for rows in markdown.values() for row in rows for cell in row]
    assert sorted(cell.strip() for cell in page.cells) == sorted(cells)


def test_what_is_in_a_receipt_is_text_not_code(receipt):
    nasty = copy.deepcopy(receipt)
    nasty["model"]["file"] = "<script>alert(1)</script> | ../x.gguf"
    document = make_document([nasty], ["r"])
    assert "<script" not in to_html(document)
    assert all("/" not in figure.name for figure in document.figures)
    assert r"</script> \| ../x" in to_markdown(document)


def test_comparison(receipt):
    faster = copy.deepcopy(receipt)
    faster["model"]["file"] = "faster.gguf"
    for row in faster["rows"]:
        row["predicted_ms"] /= 2
    document = make_document([receipt, faster], ["a", "b"])
    markdown = to_markdown(document, "plots")
    rows = tables(markdown)["receipt arm"]
    assert len(rows) == 2 * (len(ARMS) - 1)
    assert [row[0] for row in rows] == ["made-up"] * 5 + ["faster"] * 5
    assert [row[-1] for row in rows[:5]] == ["–"] * 5
    assert [row[-1] for row in rows[5:]] == ["2.000"] * 5
    assert len(document.figures) == 1 + 2 * 4
    assert len({figure.name for figure in document.figures}) == 9
    assert document.title == "Benchmarks of made-up, faster"


def test_receipts_of_one_model_are_told_apart_by_their_files(receipt):
    other = make_receipt(make_suite(5), ARMS, BenchOptions())
    markdown = to_markdown(make_document([receipt, other], ["monday", "tuesday"]))
    assert {row[0] for row in tables(markdown)["receipt arm"]} == {"monday", "tuesday"}


def test_an_empty_receipt_has_a_report(receipt):
    empty = {**receipt, "rows": [], "finished": False}
    assert "This run is not complete" in to_html(make_document([empty], ["r"]))
    assert summarise(empty)["arms"] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1234"), (123.45, "123"), (12.345, "12.3"), (1.2345, "1.23"), (0.0, "0.00"), (None, "–")],
)
def test_digits(value, text):
    assert show_number(value) == text
