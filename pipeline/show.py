"""The looking command: a shard set as a table, as one HTML page, as a contact sheet.

python -m pipeline.show shards/md --html md.html
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from pipeline.command import parser, run_command
from pipeline.errors import UsageError
from pipeline.index import Dataset, dataset_folders
from pipeline.layout import write_whole
from pipeline.views.facts import Facts, facts, totals
from pipeline.views.page import Chapter, page
from pipeline.views.pictures import check_size
from pipeline.views.sheet import contact_sheet
from pipeline.views.strips import choose
from pipeline.views.table import table, values

CLASSES: Final = 12
SAMPLES: Final = 8
WIDE: Final = 10_000  # columns; a line is a line where no terminal wraps it
EXAMPLES: Final = """\
  python -m pipeline.show shards/md                       a table
  python -m pipeline.show shards/md --html md.html        one page with everything to look at
  python -m pipeline.show shards/md/omniglot --png sheet.png --classes 20 --seed 3
  python -m pipeline.show shards/md --json
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; write what else was asked for."""
    arguments = _parser().parse_args(argv)
    if min(arguments.classes, arguments.samples) < 1:
        raise UsageError("--classes and --samples start at 1")
    datasets = [Dataset.open(folder) for folder in dataset_folders(arguments.path)]
    all_facts = [facts(dataset) for dataset in datasets]
    if arguments.html or arguments.png:
        _draw(datasets, all_facts, arguments)
    if arguments.json:
        rows = [values(entry) for entry in all_facts]
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return 0
    _print(all_facts)
    for path in filter(None, (arguments.html, arguments.png)):
        sys.stdout.write(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)\n")
    return 0


def _draw(datasets: Sequence[Dataset], all_facts: Sequence[Facts], arguments: Namespace) -> None:
    chapters = [
        Chapter(
            dataset=dataset,
            facts=known,
            size=check_size(dataset, arguments.size),
            strips=choose(
                dataset,
                classes=arguments.classes,
                samples=arguments.samples,
                seed=arguments.seed,
            ),
        )
        for dataset, known in zip(datasets, all_facts, strict=True)
    ]
    for path in filter(None, (arguments.html, arguments.png)):
        if not path.parent.is_dir():
            raise UsageError(f"{path} cannot be written: there is no folder {path.parent}")
    if arguments.html:
        title = arguments.path.resolve().name
        write_whole(arguments.html, page(title, chapters).encode())
    if arguments.png:
        contact_sheet(chapters).save(arguments.png, "PNG", optimize=True)


def _print(all_facts: Sequence[Facts]) -> None:
    """With lines and colours on a terminal, one plain line per dataset elsewhere."""
    plain = not sys.stdout.isatty()
    console = Console(width=WIDE, no_color=True, highlight=False) if plain else Console()
    console.print(table(all_facts, plain=plain))
    console.print(totals(all_facts), style="" if plain else "bold")


def _parser() -> ArgumentParser:
    flags = parser("pipeline.show", "Look at built shards: numbers, classes, pictures.", EXAMPLES)
    flags.add_argument("path", type=Path, help="a dataset, or a folder of datasets")
    flags.add_argument("--html", type=Path, metavar="FILE", help="write one self-contained page")
    flags.add_argument("--png", type=Path, metavar="FILE", help="write one contact sheet")
    flags.add_argument(
        "--size", type=int, default=0, metavar="PX", help="which stored size to show (the largest)"
    )
    flags.add_argument(
        "--classes", type=int, default=CLASSES, metavar="N", help=f"random classes ({CLASSES})"
    )
    flags.add_argument(
        "--samples", type=int, default=SAMPLES, metavar="K", help=f"pictures of each ({SAMPLES})"
    )
    flags.add_argument("--seed", type=int, default=0, metavar="K", help="of the choice (0)")
    flags.add_argument("--json", action="store_true", help="the table as JSON")
    return flags


if __name__ == "__main__":
    sys.exit(run_command(main))
