"""What the host waits for is fetched in as few transfers as there are reasons, and the wait is measured."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor

from learners.learner import StagedLearner
from learners.lite import transfers
from learners.lite.engine import Lite
from learners.lite.transfers import HostTransfers
from tests.learners.tasks import protonets, simple_cnaps, staged, task


def test_a_wait_is_measured_and_the_values_are_those_of_the_device() -> None:
    class SlowTensor:
        def cpu(self) -> Tensor:
            time.sleep(0.02)
            return torch.arange(3)

    fetching = HostTransfers()
    for number in (1, 2):
        assert fetching.fetch(cast(Tensor, SlowTensor())).tolist() == [0, 1, 2]
        assert fetching.seconds >= number * 0.02


@pytest.mark.parametrize(
    ("settings", "waits"),
    [
        (Lite(sampler="exact"), 1),  # loss, correct and wrong answers
        (Lite(h=5, sampler="uniform"), 1),
        (Lite(h=5), 2),  # and the lengths by which neyman draws support images
        (Lite(h=5, query_h=2), 3),  # and queries
        (Lite(h=2, sampler="paper-lite"), 1),
    ],
)
@pytest.mark.parametrize("learner", [protonets, simple_cnaps])
def test_the_waits_of_a_task_are_those_of_its_transfers(
    monkeypatch: pytest.MonkeyPatch, settings: Lite, waits: int, learner: Callable[[], StagedLearner]
) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(transfers, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    _, outcome = staged(learner(), task((4, 3, 3), queries=4), settings)
    assert outcome.waited == waits  # one tick each
