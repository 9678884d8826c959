"""Run rows of the fault matrix and print a table: `python -m tests.faults [F5 F6 ...] [--short | --points N]`."""

from __future__ import annotations

import sys
import time
import traceback
from argparse import ArgumentParser
from collections.abc import Sequence
from unittest import SkipTest

from tests.faults.rows import FaultRow, FaultScript, load_row, row_names


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rows and return 1 if one of them does not meet its figure."""
    rows = row_names()
    parser = ArgumentParser(prog="python -m tests.faults", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "rows", nargs="*", metavar="ROW", help=f"rows to run, of {', '.join(rows)}; default all"
    )
    parser.add_argument(
        "--points", type=int, help="points to try in each row instead of the row's own number"
    )
    parser.add_argument("--short", action="store_true", help="as few points as `make test` tries")
    flags = parser.parse_args(argv)
    chosen = [name.upper() for name in flags.rows] or list(rows)
    if unknown := [name for name in chosen if name not in rows]:
        parser.error(f"there is no row {', '.join(unknown)}; there are {', '.join(rows)}")
    print("| row | fault | tried | failed | figure | seconds |\n|---|---|---|---|---|---|", flush=True)
    verdicts = [print_row(load_row(name), points=flags.points, short=flags.short) for name in chosen]
    print(f"\n{sum(verdicts)} of {len(verdicts)} rows meet their figure")
    return 0 if all(verdicts) else 1


def print_row(script: FaultScript, *, points: int | None, short: bool) -> bool:
    """Run one row, print its line of the table and say whether it meets its figure."""
    begin = time.monotonic()
    try:
        row = script.run_in_empty_folder(points or (script.short if short else script.long))
    except SkipTest as reason:
        row = FaultRow(0, 0, "not run", note=str(reason))
    except Exception as error:  # noqa: BLE001 - the other rows are run all the same
        traceback.print_exc()
        row = FaultRow(1, 1, f"{type(error).__name__}: {error}")
    figure = f"{row.figure}; {row.note}" if row.note else row.figure
    seconds = time.monotonic() - begin
    print(
        f"| {script.name} | {script.title} | {row.tried:,} | {row.failed:,} | {figure} | {seconds:.0f} |",
        flush=True,
    )
    return row.met


if __name__ == "__main__":
    sys.exit(main())
