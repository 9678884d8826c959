"""The results of a study: means over tasks with intervals, as a table, as JSON, as a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, Final

from learners.study.gradients import QUERY_SAMPLERS, GradientErrors, StudiedSampler
from learners.study.rounding import is_precision
from pipeline.errors import UsageError

LINEAR_BIAS: Final = 0.1  # bias up to which the plot's scale is linear


@dataclass(frozen=True, slots=True)
class StudentInterval:
    """A mean over tasks and its 95 % interval by Student's t."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> StudentInterval:
        """The mean of values and its interval."""
        n = len(values)
        mean = math.fsum(values) / n
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
        half = student_t(n - 1) * spread / math.sqrt(n)
        return cls(mean, mean - half, mean + half)


@dataclass(frozen=True, slots=True)
class StudyRow:
    """The errors of one sampler at one |H|, relative to the exact gradient's length."""

    sampler: StudiedSampler
    h: int
    bias2: StudentInterval
    """Squared; an interval that reaches zero is consistent with no bias."""
    rmse: StudentInterval
    mse: StudentInterval
    mse_to_uniform: StudentInterval | None
    """The task's mean squared error, divided by that of `uniform`, or `query-uniform`, on the same task."""
    draws: int
    """On each task."""

    @property
    def bias(self) -> float:
        return clamped_root(self.bias2.mean)


TaskErrors = dict[tuple[StudiedSampler, int], list[GradientErrors]]
"""For each sampler and |H| the errors on each task, in the same order."""


def study_rows(measured: TaskErrors) -> list[StudyRow]:
    """A row for each sampler and |H|."""
    return [_study_row(measured, sampler, h) for sampler, h in measured]


def _study_row(measured: TaskErrors, sampler: StudiedSampler, h: int) -> StudyRow:
    baseline: StudiedSampler = "query-uniform" if sampler in QUERY_SAMPLERS else "uniform"
    errors, base = measured[sampler, h], measured.get((baseline, h))
    ratio = None
    if base is not None and not is_precision(sampler) and all(one.mse > 0 for one in base):
        ratio = StudentInterval.of([e.mse / b.mse for e, b in zip(errors, base, strict=True)])
    return StudyRow(
        sampler=sampler,
        h=h,
        bias2=StudentInterval.of([e.bias2 for e in errors]),
        rmse=StudentInterval.of([math.sqrt(e.mse) for e in errors]),
        mse=StudentInterval.of([e.mse for e in errors]),
        mse_to_uniform=ratio,
        draws=errors[0].draws,
    )


def row_values(row: StudyRow) -> dict[str, Any]:
    """A row's values for JSON."""
    return {**asdict(row), "bias": row.bias, "biased": row.bias2.low > 0}


def format_table(rows: Sequence[StudyRow]) -> str:
    """The rows as a table for the terminal; those of precisions, which are far apart, as another."""
    head = f"{'sampler':<14}{'|H|':>5}{'bias':>9}  {'95 %':<15}{'RMSE':>8}  {'95 %':<15}{'MSE / uniform':>15}"
    lines = [head, *(_format_line(row) for row in rows if not is_precision(row.sampler))]
    rounded = [f"{row.sampler:<14}{row.rmse.mean:>9.2g}  {max(row.rmse.low, 0):.2g}-{row.rmse.high:.2g}"
               for row in rows if is_precision(row.sampler)]  # fmt: skip
    if rounded:
        lines += [f"{'precision':<14}{'error':>9}  95 %, against float64", *rounded]
    return "\n".join(lines)


def _format_line(row: StudyRow) -> str:
    bias = f"{clamped_root(row.bias2.low):.3f}-{clamped_root(row.bias2.high):.3f}"
    rmse = f"{row.rmse.low:.3f}-{row.rmse.high:.3f}"
    ratio = row.mse_to_uniform
    half = "" if ratio is None else f"{ratio.mean:.3f} ± {ratio.high - ratio.mean:.3f}"
    return (
        f"{row.sampler:<14}{row.h:>5}{row.bias:>9.3f}  {bias:<15}{row.rmse.mean:>8.3f}  {rmse:<15}{half:>15}"
    )


def plot_study(rows: Sequence[StudyRow], path: Path, title: str) -> None:
    """Plot bias and RMSE against |H|, a line for each sampler."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError("--png needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, name in zip(panels, ("bias", "RMSE"), strict=True):
        for sampler in dict.fromkeys(row.sampler for row in rows if not is_precision(row.sampler)):
            _plot_line(panel, [row for row in rows if row.sampler == sampler], name)
        panel.set(xlabel="|H|, or queries with gradient", ylabel=f"{name} / length of the exact gradient")
        panel.grid(visible=True, alpha=0.3)
    panels[0].set_yscale("symlog", linthresh=LINEAR_BIAS)  # the papers' bias is large, and 0 must show
    panels[1].set(yscale="log")
    panels[0].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def _plot_line(panel: Any, rows: Sequence[StudyRow], name: str) -> None:
    if name == "bias":
        low, middle, high = (
            [clamped_root(getattr(row.bias2, end)) for row in rows] for end in ("low", "mean", "high")
        )
    else:
        low, middle, high = ([getattr(row.rmse, end) for row in rows] for end in ("low", "mean", "high"))
    if rows[0].h == 0:  # one level, whatever |H| is
        panel.axhline(middle[0], linestyle=":", color="black", label=rows[0].sampler)
        return
    (line,) = panel.plot([row.h for row in rows], middle, marker="o", label=rows[0].sampler)
    panel.fill_between([row.h for row in rows], low, high, alpha=0.2, color=line.get_color())


def clamped_root(value: float) -> float:
    """The root of an estimated square, which may be below zero."""
    return math.sqrt(max(value, 0.0))


def student_t(freedom: int) -> float:
    """Student's t of a 95 % interval, by its expansion: 1 % off at three tasks, a quarter at two."""
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
