"""Tables before they are Markdown, LaTeX or HTML: cells of text, with ranks and lettered footnotes."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from learners.report.ranks import MeanInterval, average_ranks, tied_ranks

ABSENT_TEXT: Final = "-"
RANK_LEGEND: Final = (
    "In brackets the rank: learners share one when the 95 % interval of their difference reaches zero, as on "
    "Meta-Dataset's leaderboard; the best are bold. Average ranks are over the columns that all learners "
    "evaluated here have."
)
RANK_KEY: Final = "rank"  # the key of the column of average ranks

ColumnKind = Literal["score", "extra", "mean", "text"]
"""score: ranked, and part of the average rank; extra: ranked; mean: only the best is marked; text: shown as is."""


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column: the key of its figures and texts, its titles, and how its cells look."""

    key: str
    title: str
    over: str = ""
    """The heading over this column and its neighbours with the same heading."""
    kind: ColumnKind = "score"
    lower_is_better: bool = False
    left: bool = False
    """Aligned to the left."""
    digits: int = 1
    """Decimals of a per cent."""
    legend: str = ""
    """An explanation below the table, where the title needs one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableEntry:
    """A row before it is ranked and becomes text."""

    name: str
    figures: Mapping[str, MeanInterval]
    texts: Mapping[str, str] = field(default_factory=dict)
    """By column: the text of one without a figure, or what stands behind the figure: "5 of 8"."""
    partial: frozenset[str] = frozenset()
    """The keys of averages over fewer datasets than the benchmark has; these are not ranked."""
    notes: tuple[str, ...] = ()
    published: bool = False


@dataclass(frozen=True, slots=True)
class EntryGroup:
    """Entries under one heading."""

    title: str
    entries: Sequence[TableEntry]
    league: str = ""
    """Groups of one league are ranked together; "" is not ranked."""


@dataclass(frozen=True, slots=True)
class TableCell:
    """The texts of a cell, not yet escaped: "72.9 ± 2.3 (1.5)"."""

    text: str
    interval: str = ""
    rank: str = ""
    best: bool = False
    aside: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    name: str
    cells: tuple[TableCell, ...]
    published: bool = False
    marks: tuple[str, ...] = ()
    """The letters of its footnotes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowGroup:
    title: str
    rows: tuple[TableRow, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportTable:
    name: str
    """Letters, digits and hyphens, for anchors and labels."""
    title: str
    corner: str
    """The heading over the rows' names."""
    columns: tuple[TableColumn, ...]
    groups: tuple[RowGroup, ...]
    legend: tuple[str, ...] = ()
    """How to read the table, and where published rows are from."""
    footnotes: tuple[tuple[str, str], ...] = ()
    """Pairs of letter and text."""


def make_table(
    name: str,
    title: str,
    columns: Sequence[TableColumn],
    entry_groups: Sequence[EntryGroup],
    legend: Iterable[str],
) -> ReportTable:
    """Rank the entries within each league and letter their notes; empty columns and groups are left out."""
    entries = [entry for group in entry_groups for entry in group.entries]
    columns = [c for c in columns if any(c.key in e.figures or c.key in e.texts for e in entries)]
    leagues: dict[str, list[TableEntry]] = {}
    for group in entry_groups:
        if group.league:
            leagues.setdefault(group.league, []).extend(group.entries)
    ranks = {league: _league_ranks(columns, members) for league, members in leagues.items()}
    letters = _footnote_letters(entries)
    legend = [*legend, *dict.fromkeys(column.legend for column in columns if column.legend)]
    ranked = {key for league in ranks.values() for key in league}
    if ranked & {column.key for column in columns if column.kind != "mean"}:
        legend.append(RANK_LEGEND)
    if RANK_KEY in ranked:
        columns = [AVERAGE_RANK, *columns]  # first, as most readers look for it
    groups = tuple(
        RowGroup(
            title=group.title,
            rows=tuple(
                TableRow(
                    name=entry.name,
                    cells=tuple(_make_cell(entry, c, ranks.get(group.league, {})) for c in columns),
                    published=entry.published,
                    marks=tuple(sorted({letters[n] for n in entry.notes}, key=_letter_order)),
                )
                for entry in group.entries
            ),
        )
        for group in entry_groups
        if group.entries
    )
    footnotes = tuple((letter, note) for note, letter in letters.items())
    return ReportTable(
        name=name, title=title, corner="learner", columns=tuple(columns), groups=groups,
        legend=tuple(legend), footnotes=footnotes,
    )  # fmt: skip


AVERAGE_RANK: Final = TableColumn(RANK_KEY, "average rank", kind="text")
ColumnRanks = dict[str, dict[int, float]]
"""The rank of each entry, by column and then by `id` of the entry."""


def _league_ranks(columns: Sequence[TableColumn], entries: Sequence[TableEntry]) -> ColumnRanks:
    """The ranks of the entries of a league; a column with one figure has none."""
    ranks: ColumnRanks = {}
    for column in columns:
        ranked = [e for e in entries if column.key in e.figures and column.key not in e.partial]
        if column.kind != "text" and len(ranked) > 1:
            figures = [entry.figures[column.key] for entry in ranked]
            order = tied_ranks(figures, lower_is_better=column.lower_is_better)
            ranks[column.key] = {id(e): rank for e, rank in zip(ranked, order, strict=True)}
    ours = {id(entry) for entry in entries if not entry.published}
    scored = [
        ranks[c.key] for c in columns if c.kind == "score" and c.key in ranks and ours <= ranks[c.key].keys()
    ]
    return {**ranks, RANK_KEY: average_ranks(scored)} if len(scored) > 1 and ours else ranks


def _make_cell(entry: TableEntry, column: TableColumn, ranks: ColumnRanks) -> TableCell:
    rank = ranks.get(column.key, {}).get(id(entry))
    if column.key == RANK_KEY:
        return TableCell(ABSENT_TEXT if rank is None else f"{rank:.1f}")
    text = entry.texts.get(column.key, "")
    if column.key not in entry.figures:
        return TableCell(text or ABSENT_TEXT)
    best = rank is not None and rank == min(ranks[column.key].values())
    shown = "" if rank is None or column.kind == "mean" else f"{rank:g}"
    value, interval = entry.figures[column.key]
    half = "" if interval is None else f"{100 * interval:.{column.digits}f}"
    return TableCell(f"{100 * value:.{column.digits}f}", half, shown, best, text)


def _footnote_letters(entries: Sequence[TableEntry]) -> dict[str, str]:
    """Letter the notes a, b, ..., z, aa, ab, ... in the order in which a reader meets them."""
    notes = dict.fromkeys(note for entry in entries for note in entry.notes)
    return {note: _letter(index) for index, note in enumerate(notes)}


def _letter_order(letter: str) -> tuple[int, str]:
    return len(letter), letter


def _letter(index: int) -> str:
    first, last = divmod(index, len(string.ascii_lowercase))
    return (_letter(first - 1) if first else "") + string.ascii_lowercase[last]


def transpose_table(table: ReportTable, corner: str) -> ReportTable:
    """Swap rows and columns; the new rows are grouped by the headings over columns, and footnotes are dropped."""
    rows = [row for group in table.groups for row in group.rows]
    groups: dict[str, list[TableRow]] = {}
    for index, column in enumerate(table.columns):
        cells = tuple(row.cells[index] for row in rows)
        groups.setdefault(column.over, []).append(TableRow(name=column.title, cells=cells))
    return replace(
        table,
        corner=corner,
        columns=tuple(TableColumn(str(i), row.name) for i, row in enumerate(rows)),
        groups=tuple(RowGroup(title=title, rows=tuple(own)) for title, own in groups.items()),
        footnotes=(),
    )
