"""An evaluation as a table on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from learners.evaluate.records import Average, Cost, Evaluation, Score

WIDTH: Final = 100  # columns, where there is no terminal that has a width
GIGA: Final = 1e9
MEGA: Final = 1e6


def show(found: Evaluation, paths: Sequence[Path], console: Console | None = None) -> None:
    """Scores, averages, cost, and what a reader must know."""
    console = console or _console()
    table = Table(title=f"{found.name}, {found.protocol}", title_justify="left")
    for name in ("dataset", "metric"):
        table.add_column(name, overflow="fold")
    for name in ("%", "95 %", "chance", "over"):
        table.add_column(name, justify="right")
    for score in found.scores:
        table.add_row(*_row(score))
    table.add_section()
    for average in found.averages:
        table.add_row(*_mean(average), style="bold")
    console.print(table)
    console.print(_cost(found.cost), highlight=False)
    for note in found.notes:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)
    for path in paths:
        console.print(f"wrote {path}", highlight=False, markup=False)


def _row(score: Score) -> tuple[str, ...]:
    name = f"{score.dataset} ({score.group})" if score.group else score.dataset
    return (
        name,
        score.metric.replace("_", " "),
        f"{100 * score.value:.1f}",
        "" if score.interval is None else f"± {100 * score.interval:.1f}",
        "" if score.chance is None else f"{100 * score.chance:.1f}",
        f"{score.count:,}",
    )


def _mean(average: Average) -> tuple[str, ...]:
    over = f"{average.found} of {average.wanted}"
    return (f"mean, {average.name}", average.metric, f"{100 * average.value:.1f}", "", "", over)


def _cost(cost: Cost) -> str:
    macs = "" if cost.macs is None else f"{cost.macs / GIGA:,.4g} G multiply-accumulates, "
    return f"to adapt: {cost.steps}, {macs}{cost.seconds:.3g} s; {cost.parameters / MEGA:.2f} M parameters"


def _console() -> Console:
    plain = Console()
    return plain if plain.is_terminal else Console(width=WIDTH)
