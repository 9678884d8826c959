"""The report as one self-contained HTML page: no script, no font, no link to other files."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Final

from learners.report.tables import ReportTable, TableCell, TableColumn, TableRow
from pipeline.show.page_style import PAGE_STYLE

REPORT_STYLE: Final = """
body { max-width: 80rem; }
figure.plot { max-width: 62rem; }
.results { margin-top: .6rem; }
.results th, .results td { padding: .36rem .7rem .36rem 0; white-space: nowrap; }
.results thead th { vertical-align: bottom; }
.results .over { text-align: center; border-bottom: 1px solid var(--soft); padding-left: .4rem; }
.results .blank { border-bottom: 0; }
.results tr > th:first-child { position: sticky; left: 0; background: var(--paper); }
.results th[scope=row] { white-space: normal; min-width: 12rem; max-width: 18rem;
  overflow-wrap: anywhere; }
.results tbody th { color: var(--ink); font-weight: 500; }
.results .band th { padding-top: 1.1rem; color: var(--soft); font-size: .82rem; font-weight: 640; }
.results .published th, .results .published td { color: var(--soft); font-weight: 400; }
.results .published th { font-style: italic; }
.results td b { font-weight: 700; color: var(--ink); }
.results small, .results sup { font-size: .74rem; color: var(--soft); margin-left: .2rem; }
.results sup { line-height: 0; }
.legend { margin-top: .8rem; font-size: .82rem; color: var(--soft); max-width: 52rem;
  overflow-wrap: anywhere; }
.legend p { margin-top: .25rem; }
figure.plot { margin-top: 1.8rem; }
@media (max-width: 46rem) { .results th[scope=row] { min-width: 8rem; max-width: 9rem; } }
figure.plot img { display: block; max-width: 100%; height: auto; border-radius: 6px;
  background: #ffffff; box-shadow: 0 0 0 1px var(--rule); }
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportPlot:
    """A plot, in the file `name`.png."""

    name: str
    caption: str
    """What it shows."""
    png: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportSection:
    """The part of a report on one protocol or variant."""

    title: str
    lead: str
    tables: Sequence[ReportTable]
    plots: Sequence[ReportPlot]


def html_page(title: str, sections: Sequence[ReportSection]) -> str:
    """The whole HTML document."""
    body = "".join(_section_html(section) for section in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{PAGE_STYLE}{REPORT_STYLE}</style>\n<body>\n"
        f"<header><h1>{escape(title)}</h1></header>\n{body}"
        "<footer>Made by <code>python -m learners.report</code>. Rows in italics are as published."
        "</footer>\n</body>\n</html>\n"
    )


def _section_html(section: ReportSection) -> str:
    tables = "".join(map(_table_html, section.tables))
    plots = "".join(map(_plot_html, section.plots))
    return (
        f"<section><h2>{escape(section.title)}</h2>\n"
        f'<p class="lead">{escape(section.lead)}</p>\n{tables}{plots}</section>\n'
    )


def _plot_html(plot: ReportPlot) -> str:
    data, words = b64encode(plot.png).decode(), escape(plot.caption)
    return (
        f'<figure class="plot"><img src="data:image/png;base64,{data}" alt="{words}">'
        f"<figcaption>{words}</figcaption></figure>\n"
    )


def _table_html(table: ReportTable) -> str:
    width = len(table.columns) + 1
    body = "".join(
        (
            f'<tr class="band"><th colspan="{width}" scope="rowgroup">{escape(group.title)}</th></tr>\n'
            * bool(group.title)
        )
        + "".join(_row_html(row, table.columns) for row in group.rows)
        for group in table.groups
    )
    head = "".join(f'<th{_alignment(c)} scope="col">{escape(c.title)}</th>' for c in table.columns)
    legend = "".join(f"<p>{escape(text)}</p>" for text in table.legend)
    notes = "".join(f"<p><sup>{m}</sup> {escape(text)}</p>" for m, text in table.footnotes)
    return (
        f'<h3 id="{table.name}">{escape(table.title)}</h3>\n<div class="scroll" tabindex="0">'
        f'<table class="results"><thead>{_spans_html(table.columns)}<tr><th scope="col">'
        f"{escape(table.corner)}</th>{head}</tr></thead><tbody>\n{body}</tbody></table></div>\n"
        f'<div class="legend">{legend}{notes}</div>\n'
    )


def _spans_html(columns: Sequence[TableColumn]) -> str:
    if not any(column.over for column in columns):
        return ""
    heads = ""
    for over, group in groupby(columns, key=lambda column: column.over):
        kind = "over" if over else "blank"
        heads += f'<th class="{kind}" colspan="{len(list(group))}">{escape(over)}</th>'
    return f'<tr><th class="blank"></th>{heads}</tr>'


def _alignment(column: TableColumn) -> str:
    return "" if column.left else ' class="number"'


def _row_html(row: TableRow, columns: Sequence[TableColumn]) -> str:
    kind = ' class="published"' if row.published else ""
    marks = f"<sup>{','.join(row.marks)}</sup>" if row.marks else ""
    cells = "".join(
        f"<td{_alignment(column)}>{_cell_html(cell)}</td>"
        for column, cell in zip(columns, row.cells, strict=True)
    )
    return f'<tr{kind}><th scope="row">{escape(row.name)}{marks}</th>{cells}</tr>\n'


def _cell_html(cell: TableCell) -> str:
    value = f"<b>{escape(cell.text)}</b>" if cell.best else escape(cell.text)
    half = f" ± {cell.interval}" if cell.interval else ""
    rank = f"<small>({cell.rank})</small>" if cell.rank else ""
    aside = f"<small>({escape(cell.aside)})</small>" if cell.aside else ""
    return value + half + rank + aside
