"""What a study says: means over tasks with intervals, as a table, as JSON, as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from learners.evaluate.scores import NORMAL_95
from learners.lite.engine import Sampler
from learners.study.gradients import Errors
from pipeline.errors import UsageError

LINEAR: Final = 0.1  # bias up to which the picture's scale is linear
BASE: Final[Sampler] = "uniform"  # what other samplers' errors are divided by


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over tasks and its 95 % interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """By Student's t."""
        n = len(values)
        mean = math.fsum(values) / n
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
        half = student(n - 1) * spread / math.sqrt(n)
        return cls(mean, mean - half, mean + half)


@dataclass(frozen=True, slots=True)
class Row:
    """One sampler at one |H|; all errors relative to the exact gradient's length."""

    sampler: Sampler
    h: int
    bias2: Interval
    """Squared; an interval that reaches zero is consistent with no bias."""
    rmse: Interval
    mse: Interval
    mse_to_uniform: Interval | None
    """The task's mean squared error, divided by that of `uniform` on the same task."""
    draws: int
    """On each task."""

    @property
    def bias(self) -> float:
        return root(self.bias2.mean)


Found = dict[tuple[Sampler, int], list[Errors]]
"""For each sampler and |H| the errors on each task, in the same order."""


def rows(found: Found) -> list[Row]:
    """A row for each sampler and |H|."""
    return [_row(found, sampler, h) for sampler, h in found]


def _row(found: Found, sampler: Sampler, h: int) -> Row:
    errors, base = found[sampler, h], found.get((BASE, h))
    ratio = None
    if base is not None and all(one.mse > 0 for one in base):
        ratio = Interval.of([e.mse / b.mse for e, b in zip(errors, base, strict=True)])
    return Row(
        sampler=sampler,
        h=h,
        bias2=Interval.of([e.bias2 for e in errors]),
        rmse=Interval.of([math.sqrt(e.mse) for e in errors]),
        mse=Interval.of([e.mse for e in errors]),
        mse_to_uniform=ratio,
        draws=errors[0].draws,
    )


def values(row: Row) -> dict[str, Any]:
    """For JSON."""
    return {**asdict(row), "bias": row.bias, "biased": row.bias2.low > 0}


def text(found: Sequence[Row]) -> str:
    """A table for people."""
    head = f"{'sampler':<12}{'|H|':>5}{'bias':>9}  {'95 %':<15}{'RMSE':>8}  {'95 %':<15}{'MSE / uniform':>15}"
    return "\n".join([head, *map(_line, found)])


def _line(row: Row) -> str:
    bias = f"{root(row.bias2.low):.3f}-{root(row.bias2.high):.3f}"
    rmse = f"{row.rmse.low:.3f}-{row.rmse.high:.3f}"
    ratio = row.mse_to_uniform
    half = "" if ratio is None else f"{ratio.mean:.3f} ± {ratio.high - ratio.mean:.3f}"
    return (
        f"{row.sampler:<12}{row.h:>5}{row.bias:>9.3f}  {bias:<15}{row.rmse.mean:>8.3f}  {rmse:<15}"
        f"{half:>15}"
    )


def picture(found: Sequence[Row], path: Path, title: str) -> None:
    """Bias and RMSE against |H|, a line for each sampler."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError("--png needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel, name in zip(panels, ("bias", "RMSE"), strict=True):
        for sampler in dict.fromkeys(row.sampler for row in found):
            _draw(panel, [row for row in found if row.sampler == sampler], name)
        panel.set(xlabel="|H|", ylabel=f"{name} / length of the exact gradient")
        panel.grid(visible=True, alpha=0.3)
    panels[0].set_yscale("symlog", linthresh=LINEAR)  # the papers' bias is large, and 0 must show
    panels[1].set(yscale="log")
    panels[0].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def _draw(panel: Any, mine: Sequence[Row], name: str) -> None:
    if name == "bias":
        low, middle, high = (
            [root(getattr(row.bias2, end)) for row in mine] for end in ("low", "mean", "high")
        )
    else:
        low, middle, high = (
            [getattr(row.rmse, end) for row in mine] for end in ("low", "mean", "high")
        )
    if mine[0].sampler == "none":  # one level, whatever |H| is
        panel.axhline(middle[0], linestyle=":", color="black", label="none")
        return
    (line,) = panel.plot([row.h for row in mine], middle, marker="o", label=mine[0].sampler)
    panel.fill_between([row.h for row in mine], low, high, alpha=0.2, color=line.get_color())


def root(value: float) -> float:
    """Of a square's estimate, which may be below zero."""
    return math.sqrt(max(value, 0.0))


def student(freedom: int) -> float:
    """Student's t of a 95 % interval, by its expansion: 1 % off at three tasks, a quarter at two."""
    z = NORMAL_95
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
