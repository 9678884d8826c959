"""The entries of tables, from results and published rows, and the cost of adapting as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from learners.evaluate.records import AdaptationCost
from learners.report.notes import partial_averages, protocol_deviations, result_notes
from learners.report.published import PublishedRow
from learners.report.ranks import MeanInterval
from learners.report.results import NamedResult
from learners.report.tables import ABSENT_TEXT, EntryGroup, ReportTable, TableColumn, TableEntry, make_table

COST_COLUMNS: Final = (
    TableColumn("macs", "MACs", "to adapt", kind="text"),
    TableColumn("steps", "steps", "to adapt", kind="text"),
    TableColumn("seconds", "time", "to adapt", kind="text"),
    TableColumn("parameters", "parameters", kind="text"),
)
LEARNER_COLUMNS: Final = (
    TableColumn("learner", "method", kind="text", left=True),
    TableColumn("backbone", "backbone", kind="text", left=True),
    TableColumn("pretraining", "pretrained on", kind="text", left=True),
    TableColumn("image_size", "pixels", kind="text"),
    TableColumn("h", "|H|", kind="text"),
    TableColumn("sampler", "gradient", kind="text", left=True),
    TableColumn("tasks", "trained on", kind="text"),
)
COUNT_UNITS: Final = (("T", 1e12), ("G", 1e9), ("M", 1e6))
COST_LEGEND: Final = (
    "MACs: multiply-accumulates to adapt to a task. Steps: 1F is one forward pass, 15FB are 15 forward and "
    "backward passes. Time is as it was on the machine of the evaluation."
)
EVALUATED_HERE: Final = "evaluated here"
NOT_COMPARABLE: Final = "evaluated here, not comparable with the others"
OUR_LEAGUE, APART_LEAGUE = "ours", "apart"  # ranked with the papers', and by themselves


def result_entry(result: NamedResult) -> TableEntry:
    """The entry of a result."""
    partial = partial_averages(result)
    return TableEntry(
        name=result.name,
        figures=result.figures(),
        texts={**cost_texts(result.evaluation.cost), **partial},
        partial=frozenset(partial),
        notes=result_notes(result),
    )


def published_entry(row: PublishedRow) -> TableEntry:
    """The entry of a published row; its per cent become shares."""
    figures = {
        key: MeanInterval(value / 100, None if interval is None else interval / 100)
        for key, (value, interval) in row.figures.items()
    }
    texts = {} if row.cost is None else cost_texts(row.cost)
    return TableEntry(name=row.name, figures=figures, texts=texts, published=True)


def entry_groups(
    results: Sequence[NamedResult], published: Sequence[PublishedRow], *, incomparable: str = ""
) -> list[EntryGroup]:
    """The groups of a table: results of the full protocol, results that deviate from it, published rows.

    incomparable: why published rows cannot be compared with results; "" ranks them together.
    """
    apart = [result for result in results if protocol_deviations(result)]
    full = [result for result in results if not protocol_deviations(result)]
    heading = f"published; not comparable: {incomparable}" if incomparable else "published"
    return [
        EntryGroup(EVALUATED_HERE, [result_entry(result) for result in full], OUR_LEAGUE),
        EntryGroup(NOT_COMPARABLE, [result_entry(result) for result in apart], APART_LEAGUE),
        EntryGroup(heading, [published_entry(row) for row in published],
                   "" if incomparable else OUR_LEAGUE),
    ]  # fmt: skip


def learners_table(results: Sequence[NamedResult]) -> ReportTable:
    """The table of the evaluated learners: what each is, and what adapting costs."""
    variants = dict.fromkeys(result.variant for result in results)
    rows = [
        EntryGroup(
            variant if len(variants) > 1 else "",
            [_learner_entry(result) for result in results if result.variant == variant],
        )
        for variant in variants
    ]
    name = f"{results[0].slug}-learners"
    return make_table(name, "The learners", (*LEARNER_COLUMNS, *COST_COLUMNS), rows, [COST_LEGEND])


def _learner_entry(result: NamedResult) -> TableEntry:
    texts = {**_learner_texts(result), **cost_texts(result.evaluation.cost)}
    return TableEntry(name=result.name, figures={}, texts=texts)


def _learner_texts(result: NamedResult) -> dict[str, str]:
    """The learner's description by column, as far as the evaluation has it."""
    learner = result.evaluation.learner
    texts = {c.key: str(learner[c.key]) for c in LEARNER_COLUMNS if c.key in learner}
    if "h" in texts and result.h is None:
        texts["h"] = "all"
    if "tasks" in learner:
        tasks = learner["tasks"]
        texts["tasks"] = f"{tasks:,} tasks" if tasks else "not trained"
    return texts


def cost_texts(cost: AdaptationCost) -> dict[str, str]:
    """The texts of a cost, by the keys of `COST_COLUMNS`."""
    return {
        "macs": ABSENT_TEXT if cost.macs is None else in_units(cost.macs),
        "steps": cost.steps,
        "seconds": in_seconds(cost.seconds),
        "parameters": in_units(cost.parameters),
    }


def in_units(count: float) -> str:
    """A large count with a unit prefix.

    >>> in_units(1.21e12), in_units(9.5e9), in_units(4_007_548), in_units(1250)
    ('1.21 T', '9.50 G', '4.01 M', '1,250')
    """
    for letter, size in COUNT_UNITS:
        if count >= size:
            return f"{count / size:.2f} {letter}"
    return f"{count:,.0f}"


def in_seconds(seconds: float) -> str:
    """Seconds as in Table 1; below 0.1 s in milliseconds.

    >>> text_seconds(53.94), text_seconds(0.731), text_seconds(0.00412)
    ('53.94 s', '0.73 s', '4.1 ms')
    """
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"  # noqa: PLR2004
