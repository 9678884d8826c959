"""Results become the sections of a report: one for each protocol and variant, with tables and plots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal, NamedTuple

from learners.report.entries import learners_table
from learners.report.notes import limits, partial
from learners.report.page import Picture, Section
from learners.report.plots import Panel, Point, Series, against_cost, against_h, bars
from learners.report.protocols import (
    MD_TITLES,
    METRICS,
    MODES,
    datasets,
    fixed_tables,
    md_tables,
    orbit_tables,
    vtab_tables,
)
from learners.report.published import H_STUDY, ORBIT_2021, ORBIT_2022, VTAB_MD, Published
from learners.report.ranks import Figure
from learners.report.results import PROTOCOLS, SPLITS, Result, score_key
from learners.report.tables import Table

FIXED: Final = "fixed"


class Kind(NamedTuple):
    """How a protocol is told."""

    title: str
    lead: str
    tables: Callable[..., list[Table]]


KINDS: Final = {
    "md": Kind(
        "Meta-Dataset",
        "Episodes of varying way and shot from the test classes of each dataset.",
        md_tables,
    ),
    "vtab": Kind(
        "VTAB-v2", "A thousand support images and a whole test set for each task.", vtab_tables
    ),
    "orbit": Kind("ORBIT", "A user's own objects, learnt and found again in videos.", orbit_tables),
    FIXED: Kind("Fixed episodes", "Episodes of a fixed number of classes and shots.", fixed_tables),
}


def sections(results: Sequence[Result], *, published: bool = True) -> list[Section]:
    """In the order of the protocols; variants that cannot be compared are sections of their own."""
    found = []
    for protocol in PROTOCOLS:
        mine = [result for result in results if result.protocol == protocol]
        variants = [""] if protocol == FIXED else dict.fromkeys(r.variant for r in mine)
        for variant in variants:
            some = [r for r in mine if protocol == FIXED or r.variant == variant]
            if some:
                found.append(_section(some, variant, published=published))
    return found


def printed(
    results: Sequence[Result], *, published: bool = True
) -> list[tuple[str, str, Published]]:
    """Each published row that a report shows, with its protocol and variant."""
    shown = dict.fromkeys((r.protocol, r.variant) for r in results) if published else {}
    found = [(*kind, row) for kind in shown for row in _published(*kind)]
    if any(protocol == "vtab" for protocol, _ in shown) and not any(
        p == "vtab" for p, _, _ in found
    ):
        found += [("vtab", SPLITS["lite"], row) for row in H_STUDY]
    return found


def _published(protocol: str, variant: str) -> Sequence[Published]:
    if protocol == "orbit":
        return {"2021": ORBIT_2021, "2022": ORBIT_2022}.get(variant, ())
    return H_STUDY if protocol == "md" or (protocol, variant) == ("vtab", SPLITS["lite"]) else ()


def _section(results: Sequence[Result], variant: str, *, published: bool) -> Section:
    kind = KINDS[results[0].protocol]
    tables = kind.tables(results, published=published)
    return Section(
        title=f"{kind.title}, {variant}" if variant else kind.title,
        lead=kind.lead,
        tables=[*tables, learners_table(results)],
        pictures=list(_pictures(results, published=published)),
    )


def _pictures(results: Sequence[Result], *, published: bool) -> Iterator[Picture]:
    protocol, slug = results[0].protocol, results[0].slug
    yield Picture(
        name=f"{slug}-bars",
        caption="Accuracy with 95 % intervals; dotted lines are chance.",
        png=_bars(results),
    )
    costs = _cost_panels(results, published=published)
    if any(len(panel.ours) + len(panel.published) > 1 for panel in costs):
        caption = "Accuracy against the cost of adapting."
        if protocol == "orbit" and published:
            caption += " Grey: as published, filled with EfficientNet-B0, hollow with ResNet-18."
        quantity = "frame accuracy" if protocol == "orbit" else "average accuracy"
        yield Picture(name=f"{slug}-cost", caption=caption, png=against_cost(costs, quantity))
    study = _h_panels(results, published=published)
    if study is not None:
        yield Picture(
            name=f"{slug}-h",
            caption="Accuracy by the number of support images that carry gradient in training.",
            png=against_h([study]),
        )


def _bars(results: Sequence[Result]) -> bytes:
    """Datasets as groups; of ORBIT frame and video accuracy; of fixed episodes each setup's datasets.

    Results of one name in different setups are one learner.
    """
    found: dict[tuple[str, str], dict[str, Figure]] = {}
    chance: dict[tuple[str, str], float | None] = {}
    for result in results:
        setup, figures = result.variant if result.protocol == FIXED else "", result.figures()
        for score in result.evaluation.scores:
            place = (setup, score_key(score))
            found.setdefault(place, {})[result.name] = figures[place[1]]
            chance.setdefault(place, score.chance)
    order = _bar_keys(results)
    places = sorted((p for p in found if p[1] in order), key=lambda place: order.index(place[1]))
    labels = [_label(place, results[0].protocol) for place in places]
    names = dict.fromkeys(result.name for result in results)
    series = [Series(name, [found[place].get(name) for place in places]) for name in names]
    return bars(labels, series, [chance[place] for place in places])


def _bar_keys(results: Sequence[Result]) -> list[str]:
    if results[0].protocol == "orbit":
        return [f"{mode} {metric}" for mode in MODES for metric in METRICS if "accuracy" in metric]
    return datasets(results)


def _label(place: tuple[str, str], protocol: str) -> str:
    """Under a group of bars."""
    setup, key = place
    if protocol == "orbit":
        mode, _, metric = key.partition(" ")
        return f"{MODES[mode]}\n{METRICS[metric]} accuracy"
    name = MD_TITLES.get(key, key) if protocol == "md" else key
    return "\n".join([name, *setup.split(", ")] if setup else [name])


def _cost_panels(results: Sequence[Result], *, published: bool) -> list[Panel]:
    protocol, variant = results[0].protocol, results[0].variant
    if protocol == "orbit":
        keys = {f"{mode} frame_accuracy": title for mode, title in MODES.items()}
        rows: Sequence[Published] = ORBIT_2021 if variant == "2021" else ()
    else:
        keys = {"md": {"mean md": "MD-v2"}, "vtab": {"mean all": "VTAB-v2"}}.get(protocol, {})
        rows = VTAB_MD if _published(protocol, variant) else ()
    panels = [
        Panel(title, _points(results, key, "macs"), rows if published else (), key)
        for key, title in keys.items()
    ]
    return [panel for panel in panels if panel.ours]


def _h_panels(results: Sequence[Result], *, published: bool) -> Panel | None:
    """None where there is nothing to show."""
    protocol, variant = results[0].protocol, results[0].variant
    key = {"md": "mean md", "vtab": "mean all"}.get(protocol)
    if key is None:
        return None
    rows = _published(protocol, variant) if published else ()
    ours = _points(results, key, "h")
    title = {"md": "MD-v2", "vtab": "VTAB-v2"}[protocol]
    return Panel(title, ours, rows, key) if len(rows) + len(ours) > 1 else None


def _points(results: Sequence[Result], key: str, x: Literal["macs", "h"]) -> list[Point]:
    """Ours, where both figures are known; a name says what is short of the whole protocol."""
    points = []
    for result in results:
        at = result.evaluation.cost.macs if x == "macs" else result.h
        figure = result.figures().get(key)
        if at is not None and figure is not None:
            short = partial(result).get(key) or ("not comparable" if limits(result) else "")
            points.append(Point(result.name + (f" ({short})" if short else ""), float(at), figure))
    return points
