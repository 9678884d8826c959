"""Tables as Markdown and as LaTeX; names are escaped, so that they never act as markup."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from learners.report.tables import ReportTable, TableCell, TableColumn, TableRow

MARKDOWN_SPECIAL: Final = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
LATEX_ESCAPES: Final = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$",
    "[": "{[}", "]": "{]}", "*": "{*}",  # after a line's end LaTeX reads these as its options
}  # fmt: skip
"""Characters that LaTeX reads as something else, or not at all."""
LATEX_PREAMBLE: Final = "% needs \\usepackage{booktabs,graphicx}\n"
FULL_SIZE_COLUMNS: Final = 7  # columns that fit a page at footnote size; a wider table is shrunk


def markdown_table(table: ReportTable) -> str:
    """A table as Markdown: a heading, a table of pipes, its notes."""
    head = [table.corner, *(_column_heading(column) for column in table.columns)]
    lines = [f"### {escape_markdown(table.title)}", "", _markdown_line(map(escape_markdown, head))]
    lines.append("|---" + "".join("|---" if c.left else "|---:" for c in table.columns) + "|")
    for group in table.groups:
        if group.title:
            lines.append(_markdown_line([f"**{escape_markdown(group.title)}**", *[""] * len(table.columns)]))
        lines += [_markdown_row(row) for row in group.rows]
    lines += ["", *(f"{escape_markdown(text)}  " for text in table.legend)]
    lines += [f"<sup>{letter}</sup> {escape_markdown(text)}  " for letter, text in table.footnotes]
    return "\n".join(lines) + "\n"


def _column_heading(column: TableColumn) -> str:
    return f"{column.over}: {column.title}" if column.over else column.title


def _markdown_row(row: TableRow) -> str:
    name = escape_markdown(row.name)
    marks = f"<sup>{','.join(row.marks)}</sup>" if row.marks else ""
    return _markdown_line([(f"*{name}*" if row.published else name) + marks, *map(_markdown_cell, row.cells)])


def _markdown_cell(cell: TableCell) -> str:
    value = f"{cell.text} ± {cell.interval}" if cell.interval else cell.text
    value = f"**{value}**" if cell.best else escape_markdown(value)
    return " ".join([value, *(f"({escape_markdown(x)})" for x in (cell.rank, cell.aside) if x)])


def _markdown_line(cells: Sequence[str] | map[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escape_markdown(text: str) -> str:
    """Escape text so that nothing in it is formatting; line ends become spaces.

    >>> escape_markdown("a|b_c")
    'a\\\\|b\\\\_c'
    """
    return MARKDOWN_SPECIAL.sub(r"\\\1", " ".join(text.split()))


def latex_table(table: ReportTable) -> str:
    """A table as LaTeX: a table environment with the rules of booktabs."""
    width, wide = len(table.columns) + 1, len(table.columns) > FULL_SIZE_COLUMNS
    lines = [
        r"\begin{table}", r"\centering", r"\footnotesize", r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape_latex(table.title)}.}}", rf"\label{{tab:{table.name}}}",
        r"\resizebox{\linewidth}{!}{" * wide + rf"\begin{{tabular}}{{l{_latex_alignment(table.columns)}}}",
        r"\toprule",
        *_latex_spans(table.columns),
        _latex_line([escape_latex(c) for c in (table.corner, *(c.title for c in table.columns))]),
    ]  # fmt: skip
    for group in table.groups:
        lines.append(r"\midrule")
        if group.title:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape_latex(group.title)}}}}} \\")
        lines += [_latex_row(row) for row in group.rows]
    lines += [r"\bottomrule", r"\end{tabular}" + "}" * wide, r"\par\smallskip\raggedright\scriptsize"]
    lines += [escape_latex(text) + r"\par" for text in table.legend]
    lines += [rf"$^{{{mark}}}$ {escape_latex(text)}\par" for mark, text in table.footnotes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_alignment(columns: Sequence[TableColumn]) -> str:
    return "".join("l" if column.left else "r" for column in columns)


def _latex_spans(columns: Sequence[TableColumn]) -> list[str]:
    """The headings over several columns, with a rule under each."""
    if not any(column.over for column in columns):
        return []
    heads, rules, first = [""], [], 2
    for over, group in groupby(columns, key=lambda column: column.over):
        last = first + len(list(group)) - 1
        heads.append(rf"\multicolumn{{{last - first + 1}}}{{c}}{{{escape_latex(over)}}}")
        rules += [rf"\cmidrule(lr){{{first}-{last}}}"] if over else []
        first = last + 1
    return [_latex_line(heads), "".join(rules)]


def _latex_row(row: TableRow) -> str:
    name = escape_latex(row.name)
    marks = f"$^{{{','.join(row.marks)}}}$" if row.marks else ""
    shown = rf"\textit{{{name}}}" if row.published else name
    return _latex_line([shown + marks, *map(_latex_cell, row.cells)])


def _latex_cell(cell: TableCell) -> str:
    value = escape_latex(cell.text)
    value = rf"\textbf{{{value}}}" if cell.best else value
    half = rf"{{\tiny$\,\pm\,${cell.interval}}}" if cell.interval else ""
    rank = rf"{{\tiny\,({cell.rank})}}" if cell.rank else ""
    aside = rf"{{\tiny\,({escape_latex(cell.aside)})}}" if cell.aside else ""
    return value + half + rank + aside


def _latex_line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def escape_latex(text: str) -> str:
    """Escape text so that nothing in it is a command.

    >>> escape_latex("50% of a_b")
    '50\\\\% of a\\\\_b'
    """
    return "".join(LATEX_ESCAPES.get(letter, letter) for letter in " ".join(text.split()))
