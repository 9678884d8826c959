"""A table before it is Markdown, LaTeX or HTML: texts in cells, ranks given, footnotes lettered."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from learners.report.ranks import Figure, average_ranks, ranks

ABSENT: Final = "-"
RANKED: Final = (
    "In brackets the rank: learners share one when the 95 % interval of their difference reaches zero, as on "
    "Meta-Dataset's leaderboard; the best are bold. Average ranks are over the columns that all learners "
    "evaluated here have."
)
RANK: Final = "rank"  # the key of the column of average ranks

Kind = Literal["score", "extra", "mean", "text"]
"""score: ranked, and part of the average rank; extra: ranked; mean: its best is marked; text: as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    key: str
    title: str
    over: str = ""
    """A heading over this column and its neighbours with the same."""
    kind: Kind = "score"
    lower_is_better: bool = False
    left: bool = False
    """Aligned."""
    digits: int = 1
    """Behind the point of a per cent."""
    legend: str = ""
    """What it is, where its title does not say it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A row before ranking."""

    name: str
    figures: Mapping[str, Figure]
    texts: Mapping[str, str] = field(default_factory=dict)
    """Of columns without figures, and what stands behind a figure: "5 of 8"."""
    partial: frozenset[str] = frozenset()
    """Keys of averages over fewer datasets than the others': not ranked."""
    notes: tuple[str, ...] = ()
    published: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """Rows under one heading."""

    title: str
    entries: Sequence[Entry]
    league: str = ""
    """Bands of one league are ranked together; "" is not ranked."""


@dataclass(frozen=True, slots=True)
class Cell:
    """Texts that a writer escapes and puts together: "72.9 ± 2.3 (1.5)"."""

    text: str
    interval: str = ""
    rank: str = ""
    best: bool = False
    aside: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    name: str
    cells: tuple[Cell, ...]
    published: bool = False
    marks: tuple[str, ...] = ()
    """Letters of its footnotes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    title: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    name: str
    """For anchors and labels: letters and hyphens."""
    title: str
    corner: str
    """Over the rows' names."""
    columns: tuple[Column, ...]
    groups: tuple[Group, ...]
    legend: tuple[str, ...] = ()
    """How to read it, and where published rows are from."""
    footnotes: tuple[tuple[str, str], ...] = ()
    """Letter and text."""


def make_table(
    name: str, title: str, columns: Sequence[Column], bands: Sequence[Band], legend: Iterable[str]
) -> Table:
    """Rank within each league and letter the notes; empty columns and bands are left out."""
    entries = [entry for band in bands for entry in band.entries]
    columns = [c for c in columns if any(c.key in e.figures or c.key in e.texts for e in entries)]
    leagues = dict.fromkeys(band.league for band in bands if band.league)
    places = {
        league: _places(columns, [e for b in bands if b.league == league for e in b.entries])
        for league in leagues
    }
    letters = _letters(entries)
    legend = [*legend, *dict.fromkeys(column.legend for column in columns if column.legend)]
    if any(
        place.keys() & {c.key for c in columns if c.kind != "mean"} for place in places.values()
    ):
        legend.append(RANKED)
    if any(RANK in place for place in places.values()):
        columns = [AVERAGE, *columns]  # what one looks for first
    groups = tuple(
        Group(
            title=band.title,
            rows=tuple(
                Row(
                    name=entry.name,
                    cells=tuple(_cell(entry, c, places.get(band.league, {})) for c in columns),
                    published=entry.published,
                    marks=tuple(sorted({letters[n] for n in entry.notes}, key=_in_turn)),
                )
                for entry in band.entries
            ),
        )
        for band in bands
        if band.entries
    )
    footnotes = tuple((letter, note) for note, letter in letters.items())
    return Table(
        name=name, title=title, corner="learner", columns=tuple(columns), groups=groups,
        legend=tuple(legend), footnotes=footnotes,
    )  # fmt: skip


AVERAGE: Final = Column(key=RANK, title="average rank", kind="text")
Places = dict[str, dict[int, float]]
"""By column, then by `id` of the entry."""


def _places(columns: Sequence[Column], entries: Sequence[Entry]) -> Places:
    """The ranks of a league, where it takes two to have any."""
    places: Places = {}
    for column in columns:
        having = [e for e in entries if column.key in e.figures and column.key not in e.partial]
        if column.kind != "text" and len(having) > 1:
            found = ranks(
                [entry.figures[column.key] for entry in having],
                lower_is_better=column.lower_is_better,
            )
            places[column.key] = {id(e): place for e, place in zip(having, found, strict=True)}
    ours = {id(entry) for entry in entries if not entry.published}
    scored = [
        places[c.key]
        for c in columns
        if c.kind == "score" and c.key in places and ours <= places[c.key].keys()
    ]
    return {**places, RANK: average_ranks(scored)} if len(scored) > 1 and ours else places


def _cell(entry: Entry, column: Column, places: Places) -> Cell:
    place = places.get(column.key, {}).get(id(entry))
    if column.key == RANK:
        return Cell(ABSENT if place is None else f"{place:.1f}")
    text = entry.texts.get(column.key, "")
    if column.key not in entry.figures:
        return Cell(text or ABSENT)
    best = place is not None and place == min(places[column.key].values())
    shown = "" if place is None or column.kind == "mean" else f"{place:g}"
    value, interval = entry.figures[column.key]
    half = "" if interval is None else f"{100 * interval:.{column.digits}f}"
    return Cell(f"{100 * value:.{column.digits}f}", half, shown, best, text)


def _letters(entries: Sequence[Entry]) -> dict[str, str]:
    """a, b, ..., z, aa, ab, ... for the notes, in the order in which a reader meets them."""
    found = dict.fromkeys(note for entry in entries for note in entry.notes)
    return {note: _letter(index) for index, note in enumerate(found)}


def _in_turn(letter: str) -> tuple[int, str]:
    return len(letter), letter


def _letter(index: int) -> str:
    first, last = divmod(index, len(string.ascii_lowercase))
    return (_letter(first - 1) if first else "") + string.ascii_lowercase[last]


def transposed(table: Table, corner: str) -> Table:
    """Columns as rows, grouped by what stands over them. Marks of rows have no place and are left out."""
    rows = [row for group in table.groups for row in group.rows]
    groups: dict[str, list[Row]] = {}
    for index, column in enumerate(table.columns):
        cells = tuple(row.cells[index] for row in rows)
        groups.setdefault(column.over, []).append(Row(name=column.title, cells=cells))
    return replace(
        table,
        corner=corner,
        columns=tuple(Column(key=str(i), title=row.name) for i, row in enumerate(rows)),
        groups=tuple(Group(title=title, rows=tuple(some)) for title, some in groups.items()),
        footnotes=(),
    )
