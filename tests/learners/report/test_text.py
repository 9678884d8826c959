"""Markdown, LaTeX and CSV: whole, and no name breaks out of them."""

from __future__ import annotations

import csv
import io
import re

import pytest

from learners.report.protocols import md_tables, orbit_tables
from learners.report.results import NamedResult, name_results
from learners.report.sections import make_sections, printed_rows
from learners.report.spreadsheet import CSV_COLUMNS, csv_text
from learners.report.tables import ReportTable
from learners.report.text import escape_latex, escape_markdown, latex_table, markdown_table
from tests.learners.report.results import WEAK, everything, fixed, md, orbit, vtab

NASTY = 'a|b & "c", 100% of_$x$ #1 {z} ~^\\ <b>*bold*</b>\n[x](y) `code`'
TABLES = [table for section in make_sections(name_results(everything())) for table in section.tables]


def nasty_table() -> ReportTable:
    (table,) = md_tables(name_results([md(NASTY, notes=(NASTY,)), md("b", WEAK)]), published=True)
    return table


@pytest.mark.parametrize("table", [*TABLES, nasty_table()], ids=lambda table: table.name)
def test_every_line_of_a_markdown_table_has_as_many_cells(table: ReportTable) -> None:
    lines = [line for line in markdown_table(table).splitlines() if line.startswith("|")]
    bars = {len(re.findall(r"(?<!\\)\|", line)) for line in lines}
    assert bars == {len(table.columns) + 2}
    assert len(lines) == 2 + sum(len(g.rows) + bool(g.title) for g in table.groups)


def test_markdown_has_figures_intervals_ranks_and_notes() -> None:
    text = markdown_table(md_tables(name_results([md(count=50), md("ProtoNets", WEAK)]), published=True)[0])
    row = next(line for line in text.splitlines() if line.startswith("| Simple CNAPs"))
    assert row.startswith("| Simple CNAPs<sup>a</sup> | 1.2 | 73.0 | **92.1 ± 0.9** (1) |")
    assert "| *ProtoNets + LITE, EfficientNet-B0, 224 px, \\|H\\| = 40* |" in text
    assert "<sup>a</sup> 50 tasks of each dataset, where the protocol has 600" in text


def test_no_name_is_formatting_in_markdown() -> None:
    escaped = escape_markdown(NASTY)
    assert "\n" not in escaped
    for letter in "|_*<>[]`$#":
        assert not re.search(rf"(?<!\\){re.escape(letter)}", escaped)


@pytest.mark.parametrize("table", [*TABLES, nasty_table()], ids=lambda table: table.name)
def test_latex_is_balanced_and_its_rows_are_of_one_width(table: ReportTable) -> None:
    text = latex_table(table)
    assert not re.search(r"(?<!\\)%", text)  # it would hide the rest of its line
    bare = re.sub(r"\\[{}&%$#_]", "", text.replace("\\\\\n", "\n"))
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not set("#~<>|") & set(bare)
    assert not re.search(r"\\\\\s*[\[*]", text)
    begins, ends = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    assert begins == ends[::-1] == ["table", "tabular"]
    (sides,) = re.findall(r"\\begin{tabular}{([lr]+)}", text)
    assert len(sides) == len(table.columns) + 1
    rows = [line for line in text.splitlines() if line.endswith("\\\\") and "multicol" not in line]
    assert len(rows) == 1 + sum(len(group.rows) for group in table.groups)
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(table.columns)}


def test_latex_spans_what_stands_over_several_columns() -> None:
    text = latex_table(orbit_tables(name_results([orbit()]), published=True)[0])
    assert r"\multicolumn{3}{c}{clean videos} & \multicolumn{3}{c}{clutter videos}" in text
    assert r"\cmidrule(lr){3-5}\cmidrule(lr){6-8}\cmidrule(lr){9-11}" in text
    assert r"\textbf{82.4}{\tiny$\,\pm\,$1.7}{\tiny\,(2)}" in text
    assert r"\textit{Simple CNAPs + LITE, EfficientNet-B0, 224 px}" in text
    assert "evaluated here" in text
    assert text.index(r"\toprule") < text.index(r"\midrule") < text.index(r"\bottomrule")


def test_no_name_is_a_command_in_latex() -> None:
    escaped = escape_latex(NASTY)
    assert escaped.startswith(r"a\textbar{}b \& ")
    assert r"100\% of\_\$x\$ \#1 \{z\} \textasciitilde{}\textasciicircum{}" in escaped
    assert "\n" not in escaped


def lines(*results: NamedResult) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(csv_text(results, printed_rows(results)))))


def test_csv_has_a_line_for_every_figure() -> None:
    evaluations = everything()
    written = lines(*name_results(evaluations))
    assert tuple(written[0]) == CSV_COLUMNS
    ours = [line for line in written if not line["source"]]
    expected = sum(len(e.scores) + len(e.averages) + 4 for e in evaluations)
    assert len(ours) == expected
    rebuilt = {
        (line["learner"], line["variant"], line["dataset"], line["group"], line["metric"]): line
        for line in ours
    }
    assert len(rebuilt) == expected
    line = rebuilt["ProtoNets", "2021", "orbit", "clu-ve", "frames_to_recognition"]
    assert (line["value"], line["interval"], line["count"], line["rank"]) == (
        "0.182", "0.017", "905", "2",
    )  # fmt: skip
    assert rebuilt["quick look", "", "mean md", "", "accuracy"]["found"] == "5"


def test_csv_has_the_published_figures_as_shares_with_their_source() -> None:
    written = [line for line in lines(*name_results([md(), orbit(), vtab(splits="vtab")])) if line["source"]]
    table_1 = [line for line in written if "Table 1" in line["source"]]
    assert len(table_1) == 15 * (4 + 4)
    best = [x for x in table_1 if x["learner"].startswith("Simple CNAPs + LITE, EfficientNet")]
    assert (best[0]["value"], best[0]["interval"], best[0]["group"]) == ("0.827", "0.017", "cle-ve")
    vtab_lines = {line["variant"] for line in written if line["protocol"] == "vtab"}
    assert vtab_lines == {"LITE's splits"}


def test_csv_keeps_names_as_they_are() -> None:
    (*_, last) = [line for line in lines(*name_results([fixed(NASTY)])) if line["metric"] == "seconds"]
    assert last["learner"] == NASTY
