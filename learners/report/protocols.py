"""The tables of each protocol, laid out as in the papers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from learners.evaluate.protocols import VTAB_GROUP_OF
from learners.report.entries import COST_COLUMNS, entry_groups, result_entry
from learners.report.published import ORBIT_ROWS, VTAB_MD, PublishedRow
from learners.report.results import VTAB_SPLITS, NamedResult
from learners.report.tables import EntryGroup, ReportTable, TableColumn, make_table, transpose_table
from pipeline.samplers.vtab import VTAB_GROUPS

MD_TITLES: Final = {
    "omniglot": "Omniglot", "aircraft": "Aircraft", "cu_birds": "Birds", "dtd": "Textures",
    "quickdraw": "Quick Draw", "fungi": "Fungi", "traffic_sign": "Traffic signs", "mscoco": "MSCOCO",
}  # fmt: skip
"""The test datasets of MD-v2, in the order of its tables."""
MODE_TITLES: Final = {"cle-ve": "clean videos", "clu-ve": "clutter videos"}
METRIC_TITLES: Final = {
    "frame_accuracy": "frame", "video_accuracy": "video", "frames_to_recognition": "to recognition",
}  # fmt: skip
RECOGNITION_COLUMN: Final[Mapping[str, Any]] = {
    "kind": "extra", "lower_is_better": True,
    "legend": "To recognition: the share of a video's frames before the first right one.",
}  # fmt: skip
PER_CENT_LEGEND: Final = "Per cent, ± half of the 95 % interval."


def md_tables(results: Sequence[NamedResult], *, published: bool) -> list[ReportTable]:
    """The table of Meta-Dataset: the average, as in the paper, and each dataset."""
    rows = VTAB_MD if published else ()
    columns = [TableColumn(n, MD_TITLES.get(n, n)) for n in ordered_datasets(results)]
    mean = TableColumn("mean md", "average", kind="mean")
    legend = [PER_CENT_LEGEND, *_source_legend(rows)]
    title = "Accuracy on Meta-Dataset (MD-v2)"
    return [make_table("md", title, [mean, *columns], entry_groups(results, rows), legend)]


def ordered_datasets(results: Sequence[NamedResult]) -> list[str]:
    """The datasets of results: those of Meta-Dataset and then of VTAB in their order, then others by name."""
    names = {score.dataset for result in results for score in result.evaluation.scores}
    known = dict.fromkeys([*MD_TITLES, *VTAB_GROUP_OF])
    return [name for name in known if name in names] + sorted(names - known.keys())


def vtab_tables(results: Sequence[NamedResult], *, published: bool) -> list[ReportTable]:
    """The tables of VTAB: the groups' averages beside the published ones, then every task."""
    rows, variant = VTAB_MD if published else (), results[0].variant
    other = "" if variant == VTAB_SPLITS["lite"] else f"they are of {VTAB_SPLITS['lite']}"
    columns = [TableColumn(f"mean {n}", n, kind="mean") for n in (*VTAB_GROUPS, "all")]
    legend = ["Per cent; each task is adapted to once.", *_source_legend(rows)]
    title, slug = f"Accuracy on VTAB-v2, {variant}", results[0].slug
    groups = entry_groups(results, rows, incomparable=other)
    summary = make_table(slug, title, columns, groups, legend)
    tasks = [TableColumn(n, n, VTAB_GROUP_OF.get(n, "others")) for n in ordered_datasets(results)]
    groups = entry_groups(results, ())
    each = make_table(f"{slug}-tasks", f"{title}, by task", tasks, groups, ["Per cent."])
    return [summary, transpose_table(each, "task")]


def orbit_tables(results: Sequence[NamedResult], *, published: bool) -> list[ReportTable]:
    """The tables of ORBIT: over videos, as in Table 1, then over users."""
    year, slug = results[0].variant, results[0].slug
    rows = ORBIT_ROWS.get(year, ()) if published else ()
    digits = 1 if year == "2021" else 2  # as they were published
    legend = [f"{PER_CENT_LEGEND} Means over query videos.", *_source_legend(rows)]
    title = f"ORBIT, protocol of {year}"
    columns = [*_metric_columns("", digits), *COST_COLUMNS]
    videos = make_table(slug, title, columns, entry_groups(results, rows), legend)
    share = "mean over videos" if year == "2021" else "share of all frames"
    legend = [f"{PER_CENT_LEGEND} Means over users of each user's {share}."]
    columns, groups = _metric_columns("user_", digits), entry_groups(results, ())
    users = make_table(f"{slug}-users", f"{title}, by user", columns, groups, legend)
    return [videos, users] if users.columns else [videos]


def _metric_columns(prefix: str, digits: int) -> list[TableColumn]:
    return [
        TableColumn(
            f"{mode} {prefix}{metric}", title, over, digits=digits,
            **RECOGNITION_COLUMN if metric == "frames_to_recognition" else {},
        )
        for mode, over in MODE_TITLES.items()
        for metric, title in METRIC_TITLES.items()
    ]  # fmt: skip


def fixed_tables(results: Sequence[NamedResult], *, published: bool) -> list[ReportTable]:  # noqa: ARG001
    """The table of fixed episodes: datasets as columns, a group of rows for each variant; nothing is published."""
    columns = [TableColumn(name, name, digits=2) for name in ordered_datasets(results)]
    if len(columns) > 1:
        columns.insert(0, TableColumn("mean all", "average", kind="mean", digits=2))
    groups = []
    for variant in dict.fromkeys(result.variant for result in results):
        entries = [result_entry(result) for result in results if result.variant == variant]
        groups.append(EntryGroup(variant, entries, league=variant))
    title = "Accuracy on episodes of a fixed size"
    return [make_table("fixed", title, columns, groups, [PER_CENT_LEGEND])]


def _source_legend(rows: Sequence[PublishedRow]) -> list[str]:
    return [f"Published rows: {source}." for source in dict.fromkeys(row.source for row in rows)]
