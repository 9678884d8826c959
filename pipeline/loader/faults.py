"""What to do about samples that cannot be read or decoded: raise, mask, or replace."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final, Literal, NoReturn, TypeAlias, get_args

import numpy as np

from pipeline.decoders.base import DecodeJob
from pipeline.episodes import REPLACEMENT_DRAW, EpisodePlan, generator
from pipeline.errors import IntegrityError, check_choice
from pipeline.index import Dataset
from pipeline.loader.stats import LoaderMetrics

OnError: TypeAlias = Literal["raise", "mask", "replace"]

TOLERATED_FAULTS: Final = 20  # however few images there were
MOST_FAULT_SHARE: Final = 0.001  # of all images; more is a broken disk and not a bad sample
MOST_SUBSTITUTES: Final = 8  # that are tried for one sample

log = logging.getLogger(__name__)


class FaultPolicy:
    """Decides what happens to faulty samples, and logs each sample once."""

    def __init__(self, on_error: OnError, seed: int) -> None:
        check_choice(on_error, get_args(OnError), "on_error")
        self.on_error = on_error
        self._seed = seed
        self._logged: set[tuple[str, int]] = set()

    def check(self, plan: EpisodePlan, job: DecodeJob, metrics: LoaderMetrics) -> None:
        """Log the faults of a chunk; raise if there should be none, or if there are too many by now."""
        if self.on_error == "raise":
            raise IntegrityError(
                f"episode {plan.number} ({plan.dataset}): {len(job.faults)} of {len(job.locations)} "
                f"samples are damaged: {job.faults[0].reason}. pipeline.verify says what is damaged and "
                "--repair mends it; on_error='mask' or 'replace' goes on without them"
            )
        for fault in job.faults:
            sample = (plan.dataset, int(job.locations.rows[fault.at]))
            if sample not in self._logged:
                self._logged.add(sample)
                log.warning("episode %d: %s (%s)", plan.number, fault.reason, self.on_error)
        if metrics.faults > max(TOLERATED_FAULTS, MOST_FAULT_SHARE * metrics.images):
            raise IntegrityError(
                f"{metrics.faults:,} of {metrics.images:,} samples could not be decoded, more than one in "
                f"{round(1 / MOST_FAULT_SHARE):,}; this is not a few bad samples. The last: "
                f"{job.faults[-1].reason}. Check the shard set with pipeline.verify"
            )

    def substitutes(self, plan: EpisodePlan, dataset: Dataset, row: int) -> Iterator[int]:
        """Other rows of a row's class and split that the episode does not use, in a fixed order."""
        index = dataset.index
        own = index.rows_of(int(index["class_id"][row]))
        same_split = np.flatnonzero(index["split"][own] == index["split"][row]) + own.start
        used = np.concatenate([plan.support.rows, plan.query.rows])
        free = np.setdiff1d(same_split, used)
        shuffled = generator(self._seed, row, REPLACEMENT_DRAW).permutation(free)
        yield from map(int, shuffled[:MOST_SUBSTITUTES])

    def raise_no_substitute(self, plan: EpisodePlan, dataset: Dataset, row: int) -> NoReturn:
        name = dataset.manifest.classes[int(dataset.index["class_id"][row])].name
        raise IntegrityError(
            f"episode {plan.number}: {plan.dataset} has no other sample of class {name!r} that could "
            "stand in for a damaged one; use on_error='mask', or mend the set with pipeline.verify "
            "--repair"
        )
