"""The tables of each protocol, as the papers lay them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from learners.report.entries import COSTS, bands, entry
from learners.report.published import ORBIT_2021, ORBIT_2022, VTAB_MD, Published
from learners.report.results import SPLITS, Result
from learners.report.tables import Band, Column, Table, make_table, transposed
from pipeline.samplers.vtab import GROUPS

TASKS: Final = {task: group for group, tasks in GROUPS.items() for task in tasks}
MD_TITLES: Final = {
    "omniglot": "Omniglot", "aircraft": "Aircraft", "cu_birds": "Birds", "dtd": "Textures",
    "quickdraw": "Quick Draw", "fungi": "Fungi", "traffic_sign": "Traffic signs", "mscoco": "MSCOCO",
}  # fmt: skip
"""The test datasets of MD-v2, in the order of its tables."""
MODES: Final = {"cle-ve": "clean videos", "clu-ve": "clutter videos"}
METRICS: Final = {
    "frame_accuracy": "frame", "video_accuracy": "video", "frames_to_recognition": "to recognition",
}  # fmt: skip
LATE: Final[Mapping[str, Any]] = {
    "kind": "extra", "lower_is_better": True,
    "legend": "To recognition: the share of a video's frames before the first right one.",
}  # fmt: skip
PER_CENT: Final = "Per cent, ± half of the 95 % interval."


def md_tables(results: Sequence[Result], *, published: bool) -> list[Table]:
    """The average, as the paper has it, and each dataset."""
    rows = VTAB_MD if published else ()
    columns = [Column(key=name, title=MD_TITLES.get(name, name)) for name in datasets(results)]
    mean = Column(key="mean md", title="average", kind="mean")
    legend = [PER_CENT, *_sources(rows)]
    title = "Accuracy on Meta-Dataset (MD-v2)"
    return [make_table("md", title, [mean, *columns], bands(results, rows), legend)]


def datasets(results: Sequence[Result]) -> list[str]:
    """Those of Meta-Dataset in its order, then those of VTAB in its, then others by name."""
    found = {score.dataset for result in results for score in result.evaluation.scores}
    known = dict.fromkeys([*MD_TITLES, *TASKS])
    return [name for name in known if name in found] + sorted(found - known.keys())


def vtab_tables(results: Sequence[Result], *, published: bool) -> list[Table]:
    """The groups' averages beside the papers', then every task."""
    rows, variant = VTAB_MD if published else (), results[0].variant
    other = "" if variant == SPLITS["lite"] else f"they are of {SPLITS['lite']}"
    columns = [Column(key=f"mean {name}", title=name, kind="mean") for name in (*GROUPS, "all")]
    legend = ["Per cent; each task is adapted to once.", *_sources(rows)]
    title, slug = f"Accuracy on VTAB-v2, {variant}", results[0].slug
    summary = make_table(slug, title, columns, bands(results, rows, comparable=other), legend)
    tasks = [Column(key=n, title=n, over=TASKS.get(n, "others")) for n in datasets(results)]
    each = make_table(
        f"{slug}-tasks", f"{title}, by task", tasks, bands(results, ()), ["Per cent."]
    )
    return [summary, transposed(each, "task")]


def orbit_tables(results: Sequence[Result], *, published: bool) -> list[Table]:
    """As Table 1, over videos; then over users."""
    year, slug = results[0].variant, results[0].slug
    rows: Sequence[Published] = {"2021": ORBIT_2021, "2022": ORBIT_2022}.get(year, ())
    rows = rows if published else ()
    digits = 1 if year == "2021" else 2  # as they were published
    legend = [f"{PER_CENT} Means over query videos.", *_sources(rows)]
    title = f"ORBIT, protocol of {year}"
    columns = [*_metrics("", digits), *COSTS]
    videos = make_table(slug, title, columns, bands(results, rows), legend)
    share = "mean over videos" if year == "2021" else "share of all frames"
    legend = [f"{PER_CENT} Means over users of each user's {share}."]
    users = make_table(
        f"{slug}-users", f"{title}, by user", _metrics("user_", digits), bands(results, ()), legend
    )
    return [videos, users] if users.columns else [videos]


def _metrics(prefix: str, digits: int) -> list[Column]:
    return [
        Column(
            key=f"{mode} {prefix}{metric}", title=title, over=over, digits=digits,
            **LATE if metric == "frames_to_recognition" else {},
        )
        for mode, over in MODES.items()
        for metric, title in METRICS.items()
    ]  # fmt: skip


def fixed_tables(results: Sequence[Result], *, published: bool) -> list[Table]:  # noqa: ARG001
    """Datasets as columns, a band for each way, shot and kind of episode; nothing is published."""
    columns = [Column(key=name, title=name, digits=2) for name in datasets(results)]
    if len(columns) > 1:
        columns.insert(0, Column(key="mean all", title="average", kind="mean", digits=2))
    rows = []
    for setup in dict.fromkeys(result.variant for result in results):
        entries = [entry(result) for result in results if result.variant == setup]
        rows.append(Band(title=setup, entries=entries, league=setup))
    return [make_table("fixed", "Accuracy on episodes of a fixed size", columns, rows, [PER_CENT])]


def _sources(rows: Sequence[Published]) -> list[str]:
    return [f"Published rows: {source}." for source in dict.fromkeys(row.source for row in rows)]
