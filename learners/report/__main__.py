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

from learners.report.page import Section, page
from learners.report.results import read
from learners.report.sections import printed, sections
from learners.report.spreadsheet import csv_text
from learners.report.text import PREAMBLE, escape_latex, escape_markdown, latex, markdown
from pipeline.command import parser, run_command
from pipeline.errors import UsageError
from pipeline.layout import write_whole

EXAMPLES: Final = """\
  python -m learners.report results/simple_cnaps results/protonets --out report
  python -m learners.report results/*/evaluation.json --out report --title "Backbones on Meta-Dataset"
  python -m learners.report results/omniglot --out report --no-published
"""
PLOTS: Final = "plots"


def main(argv: Sequence[str] | None = None) -> int:
    """Read everything, then write everything."""
    arguments = _parser().parse_args(argv)
    out: Path = arguments.out
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    results = read(arguments.results)
    told = sections(results, published=arguments.published)
    files = {
        "report.md": markdown_report(arguments.title, told),
        "report.tex": latex_report(told),
        "report.csv": csv_text(results, printed(results, published=arguments.published)),
        "report.html": page(arguments.title, told),
    }
    (out / PLOTS).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        write_whole(out / name, text.encode())
    for picture in (picture for section in told for picture in section.pictures):
        write_whole(out / PLOTS / f"{picture.name}.png", picture.png)
    sys.stdout.write("".join(f"wrote {out / name}\n" for name in (*files, f"{PLOTS}/")))
    return 0


def markdown_report(title: str, told: Sequence[Section]) -> str:
    """The whole report; plots are beside it."""
    parts = [f"# {escape_markdown(title)}\n"]
    for section in told:
        parts.append(f"## {escape_markdown(section.title)}\n\n{escape_markdown(section.lead)}\n")
        parts += map(markdown, section.tables)
        parts += (f"![{p.caption}]({PLOTS}/{p.name}.png)\n" for p in section.pictures)
    return "\n".join(parts)


def latex_report(told: Sequence[Section]) -> str:
    """Tables and figures to \\input into a paper."""
    parts = [PREAMBLE]
    for section in told:
        parts.append(f"% {section.title}\n")
        parts += map(latex, section.tables)
        parts += (
            "\\begin{figure}\n\\centering\n"
            f"\\includegraphics[width=\\linewidth]{{{PLOTS}/{p.name}.png}}\n"
            f"\\caption{{{escape_latex(p.caption)}}}\n\\end{{figure}}\n"
            for p in section.pictures
        )
    return "\n".join(parts)


def _parser() -> ArgumentParser:
    flags = parser("learners.report", "Evaluations as tables, plots and one page.", EXAMPLES)
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
