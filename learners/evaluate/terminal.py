"""An evaluation as a table on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from learners.evaluate.records import (
    AdaptationCost,
    AverageScore,
    CalibrationScore,
    DatasetScore,
    EvaluationResult,
)

TERMINAL_WIDTH: Final = 100  # columns, where the output is no terminal
GIGA_MACS: Final = 1e9
MEGA_PARAMETERS: Final = 1e6


def print_evaluation(result: EvaluationResult, paths: Sequence[Path], console: Console | None = None) -> None:
    """Print scores, averages, cost and notes."""
    console = console or _make_console()
    table = Table(title=f"{result.name}, {result.protocol}", title_justify="left")
    for name in ("dataset", "metric"):
        table.add_column(name, overflow="fold")
    for name in ("%", "95 %", "chance", "over"):
        table.add_column(name, justify="right")
    for score in result.scores:
        table.add_row(*_score_row(score))
    table.add_section()
    for average in result.averages:
        table.add_row(*_average_row(average), style="bold")
    console.print(table)
    if result.calibration:
        console.print(_calibration_table(result.calibration))
    console.print(_cost_line(result.cost), highlight=False)
    for note in result.notes:
        console.print(f"note: {note}", style="yellow", highlight=False, markup=False)
    for path in paths:
        console.print(f"wrote {path}", highlight=False, markup=False)


def _score_row(score: DatasetScore) -> tuple[str, ...]:
    name = f"{score.dataset} ({score.group})" if score.group else score.dataset
    return (
        name,
        score.metric.replace("_", " "),
        f"{100 * score.value:.1f}",
        "" if score.interval is None else f"± {100 * score.interval:.1f}",
        "" if score.chance is None else f"{100 * score.chance:.1f}",
        f"{score.count:,}",
    )


def _average_row(average: AverageScore) -> tuple[str, ...]:
    over = f"{average.found} of {average.wanted}"
    return (f"mean, {average.name}", average.metric, f"{100 * average.value:.1f}", "", "", over)


def _calibration_table(scores: Sequence[CalibrationScore]) -> Table:
    table = Table(title="calibration", title_justify="left")
    table.add_column("dataset", overflow="fold")
    for name in ("temperature", "NLL", "95 %", "ECE, %", "95 %", "tasks"):
        table.add_column(name, justify="right")
    for score in scores:
        table.add_row(
            f"{score.dataset} ({score.group})" if score.group else score.dataset,
            f"{score.temperature:.3g}, fitted" if score.fitted else f"{score.temperature:.3g}",
            f"{score.nll:.2f}",
            "" if score.nll_interval is None else f"± {score.nll_interval:.2f}",
            f"{100 * score.ece:.1f}",
            "" if score.ece_interval is None else f"± {100 * score.ece_interval:.1f}",
            f"{score.count:,}",
        )
    return table


def _cost_line(cost: AdaptationCost) -> str:
    macs = "" if cost.macs is None else f"{cost.macs / GIGA_MACS:,.4g} G multiply-accumulates, "
    return f"to adapt: {cost.steps}, {macs}{cost.seconds:.3g} s; {cost.parameters / MEGA_PARAMETERS:.2f} M parameters"


def _make_console() -> Console:
    plain = Console()
    return plain if plain.is_terminal else Console(width=TERMINAL_WIDTH)
