"""Results and published rows become entries of tables, and what adapting costs becomes text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from learners.evaluate.records import Cost
from learners.report.notes import limits, notes, partial
from learners.report.published import Published
from learners.report.ranks import Figure
from learners.report.results import Result
from learners.report.tables import ABSENT, Band, Column, Entry, Table, make_table

COSTS: Final = (
    Column(key="macs", title="MACs", over="to adapt", kind="text"),
    Column(key="steps", title="steps", over="to adapt", kind="text"),
    Column(key="seconds", title="time", over="to adapt", kind="text"),
    Column(key="parameters", title="parameters", kind="text"),
)
FACTS: Final = (
    Column(key="learner", title="method", kind="text", left=True),
    Column(key="backbone", title="backbone", kind="text", left=True),
    Column(key="image_size", title="pixels", kind="text"),
    Column(key="h", title="|H|", kind="text"),
    Column(key="sampler", title="gradient", kind="text", left=True),
    Column(key="tasks", title="trained on", kind="text"),
)
UNITS: Final = (("T", 1e12), ("G", 1e9), ("M", 1e6))
READING: Final = (
    "MACs: multiply-accumulates to adapt to a task. Steps: 1F is one forward pass, 15FB are 15 forward and "
    "backward passes. Time is as it was on the machine of the evaluation."
)
HERE: Final = "evaluated here"
APART: Final = "evaluated here, not comparable with the others"
OURS, REST = "ours", "apart"  # ranked with the papers', and by themselves


def entry(result: Result) -> Entry:
    """A row of ours."""
    short = partial(result)
    return Entry(
        name=result.name,
        figures=result.figures(),
        texts={**cost_texts(result.evaluation.cost), **short},
        partial=frozenset(short),
        notes=notes(result),
    )


def published_entry(row: Published) -> Entry:
    """A row of a paper, its per cent as shares."""
    figures = {
        key: Figure(value / 100, None if interval is None else interval / 100)
        for key, (value, interval) in row.figures.items()
    }
    texts = {} if row.cost is None else cost_texts(row.cost)
    return Entry(name=row.name, figures=figures, texts=texts, published=True)


def bands(
    results: Sequence[Result], published: Sequence[Published], *, comparable: str = ""
) -> list[Band]:
    """Ours, ours that left the protocol, the papers'.

    `comparable` says why the papers' cannot be compared; "" ranks them together with ours.
    """
    apart = [result for result in results if limits(result)]
    full = [result for result in results if not limits(result)]
    heading = f"published; not comparable: {comparable}" if comparable else "published"
    return [
        Band(title=HERE, entries=[entry(result) for result in full], league=OURS),
        Band(title=APART, entries=[entry(result) for result in apart], league=REST),
        Band(
            title=heading,
            entries=[published_entry(row) for row in published],
            league="" if comparable else OURS,
        ),
    ]


def learners_table(results: Sequence[Result]) -> Table:
    """What each of ours is and costs."""
    variants = dict.fromkeys(result.variant for result in results)
    rows = [
        Band(
            title=variant if len(variants) > 1 else "",
            entries=[_described(result) for result in results if result.variant == variant],
        )
        for variant in variants
    ]
    name = f"{results[0].slug}-learners"
    return make_table(name, "The learners", (*FACTS, *COSTS), rows, [READING])


def _described(result: Result) -> Entry:
    texts = {**_facts(result), **cost_texts(result.evaluation.cost)}
    return Entry(name=result.name, figures={}, texts=texts)


def _facts(result: Result) -> dict[str, str]:
    """What is known of the learner; an evaluation need not say all."""
    about = result.evaluation.learner
    found = {key: str(about[key]) for key in (column.key for column in FACTS) if key in about}
    if "h" in found and result.h is None:
        found["h"] = "all"
    if "tasks" in about:
        tasks = about["tasks"]
        found["tasks"] = f"{tasks:,} tasks" if tasks else "not trained"
    return found


def cost_texts(cost: Cost) -> dict[str, str]:
    """By the keys of `COSTS`."""
    return {
        "macs": ABSENT if cost.macs is None else in_units(cost.macs),
        "steps": cost.steps,
        "seconds": text_seconds(cost.seconds),
        "parameters": in_units(cost.parameters),
    }


def in_units(count: float) -> str:
    """A large count for people.

    >>> in_units(1.21e12), in_units(9.5e9), in_units(4_007_548), in_units(1250)
    ('1.21 T', '9.50 G', '4.01 M', '1,250')
    """
    for letter, size in UNITS:
        if count >= size:
            return f"{count / size:.2f} {letter}"
    return f"{count:,.0f}"


def text_seconds(seconds: float) -> str:
    """As Table 1 has it; milliseconds where that is nothing.

    >>> text_seconds(53.94), text_seconds(0.731), text_seconds(0.00412)
    ('53.94 s', '0.73 s', '4.1 ms')
    """
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{1000 * seconds:.1f} ms"  # noqa: PLR2004
