"""The sections of a report: one for each protocol and variant of the results, with tables and plots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

from learners.evaluate.protocols import PROTOCOLS
from learners.report.calibration import calibration_table
from learners.report.entries import learners_table
from learners.report.notes import partial_averages, protocol_deviations
from learners.report.page import ReportPlot, ReportSection
from learners.report.plots import (
    BarSeries,
    PlotPanel,
    PlotPoint,
    plot_against_cost,
    plot_against_h,
    plot_bars,
)
from learners.report.protocols import (
    MD_TITLES,
    METRIC_TITLES,
    MODE_TITLES,
    fixed_tables,
    md_tables,
    orbit_tables,
    ordered_datasets,
    vtab_tables,
)
from learners.report.published import H_STUDY, ORBIT_2021, ORBIT_ROWS, VTAB_MD, PublishedRow
from learners.report.ranks import MeanInterval
from learners.report.results import VTAB_SPLITS, NamedResult, score_key
from learners.report.tables import ReportTable

FIXED_PROTOCOL: Final = "fixed"
PUBLISHED_VTAB: Final = ("vtab", VTAB_SPLITS["lite"])  # protocol and variant


class ProtocolSection(NamedTuple):
    """The title, tables and introduction of a protocol's section."""

    title: str
    tables: Callable[..., list[ReportTable]]
    lead: str


PROTOCOL_SECTIONS: Final = {
    "md": ProtocolSection("Meta-Dataset", md_tables,
        "Episodes of varying way and shot from the test classes of each dataset."),
    "vtab": ProtocolSection("VTAB-v2", vtab_tables,
        "A thousand support images and a whole test set for each task."),
    "orbit": ProtocolSection("ORBIT", orbit_tables,
        "A user's own objects, learnt and found again in videos."),
    FIXED_PROTOCOL: ProtocolSection("Fixed episodes", fixed_tables,
        "Episodes of a fixed number of classes and shots."),
}  # fmt: skip


def make_sections(results: Sequence[NamedResult], *, published: bool = True) -> list[ReportSection]:
    """The sections in the order of the protocols; variants that cannot be compared have one each."""
    sections: dict[tuple[str, str], list[NamedResult]] = {}
    for result in sorted(results, key=lambda result: list(PROTOCOLS).index(result.protocol)):
        variant = "" if result.protocol == FIXED_PROTOCOL else result.variant
        sections.setdefault((result.protocol, variant), []).append(result)
    return [_make_section(own, variant, published=published) for (_, variant), own in sections.items()]


def printed_rows(
    results: Sequence[NamedResult], *, published: bool = True
) -> list[tuple[str, str, PublishedRow]]:
    """The published rows that a report shows, each with its protocol and variant."""
    shown = dict.fromkeys((r.protocol, r.variant) for r in results) if published else {}
    if any(protocol == "vtab" for protocol, _ in shown):
        shown.setdefault(PUBLISHED_VTAB)
    return [(*kind, row) for kind in shown for row in _published_rows(*kind)]


def _published_rows(protocol: str, variant: str) -> Sequence[PublishedRow]:
    if protocol == "orbit":
        return ORBIT_ROWS.get(variant, ())
    return H_STUDY if protocol == "md" or (protocol, variant) == PUBLISHED_VTAB else ()


def _make_section(results: Sequence[NamedResult], variant: str, *, published: bool) -> ReportSection:
    kind = PROTOCOL_SECTIONS[results[0].protocol]
    tables = kind.tables(results, published=published)
    return ReportSection(
        title=f"{kind.title}, {variant}" if variant else kind.title,
        lead=kind.lead,
        tables=[*tables, *filter(None, [calibration_table(results)]), learners_table(results)],
        plots=list(_make_plots(results, published=published)),
    )


def _make_plots(results: Sequence[NamedResult], *, published: bool) -> Iterator[ReportPlot]:
    protocol, slug = results[0].protocol, results[0].slug
    yield ReportPlot(
        name=f"{slug}-bars",
        caption="Accuracy with 95 % intervals; dotted lines are chance.",
        png=_bar_plot(results),
    )
    costs = _cost_panels(results, published=published)
    if any(len(panel.ours) + len(panel.published) > 1 for panel in costs):
        caption = "Accuracy against the cost of adapting."
        if protocol == "orbit" and published:
            caption += " Grey: as published, filled with EfficientNet-B0, hollow with ResNet-18."
        quantity = "frame accuracy" if protocol == "orbit" else "average accuracy"
        yield ReportPlot(name=f"{slug}-cost", caption=caption, png=plot_against_cost(costs, quantity))
    study = _h_panel(results, published=published)
    if study is not None:
        yield ReportPlot(
            name=f"{slug}-h",
            caption="Accuracy by the number of support images that carry gradient in training.",
            png=plot_against_h([study]),
        )


def _bar_plot(results: Sequence[NamedResult]) -> bytes:
    """The bars: a group for each dataset; for each of ORBIT's accuracies; for each dataset of a fixed variant.

    Results of one name in several variants of fixed episodes count as one learner.
    """
    bars: dict[tuple[str, str], dict[str, MeanInterval]] = {}
    chance: dict[tuple[str, str], float | None] = {}
    for result in results:
        variant = result.variant if result.protocol == FIXED_PROTOCOL else ""
        figures = result.figures()
        for score in result.evaluation.scores:
            group = (variant, score_key(score))
            bars.setdefault(group, {})[result.name] = figures[group[1]]
            chance.setdefault(group, score.chance)
    order = _bar_keys(results)
    groups = sorted((g for g in bars if g[1] in order), key=lambda group: order.index(group[1]))
    labels = [_bar_label(group, results[0].protocol) for group in groups]
    names = dict.fromkeys(result.name for result in results)
    series = [BarSeries(name, [bars[group].get(name) for group in groups]) for name in names]
    return plot_bars(labels, series, [chance[group] for group in groups])


def _bar_keys(results: Sequence[NamedResult]) -> list[str]:
    if results[0].protocol == "orbit":
        metrics = [metric for metric in METRIC_TITLES if "accuracy" in metric]
        return [f"{mode} {metric}" for mode in MODE_TITLES for metric in metrics]
    return ordered_datasets(results)


def _bar_label(group: tuple[str, str], protocol: str) -> str:
    """The label of a group of bars."""
    variant, key = group
    if protocol == "orbit":
        mode, _, metric = key.partition(" ")
        return f"{MODE_TITLES[mode]}\n{METRIC_TITLES[metric]} accuracy"
    name = MD_TITLES.get(key, key) if protocol == "md" else key
    return "\n".join([name, *variant.split(", ")] if variant else [name])


def _cost_panels(results: Sequence[NamedResult], *, published: bool) -> list[PlotPanel]:
    protocol, variant = results[0].protocol, results[0].variant
    if protocol == "orbit":
        keys = {f"{mode} frame_accuracy": title for mode, title in MODE_TITLES.items()}
        rows: Sequence[PublishedRow] = ORBIT_2021 if variant == "2021" else ()
    else:
        keys = {"md": {"mean md": "MD-v2"}, "vtab": {"mean all": "VTAB-v2"}}.get(protocol, {})
        rows = VTAB_MD if _published_rows(protocol, variant) else ()
    panels = [
        PlotPanel(title, _plot_points(results, key, "macs"), rows if published else (), key)
        for key, title in keys.items()
    ]
    return [panel for panel in panels if panel.ours]


def _h_panel(results: Sequence[NamedResult], *, published: bool) -> PlotPanel | None:
    """The panel of accuracy against |H|, or None without enough points."""
    protocol, variant = results[0].protocol, results[0].variant
    key = {"md": "mean md", "vtab": "mean all"}.get(protocol)
    if key is None:
        return None
    rows = _published_rows(protocol, variant) if published else ()
    ours = _plot_points(results, key, "h")
    title = {"md": "MD-v2", "vtab": "VTAB-v2"}[protocol]
    return PlotPanel(title, ours, rows, key) if len(rows) + len(ours) > 1 else None


def _plot_points(results: Sequence[NamedResult], key: str, x: Literal["macs", "h"]) -> list[PlotPoint]:
    """The results with both figures; a name says how its result falls short of the protocol."""
    points = []
    for result in results:
        position = result.evaluation.cost.macs if x == "macs" else result.h
        figure = result.figures().get(key)
        if position is not None and figure is not None:
            deviation = "not comparable" if protocol_deviations(result) else ""
            aside = partial_averages(result).get(key) or deviation
            name = f"{result.name} ({aside})" if aside else result.name
            points.append(PlotPoint(name, float(position), figure))
    return points
