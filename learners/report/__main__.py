"""Evaluations as a report: `python -m learners.report results/a results/b --out report`.

Writes report.md, report.tex, report.csv, report.html and plots/*.png: our rows beside the papers', with
intervals and ranks, and footnotes where figures cannot be compared. The same evaluations give the same bytes.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from learners.report.page import ReportSection, html_page
from learners.report.results import read_results
from learners.report.sections import make_sections, printed_rows
from learners.report.spreadsheet import csv_text
from learners.report.text import LATEX_PREAMBLE, escape_latex, escape_markdown, latex_table, markdown_table
from pipeline.command import command_parser, run_command
from pipeline.errors import UsageError
from pipeline.layout import write_atomically

REPORT_EXAMPLES: Final = """\
  python -m learners.report results/simple_cnaps results/protonets --out report
  python -m learners.report results/*/evaluation.json --out report --title "Backbones on Meta-Dataset"
  python -m learners.report results/omniglot --out report --no-published
"""
PLOTS_FOLDER: Final = "plots"


def main(argv: Sequence[str] | None = None) -> int:
    """Read all evaluations, then write all files of the report."""
    arguments = _parser().parse_args(argv)
    out: Path = arguments.out
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    results = read_results(arguments.results)
    sections = make_sections(results, published=arguments.published)
    files = {
        "report.md": markdown_report(arguments.title, sections),
        "report.tex": latex_report(sections),
        "report.csv": csv_text(results, printed_rows(results, published=arguments.published)),
        "report.html": html_page(arguments.title, sections),
    }
    (out / PLOTS_FOLDER).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_atomically(out / name, text.encode())
    for plot in (plot for section in sections for plot in section.plots):
        write_atomically(out / PLOTS_FOLDER / f"{plot.name}.png", plot.png)
    sys.stdout.write("".join(f"wrote {out / name}\n" for name in (*files, f"{PLOTS_FOLDER}/")))
    return 0


def markdown_report(title: str, sections: Sequence[ReportSection]) -> str:
    """The whole report as Markdown; plots are beside it."""
    parts = [f"# {escape_markdown(title)}\n"]
    for section in sections:
        parts.append(f"## {escape_markdown(section.title)}\n\n{escape_markdown(section.lead)}\n")
        parts += map(markdown_table, section.tables)
        parts += (f"![{p.caption}]({PLOTS_FOLDER}/{p.name}.png)\n" for p in section.plots)
    return "\n".join(parts)


def latex_report(sections: Sequence[ReportSection]) -> str:
    """All tables and figures as LaTeX, to \\input into a paper."""
    parts = [LATEX_PREAMBLE]
    for section in sections:
        parts.append(f"% {section.title}\n")
        parts += map(latex_table, section.tables)
        parts += (
            "\\begin{figure}\n\\centering\n"
            f"\\includegraphics[width=\\linewidth]{{{PLOTS_FOLDER}/{p.name}.png}}\n"
            f"\\caption{{{escape_latex(p.caption)}}}\n\\end{{figure}}\n"
            for p in section.plots
        )
    return "\n".join(parts)


def _parser() -> ArgumentParser:
    flags = command_parser("learners.report", "Evaluations as tables, plots and one page.", REPORT_EXAMPLES)
    flags.add_argument(
        "results", nargs="+", type=Path, metavar="RESULT", help="an evaluation.json, or its folder"
    )
    flags.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    flags.add_argument("--title", default="Few-shot evaluation", metavar="TEXT", help="of the page")
    flags.add_argument(
        "--no-published", dest="published", action="store_false", help="leave the papers' rows out"
    )
    return flags


if __name__ == "__main__":
    sys.exit(run_command(main))
