"""What is done about samples that cannot be read or decoded: raise, mask, or replace."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final, Literal, NoReturn, TypeAlias, get_args

import numpy as np

from pipeline.decoders.base import Job
from pipeline.episodes import REPLACEMENT_DRAW, EpisodePlan, generator
from pipeline.errors import IntegrityError, UsageError
from pipeline.index import Dataset
from pipeline.loader.stats import Meter

OnError: TypeAlias = Literal["raise", "mask", "replace"]

GRACE: Final = 20  # faults that are borne however few images there were
MOST_SHARE: Final = 0.001  # of all images; more is a broken disk and not a bad sample
SUBSTITUTES: Final = 8  # that are tried for one sample

log = logging.getLogger(__name__)


class Policy:
    """Decides about faults, and says each once."""

    def __init__(self, on_error: OnError, seed: int) -> None:
        if on_error not in get_args(OnError):
            raise UsageError(f"on_error is raise, mask or replace, got {on_error!r}")
        self.on_error = on_error
        self._seed = seed
        self._said: set[tuple[str, int]] = set()

    def allow(self, plan: EpisodePlan, job: Job, meter: Meter) -> None:
        """Log the faults of a chunk; raise if they are not to be borne."""
        spots = job.spots
        where = f"episode {plan.number} ({plan.dataset}): {len(job.faults)} of {len(spots)} samples"
        if self.on_error == "raise":
            raise IntegrityError(
                f"{where} are damaged: {job.faults[0].reason}. pipeline.verify says what is damaged and "
                "--repair mends it; on_error='mask' or 'replace' goes on without them"
            )
        for fault in job.faults:
            sample = (plan.dataset, int(spots.rows[fault.at]))
            if sample not in self._said:
                self._said.add(sample)
                log.warning("episode %d: %s (%s)", plan.number, fault.reason, self.on_error)
        if meter.faults > max(GRACE, MOST_SHARE * meter.images):
            raise IntegrityError(
                f"{meter.faults:,} of {meter.images:,} samples could not be decoded, more than one in "
                f"{round(1 / MOST_SHARE):,}; this is not a few bad samples. The last: {job.faults[-1].reason}. "
                "Check the shard set with pipeline.verify"
            )

    def substitutes(self, plan: EpisodePlan, dataset: Dataset, row: int) -> Iterator[int]:
        """Other samples of its class and split that the episode does not use, in a fixed order."""
        index = dataset.index
        own = index.rows_of(int(index["class_id"][row]))
        same = np.flatnonzero(index["split"][own] == index["split"][row]) + own.start
        used = np.concatenate([plan.support.rows, plan.query.rows])
        free = np.setdiff1d(same, used)
        draw = generator(self._seed, row, REPLACEMENT_DRAW).permutation(free)
        yield from map(int, draw[:SUBSTITUTES])

    def no_substitute(self, plan: EpisodePlan, dataset: Dataset, row: int) -> NoReturn:
        name = dataset.manifest.classes[int(dataset.index["class_id"][row])].name
        raise IntegrityError(
            f"episode {plan.number}: {plan.dataset} has no other sample of class {name!r} that could "
            "stand in for a damaged one; use on_error='mask', or mend the set with pipeline.verify "
            "--repair"
        )
