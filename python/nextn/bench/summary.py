"""From the rows of a receipt to every figure of a report. Nothing else is read, nothing is remembered.

Words: a *speed* is tokens after the first per second of the time after the first, in one run. A *speed-up* of an arm
is the ratio of its speed to the plain arm's in the same block (prompt, seed, repeat); the median of these over seeds
and repeats stands for the prompt, and the geometric mean over prompts for the arm.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

from nextn.bench.plan import CONTROL, PLAIN
from nextn.bench.receipt import Receipt, block_key
from nextn.bench.statistics import Estimate, geometric_mean, ratio_of_sums

__all__ = ["Row", "Summary", "summarise"]

Row = dict[str, Any]
Summary = dict[str, Any]
"""What a report shows, as JSON knows it: see summarise()."""


def summarise(receipt: Receipt) -> Summary:
    """Every figure of a receipt's report.

    Returns:
        "arms": the figures of each arm on the suite's chat prompts; "raw": the same on raw prompts, of those prompts
        that were run raw, with "chat" beside it for the same prompts; "contexts": the same by the length of the
        conversation; "exactness": whether all arms wrote the same; "n_rows".
    """
    rows = receipt["rows"]
    topics = {prompt["id"]: prompt["topic"] for prompt in receipt["suite"]["prompts"]}
    names = [arm["name"] for arm in receipt["arms"]]
    chat = [row for row in rows if row["mode"] == "chat" and row["n_context"] is None]
    raw = [row for row in rows if row["mode"] == "raw"]
    contexts = sorted({row["n_context"] for row in rows if row["n_context"] is not None})
    same = {row["prompt"] for row in raw}
    return {
        "n_rows": len(rows),
        "finished": receipt["finished"],
        "arms": _arms(chat, names, topics),
        "raw": _modes(raw, [row for row in chat if row["prompt"] in same], names) if raw else None,
        "contexts": [_context(n, [row for row in rows if row["n_context"] == n], names) for n in contexts],
        "exactness": exactness(receipt),
    }


def speed(row: Row) -> float | None:
    """Tokens per second after the first token; None when there was nothing after it."""
    if row["completion_tokens"] < 2 or row["predicted_ms"] <= 0:
        return None
    return float(1e3 * (row["completion_tokens"] - 1) / row["predicted_ms"])


def speedup(rows: Iterable[Row], baseline: Iterable[Row]) -> Estimate | None:
    """How many times as fast rows are as those of the baseline in the same blocks."""
    return geometric_mean([math.log(ratio) for ratio in prompt_ratios(rows, baseline).values()])


def prompt_ratios(rows: Iterable[Row], baseline: Iterable[Row]) -> dict[str, float]:
    """For each prompt the median over its blocks of the ratio of speeds."""
    base = {block_key(row): speed(row) for row in baseline}
    ratios: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        mine, other = speed(row), base.get(block_key(row))
        if mine is not None and other is not None:
            ratios[row["prompt"]].append(mine / other)
    return {prompt: median(found) for prompt, found in ratios.items()}


def acceptance(rows: Iterable[Row], position: int | None = None) -> Estimate | None:
    """Accepted over drafted tokens, of all positions or of one (from 0)."""
    accepted: dict[str, int] = defaultdict(int)
    drafted: dict[str, int] = defaultdict(int)
    for row in rows:
        if position is None:
            accepted[row["prompt"]] += row["draft_n_accepted"]
            drafted[row["prompt"]] += row["draft_n"]
        elif row["drafted_per_position"] is not None and position < len(row["drafted_per_position"]):
            accepted[row["prompt"]] += row["accepted_per_position"][position]
            drafted[row["prompt"]] += row["drafted_per_position"][position]
    return ratio_of_sums([accepted[p] for p in drafted], list(drafted.values()))


def exactness(receipt: Receipt) -> dict[str, Any]:
    """Whether the arms wrote the same: by the hashes of tokens, or of texts where a server gives no tokens.

    Greedy text must be that of plain decoding, whatever was drafted. Sampled text need not: arms draw differently from
    the same distribution.

    Returns:
        "comparable": whether decoding was greedy; "n_groups" prompts, each in one mode and context, that were compared;
        "n_runs" of them; "different": the groups whose runs do not agree, with the arms unlike plain decoding.
    """
    if receipt["options"]["temperature"] > 0:
        return {"comparable": False, "n_groups": 0, "n_runs": 0, "different": []}
    groups = _by(receipt["rows"], lambda row: (row["prompt"], row["mode"], row["n_context"]))
    different = []
    for (prompt, mode, n_context), group in groups.items():
        wanted = next((_output(row) for row in group if row["arm"] == PLAIN), _output(group[0]))
        unlike = sorted({row["arm"] for row in group if _output(row) != wanted})
        if unlike:
            different.append({"prompt": prompt, "mode": mode, "n_context": n_context, "arms": unlike})
    n_runs = sum(map(len, groups.values()))
    return {"comparable": True, "n_groups": len(groups), "n_runs": n_runs, "different": different}


def _output(row: Row) -> tuple[str, int]:
    """What is compared of a run."""
    return (row["tokens_sha256"] or row["text_sha256"], row["completion_tokens"])


def _arms(rows: Sequence[Row], names: Sequence[str], topics: dict[str, str]) -> list[dict[str, Any]]:
    """The figures of each arm."""
    of_arm = _by(rows, lambda row: row["arm"])
    plain = of_arm.get(PLAIN, [])
    found = []
    for name in names:
        mine = of_arm.get(name, [])
        if mine:
            by_topic = _by(mine, lambda row: topics[row["prompt"]])
            by_seed = _by(mine, lambda row: row["seed"])
            found.append(
                {
                    **_figures(name, mine, plain),
                    "by_topic": {t: _figures(name, part, plain) for t, part in by_topic.items()},
                    "by_seed": {str(s): _figures(name, part, plain) for s, part in by_seed.items()},
                    "positions": _positions(mine, topics),
                    "shares": _shares(mine),
                }
            )
    return found


def _modes(raw: Sequence[Row], chat: Sequence[Row], names: Sequence[str]) -> list[dict[str, Any]]:
    """Each arm that ran raw prompts on the same prompts raw and through the chat template."""
    found = []
    raw_arms = {row["arm"] for row in raw}
    for name in names:
        if name not in raw_arms:
            continue
        both = {}
        for mode, rows in (("raw", raw), ("chat", chat)):
            of_arm = _by(rows, lambda row: row["arm"])
            both[mode] = _figures(name, of_arm.get(name, []), of_arm.get(PLAIN, []))
        found.append({"arm": name, **both})
    return found


def _context(n_context: int, rows: Sequence[Row], names: Sequence[str]) -> dict[str, Any]:
    """Each arm at the end of conversations of one length."""
    of_arm = _by(rows, lambda row: row["arm"])
    return {
        "n_context": n_context,
        "prompt_tokens": median(row["prompt_tokens"] for row in rows),
        "arms": [_figures(name, of_arm[name], of_arm.get(PLAIN, [])) for name in names if name in of_arm],
    }


def _figures(name: str, rows: Sequence[Row], plain: Sequence[Row]) -> dict[str, Any]:
    """The figures that every table has."""
    timed = [row for row in rows if speed(row) is not None]
    n_tokens = sum(row["completion_tokens"] - 1 for row in timed)
    ms = sum(row["predicted_ms"] for row in timed)
    drafted, accepted = (sum(row[key] for row in rows) for key in ("draft_n", "draft_n_accepted"))
    rounds = sum(row["n_rounds"] or 0 for row in rows)
    known = bool(rows) and all(row["n_rounds"] is not None for row in rows)
    ratio = None if name == PLAIN else speedup(rows, plain)
    rate = acceptance(rows)
    return {
        "arm": name,
        "n_rows": len(rows),
        "tokens_per_second": 1e3 * n_tokens / ms if ms else None,
        "speedup": ratio.to_dict() if ratio else None,
        "distinguishable": None if ratio is None else not ratio.covers(1.0),
        "draft_n": drafted,
        "draft_n_accepted": accepted,
        "acceptance": rate.to_dict() if rate else None,
        "mean_accepted_len": 1 + accepted / rounds if known and rounds else None,
    }


def _positions(rows: Sequence[Row], topics: dict[str, str]) -> list[dict[str, Any]]:
    """Acceptance at each position of a draft, over all prompts and by topic."""
    drafting = [row for row in rows if row["drafted_per_position"]]
    by_topic = _by(drafting, lambda row: topics[row["prompt"]])
    found = []
    for position in range(max((len(row["drafted_per_position"]) for row in drafting), default=0)):
        rate = acceptance(drafting, position)
        found.append(
            {
                "position": position + 1,
                "drafted": _at(drafting, "drafted_per_position", position),
                "acceptance": rate.to_dict() if rate else None,
                "by_topic": {topic: _rate_at(part, position) for topic, part in by_topic.items()},
            }
        )
    return found


def _at(rows: Sequence[Row], key: str, position: int) -> int:
    """The sum of the counts at a position."""
    return sum(row[key][position] for row in rows if position < len(row[key]))


def _rate_at(rows: Sequence[Row], position: int) -> float | None:
    """Acceptance at a position, without an interval."""
    drafted = _at(rows, "drafted_per_position", position)
    return _at(rows, "accepted_per_position", position) / drafted if drafted else None


def _shares(rows: Sequence[Row]) -> dict[str, float] | None:
    """What the time after the first token is spent on."""
    if any(row["draft_ms"] is None or row["verify_ms"] is None for row in rows):
        return None
    total = sum(row["predicted_ms"] for row in rows)
    if not total:
        return None
    draft, verify = (sum(row[key] for row in rows) / total for key in ("draft_ms", "verify_ms"))
    return {"draft": draft, "verify": verify, "rest": max(0.0, 1 - draft - verify)}


def _by(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    """Rows in groups, in the order in which the groups appear."""
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return groups


def control(summary: Summary) -> dict[str, Any] | None:
    """The figures of plain decoding against itself, if it was run."""
    return next((arm for arm in summary["arms"] if arm["arm"] == CONTROL), None)
