"""The temperature of a learner's logits, fitted to tasks of validation classes, never to the tasks that are scored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from learners.heads.temperature import best_temperature
from learners.processes import ProcessGroup
from pipeline.layout import write_atomically
from pipeline.settings import read_json, typed

TEMPERATURE_FILE: Final = "temperature.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedTemperature:
    """What is kept in an evaluation's folder, so that all its tasks are scored alike."""

    temperature: float | None
    """None where none fits: the logits tell the classes of the validation tasks no better than chance."""


def fitted_temperature(
    scored: Callable[[], Iterable[tuple[Tensor, Tensor]]], processes: ProcessGroup, folder: Path
) -> float | None:
    """Fit the temperature to logits and labels, or read it where this evaluation has fitted it before.

    All processes get the leading one's.
    """
    path = folder / TEMPERATURE_FILE
    if processes.any(processes.leads and path.exists()):
        cure = "evaluate again into another folder, with --out"
        return typed(read_json(path, cure=cure), FittedTemperature, f"{path} is damaged, {cure}").temperature
    own = best_temperature([(logits, labels) for logits, labels in scored() if len(labels)])
    (agreed, *_) = processes.gather(torch.tensor([own or 0.0], dtype=torch.float64)).tolist()
    fitted = FittedTemperature(temperature=agreed or None)
    if processes.leads:
        write_atomically(path, (json.dumps(asdict(fitted)) + "\n").encode())
    return fitted.temperature
