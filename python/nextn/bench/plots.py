"""The plots of a report, as SVG text. Colours are those of Okabe and Ito, which colour-blind people can tell apart."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nextn.bench.plan import CONTROL, PLAIN

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_comparison", "plot_contexts", "plot_lengths", "plot_positions", "plot_speedups"]

_ALL = "#222222"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_ADAPTIVE = _COLOURS[4]
_MARKERS = ("o", "s", "^", "D", "v", "P")
_EVEN: dict[str, Any] = {"color": "#555555", "linewidth": 1.3, "linestyle": "--", "zorder": 1,
                         "label": "as fast as plain decoding"}  # fmt: skip
"""The line of plain decoding's own speed."""

Figures = dict[str, Any]
"""The figures of an arm, as in a summary."""


def plot_speedups(label: str, arms: Sequence[Figures], topics: Sequence[str]) -> str:
    """The speed-up of each arm, with its interval, and by topic."""
    shown = [arm for arm in arms if arm["speedup"]]
    with _canvas(1.6 + 0.42 * len(shown)) as (figure, axes):
        for y, arm in enumerate(shown):
            _point(axes, arm["speedup"], y, "all prompts, with 95 % interval" if y == 0 else None)
            for i, topic in enumerate(topics):
                part = arm["by_topic"].get(topic)
                if part and part["speedup"]:
                    axes.plot(
                        part["speedup"]["value"], y + 0.26, _MARKERS[i % 6], color=_COLOURS[i % 6], markersize=4.5,
                        label=f"only {topic} prompts" if y == 0 else None,
                    )  # fmt: skip
        axes.set_yticks(range(len(shown)), [_arm_label(arm["arm"]) for arm in shown])
        axes.invert_yaxis()
        axes.axvline(1.0, **_EVEN)
        axes.set_title(f"{label}: how much faster than plain decoding?", loc="left")
        axes.set_xlabel("speed-up over plain decoding (1.0 = as fast as plain; further right is faster)")
        _legend(axes)
        return _svg(figure)


def plot_positions(label: str, arm: Figures, topics: Sequence[str]) -> str:
    """Acceptance at each position of the draft."""
    with _canvas(4.0) as (figure, axes):
        known = [p for p in arm["positions"] if p["acceptance"]]
        x = [p["position"] for p in known]
        y = [p["acceptance"]["value"] for p in known]
        for i, topic in enumerate(topics):
            points = [(p["position"], p["by_topic"].get(topic)) for p in known]
            xs, ys = [a for a, b in points if b is not None], [b for _, b in points if b is not None]
            axes.plot(xs, ys, marker=_MARKERS[i % 6], color=_COLOURS[i % 6], markersize=4.5, linewidth=1.2,
                      label=f"only {topic} prompts")  # fmt: skip
        axes.errorbar(x, y, yerr=_errors(y, [p["acceptance"] for p in known]), color=_ALL, marker="o", linewidth=2,
                      capsize=3, label="all prompts, with 95 % interval")  # fmt: skip
        axes.set_ylim(0, 1.05)
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
        axes.set_xticks(x)
        axes.set_title(f"{label}: how many drafted tokens are right? ({_arm_label(arm['arm'])})", loc="left")
        axes.set_xlabel("position in the draft (1 = the first drafted token)")
        axes.set_ylabel("acceptance (accepted of drafted tokens)")
        _legend(axes)
        return _svg(figure)


def plot_lengths(label: str, arms: Sequence[Figures], lengths: dict[str, int], topics: Sequence[str]) -> str:
    """The speed-up against the fixed draft length, and the adaptive arm beside it."""
    fixed = sorted((arm for arm in arms if arm["arm"] in lengths and arm["speedup"]), key=lambda a: lengths[a["arm"]])
    adaptive = next((arm for arm in arms if arm["arm"] == "adaptive" and arm["speedup"]), None)
    with _canvas(4.2) as (figure, axes):
        x = [0, *(lengths[arm["arm"]] for arm in fixed)]
        for i, topic in enumerate(topics):
            parts = [arm["by_topic"].get(topic) for arm in fixed]
            if all(part and part["speedup"] for part in parts):
                y = [1.0, *(part["speedup"]["value"] for part in parts if part)]
                axes.plot(x, y, marker=_MARKERS[i % 6], color=_COLOURS[i % 6], markersize=4.5, linewidth=1.2,
                          label=f"only {topic} prompts")  # fmt: skip
        y = [1.0, *(arm["speedup"]["value"] for arm in fixed)]
        spread = [{"value": 1.0, "low": 1.0, "high": 1.0}, *(arm["speedup"] for arm in fixed)]
        axes.errorbar(x, y, yerr=_errors(y, spread), color=_ALL, marker="o", linewidth=2, capsize=3,
                      label="all prompts, with 95 % interval")  # fmt: skip
        if adaptive:
            ratio = adaptive["speedup"]
            axes.axhline(ratio["value"], color=_ADAPTIVE, linewidth=2, label="adaptive length, all prompts")
            if ratio["low"] is not None:
                axes.axhspan(ratio["low"], ratio["high"], color=_ADAPTIVE, alpha=0.2, linewidth=0,
                             label="its 95 % interval")  # fmt: skip
        axes.axhline(1.0, **_EVEN)
        axes.set_xticks(x, ["0\n(plain)", *map(str, x[1:])])
        axes.set_title(f"{label}: how long should a draft be?", loc="left")
        axes.set_xlabel("fixed draft length k in tokens")
        axes.set_ylabel("speed-up over plain decoding (1.0 = as fast)")
        _legend(axes)
        return _svg(figure)


def plot_contexts(label: str, contexts: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Speed against the length of the conversation before the answer."""
    with _canvas(4.0) as (figure, axes):
        for i, name in enumerate(names):
            points = []
            for context in contexts:
                arm = next((arm for arm in context["arms"] if arm["arm"] == name), None)
                if arm and arm["tokens_per_second"]:
                    points.append((context["prompt_tokens"], arm["tokens_per_second"]))
            colour = _ALL if name == PLAIN else _arm_colour(name, i)
            axes.plot(*zip(*points, strict=True), marker=_MARKERS[i % 6], color=colour, label=_arm_label(name))
        axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.set_title(f"{label}: speed in long conversations", loc="left")
        axes.set_xlabel("tokens of the conversation before the answer (median)")
        axes.set_ylabel("tokens per second")
        _legend(axes)
        return _svg(figure)


def plot_comparison(labels: Sequence[str], speeds: Mapping[str, Sequence[float | None]]) -> str:
    """Speed of several arms in several receipts, side by side."""
    with _canvas(1.4 + 0.28 * len(labels) * (len(speeds) + 1)) as (figure, axes):
        height = 0.8 / len(speeds)
        for i, (name, values) in enumerate(speeds.items()):
            y = [n + (i - (len(speeds) - 1) / 2) * height for n in range(len(labels))]
            bars = axes.barh(y, [value or 0.0 for value in values], height * 0.92, label=_arm_label(name),
                             color="#999999" if name == PLAIN else _arm_colour(name, i))  # fmt: skip
            axes.bar_label(bars, [f" {_speed(value)}" if value else " –" for value in values], fontsize=8)
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_title("Speed by receipt", loc="left")
        axes.set_xlabel("tokens per second (longer is faster)")
        _legend(axes)
        return _svg(figure)


def _speed(value: float) -> str:
    """Tokens per second with three digits, and never as a power of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _point(axes: Axes, ratio: dict[str, float], y: float, label: str | None) -> None:
    """A ratio with its interval on a line of its own."""
    axes.errorbar([ratio["value"]], [y], xerr=_errors([ratio["value"]], [ratio]), fmt="o", color=_ALL, capsize=3,
                  markersize=6, label=label)  # fmt: skip


def _errors(values: Sequence[float], estimates: Sequence[dict[str, Any]]) -> list[list[float]]:
    """The lengths of the bars to both sides; none where there is no interval."""
    below = [max(0.0, v - e["low"]) if e["low"] is not None else 0.0 for v, e in zip(values, estimates, strict=True)]
    above = [max(0.0, e["high"] - v) if e["high"] is not None else 0.0 for v, e in zip(values, estimates, strict=True)]
    return [below, above]


def _arm_label(name: str) -> str:
    """An arm's name for people who have not read anything."""
    if name.startswith("k="):
        return f"{name}: drafts of {name[2:]} token{'' if name == 'k=1' else 's'}"
    return {
        PLAIN: "plain decoding",
        CONTROL: "plain again (control)",
        "adaptive": "adaptive draft length",
    }.get(name, name)


def _arm_colour(name: str, i: int) -> str:
    """An arm's colour: of the adaptive arm the same in all plots, of the others by their number."""
    others = [colour for colour in _COLOURS if colour != _ADAPTIVE]
    return _ADAPTIVE if name == "adaptive" else others[i % len(others)]


@contextmanager
def _canvas(height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of the report's width, without any of matplotlib's global state."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    # the ids in the file come from the salt: the same figures give the same file
    with rc_context({"svg.hashsalt": "nextn", "svg.fonttype": "path", "font.size": 10, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(8.4, height), layout="constrained")
        axes = figure.subplots()
        axes.grid(color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        yield figure, axes


def _legend(axes: Axes) -> None:
    """The legend, beside the plot, where it hides nothing."""
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: not labels[i].startswith("all prompts"))
    axes.legend([handles[i] for i in order], [labels[i] for i in order], loc="upper left",
                bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9)  # fmt: skip


def _svg(figure: Figure) -> str:
    """The figure as an svg element that can stand in a page."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return "\n".join(line.rstrip() for line in text[text.index("<svg") :].splitlines()) + "\n"
