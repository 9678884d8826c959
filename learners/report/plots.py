"""The report's plots as PNG: bars of each dataset, accuracy against cost, accuracy against |H|."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from learners.report.entries import in_units
from learners.report.published import PublishedRow
from learners.report.ranks import MeanInterval
from pipeline.errors import UsageError

DPI: Final = 160
PLOT_WIDTH: Final = 9.0  # inches
PANEL_HEIGHT: Final = 3.6  # inches
PLOT_COLOURS: Final = (
    "#2f6db5", "#d9822b", "#3d9270", "#b5485d", "#7a5fb0", "#8a6d3b", "#4aa3b8", "#6b7280",
)  # fmt: skip
PUBLISHED_GREYS: Final = {84: "#b9bec7", 224: "#7d838e"}
PUBLISHED_MARKERS: Final = {
    "FineTuner": "o", "FineTuner + FiLM": "o", "MAML": "s", "ProtoNets": "^", "ProtoNets (cosine)": "^",
    "CNAPs": "D", "Simple CNAPs": "v",
}  # fmt: skip
"""The markers of published learners, with LITE or without."""
PLOT_STYLE: Final[Mapping[Any, Any]] = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10,
    "axes.edgecolor": "#4a4f58", "axes.linewidth": 0.8, "legend.frameon": False, "legend.fontsize": 8,
    "xtick.color": "#4a4f58", "ytick.color": "#4a4f58", "font.family": "DejaVu Sans",
    "text.parse_math": False,
}  # fmt: skip
PLOT_INK: Final = "#22252b"
FLAT_LABEL_LETTERS: Final = 110  # letters that fit side by side; longer labels are slanted
AXIS_MARGIN: Final = 3.0  # factor on both sides of a logarithmic axis, so that a power of ten shows
WIDE_RANGE: Final = 100  # ratio of an axis's ends from which powers of ten are ticks enough
BAR_GROUP_WIDTH: Final = 0.8  # of the distance between groups


class BarSeries(NamedTuple):
    """The bars of one learner; None where one is missing."""

    name: str
    figures: Sequence[MeanInterval | None]


class PlotPoint(NamedTuple):
    """The point of one learner; x is MACs or |H|."""

    name: str
    x: float
    figure: MeanInterval


class PlotPanel(NamedTuple):
    """One pair of axes: points of results, and published rows with the key of the figure to show."""

    title: str
    ours: Sequence[PlotPoint]
    published: Sequence[PublishedRow]
    key: str


def plot_bars(labels: Sequence[str], series: Sequence[BarSeries], chance: Sequence[float | None]) -> bytes:
    """Plot a group of bars for each label, with a bar and its interval for each learner; dots are chance."""

    def draw(figure: Any) -> None:
        axes = figure.subplots()
        for index in range(len(series)):
            _draw_bars(axes, index, series)
        for at, level in enumerate(chance):
            if level is not None:
                axes.hlines(100 * level, at - 0.45, at + 0.45, colors=PLOT_INK, linestyles=":")
        longest = max(len(line) for label in labels for line in label.splitlines())
        slanted = longest * len(labels) > FLAT_LABEL_LETTERS
        turn = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if slanted else {}
        axes.set_xticks(range(len(labels)), labels, **turn)
        axes.tick_params(axis="x", length=0)
        axes.set(ylabel="accuracy (%)", ylim=(0, 100), xlim=(-0.6, len(labels) - 0.4))
        _draw_grid(axes, "y")
        _legend_above(figure, axes)

    return _render_png(draw, PANEL_HEIGHT)


def _draw_bars(axes: Any, index: int, series: Sequence[BarSeries]) -> None:
    """Draw the bars of one of the series; the bars of a group are centred on its label."""
    own = series[index]
    width = BAR_GROUP_WIDTH / max(
        sum(s.figures[at] is not None for s in series) for at in range(len(own.figures))
    )
    shown = [(at, figure) for at, figure in enumerate(own.figures) if figure is not None]
    positions = []
    for at, _ in shown:
        present = [i for i, s in enumerate(series) if s.figures[at] is not None]
        positions.append(at + width * (present.index(index) - (len(present) - 1) / 2))
    colour = PLOT_COLOURS[index % len(PLOT_COLOURS)]
    axes.bar(positions, [100 * f.value for _, f in shown], 0.92 * width, color=colour, label=own.name)
    for x, (_, (value, interval)) in zip(positions, shown, strict=True):
        if interval:
            axes.errorbar(x, 100 * value, yerr=100 * interval, color=PLOT_INK, elinewidth=0.9,
                          capsize=1.5)  # fmt: skip


def plot_against_cost(panels: Sequence[PlotPanel], quantity: str) -> bytes:
    """Plot accuracy over MACs to adapt, on a logarithmic axis; published rows are grey."""

    def draw(figure: Any) -> None:
        for axes, panel in zip(_make_axes(figure, panels), panels, strict=True):
            _draw_points(axes, panel.ours)
            for row in panel.published:
                _draw_published_cost(axes, row, panel.key)
            _make_logarithmic(axes)
            axes.margins(y=0.1)
            axes.set(xlabel="multiply-accumulates to adapt", title=panel.title)
            axes.set_ylabel(f"{quantity} (%)")
            _draw_grid(axes, "both")
        _legend_right(figure, panels)

    return _render_png(draw, PANEL_HEIGHT + 0.4)


def _make_logarithmic(axes: Any) -> None:
    """Make the x axis logarithmic, with powers of ten as 10 G, 1 T."""
    from matplotlib.ticker import LogLocator  # noqa: PLC0415 - an extra

    axes.set_xscale("log")
    costs = [x for line in axes.lines for x in line.get_xdata() if x > 1]  # a level spans 0 to 1
    low, high = min(costs) / AXIS_MARGIN, max(costs) * AXIS_MARGIN
    axes.set_xlim(low, high)
    steps = (1.0,) if high / low > WIDE_RANGE else (1.0, 2.0, 5.0)
    axes.xaxis.set_major_locator(LogLocator(subs=steps))
    axes.xaxis.set_major_formatter(lambda count, _: in_units(count).replace(".00", ""))
    axes.xaxis.set_minor_formatter(lambda _count, _: "")


def _draw_published_cost(axes: Any, row: PublishedRow, key: str) -> None:
    """Draw a grey point, the darker the larger its images, or a line for a row without a published cost."""
    value, interval = row.figures[key]
    if row.cost is None or row.cost.macs is None:
        axes.axhline(value, linestyle="--", linewidth=0.9, color="#8b909a", zorder=1)
        axes.annotate(
            row.name, (0.01, value), xycoords=("axes fraction", "data"), xytext=(0, 3),
            textcoords="offset points", fontsize=7, color="#5b606a",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0}, zorder=1.5,
        )  # fmt: skip
        return
    plain, grey = row.learner.removesuffix(" + LITE"), PUBLISHED_GREYS[row.image_size]
    filled = "EfficientNet" in row.backbone
    axes.errorbar(
        row.cost.macs, value, yerr=interval, linestyle="none", marker=PUBLISHED_MARKERS[plain],
        markersize=6, color=grey, markerfacecolor=grey if filled else "white",
        elinewidth=0.7, label=_published_label(plain, row), zorder=2,
    )  # fmt: skip


def _published_label(plain: str, row: PublishedRow) -> str:
    short = row.backbone.replace("ResNet-", "RN").replace("EfficientNet-", "EN-")
    return f"{plain}, {short}, {row.image_size} px"


def plot_against_h(panels: Sequence[PlotPanel]) -> bytes:
    """Plot accuracy over |H|, with the paper's Table 2 as lines."""

    def draw(figure: Any) -> None:
        for axes, panel in zip(_make_axes(figure, panels), panels, strict=True):
            _draw_points(axes, panel.ours)
            families = dict.fromkeys((r.learner, r.image_size) for r in panel.published)
            for family in families:
                rows = [r for r in panel.published if (r.learner, r.image_size) == family]
                _draw_published_h(axes, rows, panel.key)
            axes.set(xlabel="|H|, support images with gradient", title=panel.title)
            axes.set_ylabel("accuracy (%)")
            axes.margins(y=0.12)
            _draw_grid(axes, "both")
        _legend_right(figure, panels)

    return _render_png(draw, PANEL_HEIGHT)


def _draw_published_h(axes: Any, rows: Sequence[PublishedRow], key: str) -> None:
    plain = rows[0].learner.removesuffix(" + LITE")
    label, grey = f"{plain}, {rows[0].image_size} px", PUBLISHED_GREYS[rows[0].image_size]
    sizes = [row.h for row in rows if row.h is not None]
    values = [row.figures[key].value for row in rows if row.h is not None]
    if sizes:
        axes.plot(sizes, values, marker=PUBLISHED_MARKERS[plain], color=grey, markersize=5,
                  label=label, zorder=2)  # fmt: skip
    for row in rows:
        if row.h is None:
            level = row.figures[key].value
            axes.axhline(level, linestyle=":", color=grey, label=f"{label}, all of them", zorder=1)


def _draw_points(axes: Any, points: Sequence[PlotPoint]) -> None:
    for index, (name, x, (value, interval)) in enumerate(points):
        axes.errorbar(
            x, 100 * value, yerr=None if interval is None else 100 * interval, linestyle="none",
            marker="*", markersize=12, color=PLOT_COLOURS[index % len(PLOT_COLOURS)], markeredgecolor="white",
            markeredgewidth=0.6, elinewidth=1.1, capsize=2, label=name, zorder=4,
        )  # fmt: skip


def _make_axes(figure: Any, panels: Sequence[PlotPanel]) -> Sequence[Any]:
    return figure.subplots(1, len(panels), squeeze=False)[0]  # type: ignore[no-any-return]


def _draw_grid(axes: Any, axis: str) -> None:
    axes.grid(visible=True, axis=axis, color="#e4e6ea", linewidth=0.7)
    axes.set_axisbelow(True)


def _legend_above(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 4))


def _legend_right(figure: Any, panels: Sequence[PlotPanel]) -> None:
    """Draw one legend for all panels, with each name once; results come first."""
    entries: dict[str, Any] = dict.fromkeys(point.name for panel in panels for point in panel.ours)
    for axes in figure.axes:
        handles, labels = axes.get_legend_handles_labels()
        for handle, label in zip(handles, labels, strict=True):
            entries[label] = entries.get(label) or handle
    figure.legend(entries.values(), entries.keys(), loc="outside right upper")


def _render_png(draw: Callable[[Any], None], height: float) -> bytes:
    """The PNG of a drawing: the same bytes for the same figures."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure as Canvas  # noqa: PLC0415
    except ImportError as error:
        raise UsageError("a report needs matplotlib: pip install -e '.[train]'") from error
    out = io.BytesIO()
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own style would change the bytes
        mpl.rcParams.update(PLOT_STYLE)
        figure = Canvas(figsize=(PLOT_WIDTH, height), layout="constrained")
        draw(figure)
        figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()
