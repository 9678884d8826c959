"""Whether a run goes on with the images that it began with."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from learners.runs import DataIdentity, training_datasets
from learners.training.config import TrainingConfig
from learners.training.validate import validation_names
from pipeline.errors import UsageError, first_few
from pipeline.shardset import ShardSet

log = logging.getLogger(__name__)


def identify_data(shards: ShardSet, config: TrainingConfig) -> dict[str, DataIdentity]:
    """The identity of each dataset that a run trains or validates on."""
    names = {*validation_names(shards, config, "validation")}
    names |= training_datasets(shards, config.datasets, orbit=bool(config.orbit)).keys()
    manifests = {name: shards[name].manifest for name in sorted(names)}
    return {
        name: DataIdentity(plan=of.plan_hash, samples=of.samples, index=of.index_sha256)
        for name, of in manifests.items()
    }


def check_same_data(before: Mapping[str, DataIdentity], now: Mapping[str, DataIdentity], place: str) -> None:
    """Refuse to go on with other images than the run began with; warn where only their bytes differ."""
    changes = [*_data_changes(before, now)]
    if before and changes:
        raise UsageError(
            f"{place} does not hold what this run was trained on: {first_few(changes, '; ')}. A run goes on with the "
            "same images: say with --shards where they are, or begin another run with --out"
        )
    differing = [name for name in before if before[name].index != now[name].index]
    if differing:
        log.warning(
            "%s in %s has other bytes than this run began with (other libraries built it, or the source changed): "
            "the run goes on, and not bit for bit", first_few(differing), place,
        )  # fmt: skip


def _data_changes(before: Mapping[str, DataIdentity], now: Mapping[str, DataIdentity]) -> Iterator[str]:
    for name in sorted({*before, *now}):
        if name not in now:
            yield f"{name} is missing"
        elif name not in before:
            yield f"{name} is new"
        elif before[name].samples != now[name].samples:
            yield f"{name} had {before[name].samples:,} images and has {now[name].samples:,}"
        elif before[name].plan != now[name].plan:
            yield f"{name} was built anew, with other images, classes, splits or encodings"
