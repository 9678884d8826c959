"""Tables as Markdown and as LaTeX; whatever a name holds, it stays text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from learners.report.tables import Cell, Column, Row, Table

MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
LATEX: Final = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$",
    "[": "{[}", "]": "{]}", "*": "{*}",  # behind a line's end they are its options
}  # fmt: skip
"""What LaTeX reads as something else, or not at all."""
PREAMBLE: Final = "% needs \\usepackage{booktabs,graphicx}\n"
WIDE: Final = 7  # columns that fit a page at footnote size; more are shrunk to it


def markdown(table: Table) -> str:
    """A heading, a table of pipes, its notes."""
    head = [table.corner, *(_flat(column) for column in table.columns)]
    lines = [f"### {escape_markdown(table.title)}", "", _pipes(map(escape_markdown, head))]
    lines.append("|---" + "".join("|---" if c.left else "|---:" for c in table.columns) + "|")
    for group in table.groups:
        if group.title:
            lines.append(
                _pipes([f"**{escape_markdown(group.title)}**", *[""] * len(table.columns)])
            )
        lines += [_markdown_row(row) for row in group.rows]
    lines += ["", *(f"{escape_markdown(text)}  " for text in table.legend)]
    lines += [f"<sup>{letter}</sup> {escape_markdown(text)}  " for letter, text in table.footnotes]
    return "\n".join(lines) + "\n"


def _flat(column: Column) -> str:
    return f"{column.over}: {column.title}" if column.over else column.title


def _markdown_row(row: Row) -> str:
    name = escape_markdown(row.name)
    marks = f"<sup>{','.join(row.marks)}</sup>" if row.marks else ""
    return _pipes(
        [(f"*{name}*" if row.published else name) + marks, *map(_markdown_cell, row.cells)]
    )


def _markdown_cell(cell: Cell) -> str:
    value = f"{cell.text} ± {cell.interval}" if cell.interval else cell.text
    value = f"**{value}**" if cell.best else escape_markdown(value)
    return " ".join([value, *(f"({escape_markdown(x)})" for x in (cell.rank, cell.aside) if x)])


def _pipes(cells: Sequence[str] | map[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escape_markdown(text: str) -> str:
    """Nothing in it is formatting; line ends become spaces.

    >>> escape_markdown("a|b_c")
    'a\\\\|b\\\\_c'
    """
    return MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def latex(table: Table) -> str:
    """A table environment with booktabs' rules."""
    width, wide = len(table.columns) + 1, len(table.columns) > WIDE
    lines = [
        r"\begin{table}", r"\centering", r"\footnotesize", r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape_latex(table.title)}.}}", rf"\label{{tab:{table.name}}}",
        r"\resizebox{\linewidth}{!}{" * wide + rf"\begin{{tabular}}{{l{_sides(table.columns)}}}",
        r"\toprule",
        *_latex_spans(table.columns),
        _ampersands([escape_latex(c) for c in (table.corner, *(c.title for c in table.columns))]),
    ]  # fmt: skip
    for group in table.groups:
        lines.append(r"\midrule")
        if group.title:
            lines.append(
                rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape_latex(group.title)}}}}} \\"
            )
        lines += [_latex_row(row) for row in group.rows]
    lines += [
        r"\bottomrule",
        r"\end{tabular}" + "}" * wide,
        r"\par\smallskip\raggedright\scriptsize",
    ]
    lines += [escape_latex(text) + r"\par" for text in table.legend]
    lines += [rf"$^{{{mark}}}$ {escape_latex(text)}\par" for mark, text in table.footnotes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _sides(columns: Sequence[Column]) -> str:
    return "".join("l" if column.left else "r" for column in columns)


def _latex_spans(columns: Sequence[Column]) -> list[str]:
    """The headings over several columns, with a rule under each."""
    if not any(column.over for column in columns):
        return []
    heads, rules, first = [""], [], 2
    for over, group in groupby(columns, key=lambda column: column.over):
        last = first + len(list(group)) - 1
        heads.append(rf"\multicolumn{{{last - first + 1}}}{{c}}{{{escape_latex(over)}}}")
        rules += [rf"\cmidrule(lr){{{first}-{last}}}"] if over else []
        first = last + 1
    return [_ampersands(heads), "".join(rules)]


def _latex_row(row: Row) -> str:
    name = escape_latex(row.name)
    marks = f"$^{{{','.join(row.marks)}}}$" if row.marks else ""
    shown = rf"\textit{{{name}}}" if row.published else name
    return _ampersands([shown + marks, *map(_latex_cell, row.cells)])


def _latex_cell(cell: Cell) -> str:
    value = escape_latex(cell.text)
    value = rf"\textbf{{{value}}}" if cell.best else value
    half = rf"{{\tiny$\,\pm\,${cell.interval}}}" if cell.interval else ""
    rank = rf"{{\tiny\,({cell.rank})}}" if cell.rank else ""
    aside = rf"{{\tiny\,({escape_latex(cell.aside)})}}" if cell.aside else ""
    return value + half + rank + aside


def _ampersands(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def escape_latex(text: str) -> str:
    """Nothing in it is a command.

    >>> escape_latex("50% of a_b")
    '50\\\\% of a\\\\_b'
    """
    return "".join(LATEX.get(letter, letter) for letter in " ".join(text.split()))
