"""The report's plots as PNG: bars of each dataset, accuracy against cost, accuracy against |H|."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from learners.report.entries import in_units
from learners.report.published import Published
from learners.report.ranks import Figure
from pipeline.errors import UsageError

DPI: Final = 160
WIDTH: Final = 9.0  # inches
PANEL: Final = 3.6  # inches high
COLOURS: Final = (
    "#2f6db5",
    "#d9822b",
    "#3d9270",
    "#b5485d",
    "#7a5fb0",
    "#8a6d3b",
    "#4aa3b8",
    "#6b7280",
)
GREYS: Final = {84: "#b9bec7", 224: "#7d838e"}
MARKERS: Final = {
    "FineTuner": "o", "FineTuner + FiLM": "o", "MAML": "s", "ProtoNets": "^", "ProtoNets (cosine)": "^",
    "CNAPs": "D", "Simple CNAPs": "v",
}  # fmt: skip
"""Of published learners, LITE or not."""
STYLE: Final[Mapping[Any, Any]] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10,
    "axes.edgecolor": "#4a4f58", "axes.linewidth": 0.8, "legend.frameon": False, "legend.fontsize": 8,
    "xtick.color": "#4a4f58", "ytick.color": "#4a4f58", "font.family": "DejaVu Sans",
    "text.parse_math": False,
}  # fmt: skip
INK: Final = "#22252b"
LETTERS: Final = 110  # of labels side by side in a plot's width
DECADE: Final = 3.0  # room on both sides of a logarithmic axis: at least one power of ten shows
HUNDRED: Final = 100  # between the ends of an axis: powers of ten are ticks enough
GROUP: Final = 0.8  # of the distance between groups of bars is bars


class Series(NamedTuple):
    """One learner's bars; None where it has none."""

    name: str
    figures: Sequence[Figure | None]


class Point(NamedTuple):
    """One learner in a plot; x is MACs or |H|."""

    name: str
    x: float
    figure: Figure


class Panel(NamedTuple):
    """One pair of axes: our points, and published rows with the key of what they show."""

    title: str
    ours: Sequence[Point]
    published: Sequence[Published]
    key: str


def bars(labels: Sequence[str], series: Sequence[Series], chance: Sequence[float | None]) -> bytes:
    """A group for each label, a bar with its interval for each learner; dashes are chance."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for index, one in enumerate(series):
            _bars_of(axes, index, one, series)
        for at, level in enumerate(chance):
            if level is not None:
                axes.hlines(100 * level, at - 0.45, at + 0.45, colors=INK, linestyles=":")
        longest = max(len(line) for label in labels for line in label.splitlines())
        slanted = longest * len(labels) > LETTERS
        turn = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        axes.set_xticks(range(len(labels)), labels, **turn)
        axes.tick_params(axis="x", length=0)
        axes.set(ylabel="accuracy (%)", ylim=(0, 100), xlim=(-0.6, len(labels) - 0.4))
        _grid(axes, "y")
        _legend_above(figure, axes)

    return _png(draw, PANEL)


def _bars_of(axes: Any, index: int, one: Series, series: Sequence[Series]) -> None:
    """A learner's bars; those that are there share the middle of their group."""
    width = GROUP / max(
        sum(s.figures[at] is not None for s in series) for at in range(len(one.figures))
    )
    shown = [(at, figure) for at, figure in enumerate(one.figures) if figure is not None]
    places = []
    for at, _ in shown:
        there = [i for i, s in enumerate(series) if s.figures[at] is not None]
        places.append(at + width * (there.index(index) - (len(there) - 1) / 2))
    colour = COLOURS[index % len(COLOURS)]
    axes.bar(places, [100 * f.value for _, f in shown], 0.92 * width, color=colour, label=one.name)
    certain = [
        (x, f.value, f.interval) for x, (_, f) in zip(places, shown, strict=True) if f.interval
    ]
    for x, value, interval in certain:
        axes.errorbar(x, 100 * value, yerr=100 * interval, color=INK, elinewidth=0.9, capsize=1.5)


def against_cost(panels: Sequence[Panel], quantity: str) -> bytes:
    """Accuracy over MACs to adapt, on a logarithmic axis; published rows in grey."""

    def draw(figure: Any) -> None:
        for axes, panel in zip(_axes(figure, panels), panels, strict=True):
            _stars(axes, panel.ours)
            for row in panel.published:
                _published_cost(axes, row, panel.key)
            _logarithmic(axes)
            axes.margins(y=0.1)
            axes.set(xlabel="multiply-accumulates to adapt", title=panel.title)
            axes.set_ylabel(f"{quantity} (%)")
            _grid(axes, "both")
        _legend_right(figure, panels)

    return _png(draw, PANEL + 0.4)


def _logarithmic(axes: Any) -> None:
    """Powers of ten in words: 10 G, 1 T."""
    from matplotlib.ticker import LogLocator  # noqa: PLC0415 - an extra

    axes.set_xscale("log")
    known = [x for line in axes.lines for x in line.get_xdata() if x > 1]  # a level spans 0 to 1
    low, high = min(known) / DECADE, max(known) * DECADE
    axes.set_xlim(low, high)
    steps = (1.0,) if high / low > HUNDRED else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(lambda count, _: in_units(count).replace(".00", ""))
    axes.xaxis.set_minor_formatter(lambda _count, _: "")


def _published_cost(axes: Any, row: Published, key: str) -> None:
    """A grey point, the larger the larger its images; a line where no cost was published."""
    value, interval = row.figures[key]
    if row.cost is None or row.cost.macs is None:
        axes.axhline(value, linestyle="--", linewidth=0.9, color="#8b909a", zorder=1)
        axes.annotate(
            row.name, (0.01, value), xycoords=("axes fraction", "data"), xytext=(0, 3),
            textcoords="offset points", fontsize=7, color="#5b606a",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0}, zorder=1.5,
        )  # fmt: skip
        return
    plain = row.learner.removesuffix(" + LITE")
    filled = "EfficientNet" in row.backbone
    axes.errorbar(
        row.cost.macs, value, yerr=interval, linestyle="none", marker=MARKERS[plain], markersize=6,
        color=GREYS[row.image_size], markerfacecolor=GREYS[row.image_size] if filled else "white",
        elinewidth=0.7, label=_published_label(plain, row), zorder=2,
    )  # fmt: skip


def _published_label(plain: str, row: Published) -> str:
    short = row.backbone.replace("ResNet-", "RN").replace("EfficientNet-", "EN-")
    return f"{plain}, {short}, {row.image_size} px"


def against_h(panels: Sequence[Panel]) -> bytes:
    """Accuracy over |H|, the paper's Table 2 as lines."""

    def draw(figure: Any) -> None:
        for axes, panel in zip(_axes(figure, panels), panels, strict=True):
            _stars(axes, panel.ours)
            families = dict.fromkeys((r.learner, r.image_size) for r in panel.published)
            for family in families:
                rows = [r for r in panel.published if (r.learner, r.image_size) == family]
                _published_h(axes, rows, panel.key)
            axes.set(xlabel="|H|, support images with gradient", title=panel.title)
            axes.set_ylabel("accuracy (%)")
            axes.margins(y=0.12)
            _grid(axes, "both")
        _legend_right(figure, panels)

    return _png(draw, PANEL)


def _published_h(axes: Any, rows: Sequence[Published], key: str) -> None:
    plain = rows[0].learner.removesuffix(" + LITE")
    label, grey = f"{plain}, {rows[0].image_size} px", GREYS[rows[0].image_size]
    sizes = [row.h for row in rows if row.h is not None]
    values = [row.figures[key].value for row in rows if row.h is not None]
    if sizes:
        axes.plot(
            sizes, values, marker=MARKERS[plain], color=grey, markersize=5, label=label, zorder=2
        )
    for row in rows:
        if row.h is None:
            level = row.figures[key].value
            axes.axhline(level, linestyle=":", color=grey, label=f"{label}, all of them", zorder=1)


def _stars(axes: Any, points: Sequence[Point]) -> None:
    for index, (name, x, (value, interval)) in enumerate(points):
        axes.errorbar(
            x, 100 * value, yerr=None if interval is None else 100 * interval, linestyle="none",
            marker="*", markersize=12, color=COLOURS[index % len(COLOURS)], markeredgecolor="white",
            markeredgewidth=0.6, elinewidth=1.1, capsize=2, label=name, zorder=4,
        )  # fmt: skip


def _axes(figure: Any, panels: Sequence[Panel]) -> Sequence[Any]:
    return figure.subplots(1, len(panels), squeeze=False)[0]  # type: ignore[no-any-return]


def _grid(axes: Any, axis: str) -> None:
    axes.grid(visible=True, axis=axis, color="#e4e6ea", linewidth=0.7)
    axes.set_axisbelow(True)


def _legend_above(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 4))


def _legend_right(figure: Any, panels: Sequence[Panel]) -> None:
    """One for all panels, each name once; ours first."""
    found: dict[str, Any] = dict.fromkeys(point.name for panel in panels for point in panel.ours)
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        for handle, label in zip(handles, labels, strict=True):
            found[label] = found.get(label) or handle
    figure.legend(found.values(), found.keys(), loc="outside right upper")


def _png(draw: Callable[[Any], None], height: float) -> bytes:
    """The same bytes for the same figures."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure as Canvas  # noqa: PLC0415
    except ImportError as error:
        raise UsageError("a report needs matplotlib: pip install -e '.[train]'") from error
    out = io.BytesIO()
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own style would change the bytes
        mpl.rcParams.update(STYLE)
        figure = Canvas(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()
