"""The table of calibration: how far each learner's probabilities are to be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from learners.evaluate.records import CalibrationScore
from learners.report.results import NamedResult
from learners.report.tables import EntryGroup, ReportTable, TableColumn, TableEntry, make_table

FITTED_HEADING: Final = "at the fitted temperature"
CALIBRATION_COLUMNS: Final = (
    TableColumn("nll", "NLL", kind="text"),
    TableColumn("ece", "ECE, %", kind="text"),
    TableColumn("temperature", "temperature", FITTED_HEADING, kind="text"),
    TableColumn("fitted nll", "NLL", FITTED_HEADING, kind="text"),
    TableColumn("fitted ece", "ECE, %", FITTED_HEADING, kind="text"),
)
CALIBRATION_LEGEND: Final = (
    "NLL: mean negative log probability of the right class, in nats. ECE: expected calibration error, over 15 bins "
    "of confidence. Means over tasks, then over datasets; less is better. The temperature is fitted to tasks of "
    "validation classes."
)


def calibration_table(results: Sequence[NamedResult]) -> ReportTable | None:
    """The table, with a group for each variant of the protocol; None without any figure."""
    groups = [
        EntryGroup(variant, [_calibration_entry(result) for result in results if result.variant == variant])
        for variant in dict.fromkeys(result.variant for result in results)
    ]
    if not any(entry.texts for group in groups for entry in group.entries):
        return None
    name = f"{results[0].slug}-calibration"
    return make_table(name, "Calibration", CALIBRATION_COLUMNS, groups, [CALIBRATION_LEGEND])


def _calibration_entry(result: NamedResult) -> TableEntry:
    scores = result.evaluation.calibration
    plain = [score for score in scores if not score.fitted]
    fitted = [score for score in scores if score.fitted]
    texts: dict[str, str] = {}
    if plain:
        texts |= {"nll": _mean_text(plain, "nll", 1), "ece": _mean_text(plain, "ece", 100)}
    if fitted:
        texts |= {
            "temperature": f"{fitted[0].temperature:.3g}",
            "fitted nll": _mean_text(fitted, "nll", 1),
            "fitted ece": _mean_text(fitted, "ece", 100),
        }
    return TableEntry(name=result.name, figures={}, texts=texts)


def _mean_text(scores: Sequence[CalibrationScore], metric: str, factor: int) -> str:
    """The mean over datasets; that of a single one with its interval."""
    digits = 2 if factor == 1 else 1
    mean = math.fsum(getattr(score, metric) for score in scores) / len(scores)
    interval = getattr(scores[0], f"{metric}_interval") if len(scores) == 1 else None
    end = "" if interval is None else f" ± {factor * interval:.{digits}f}"
    return f"{factor * mean:.{digits}f}{end}"
