"""A run's settings become a learner, an optimiser, a sampler and a loader of episodes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import torch

from learners.compiled import compile_networks
from learners.learner import MetaLearner
from learners.lite.engine import Lite
from learners.methods.catalogue import NAMED_PIXELS, LearnerInfo, describe_learner, make_learner
from learners.networks.arithmetic import autocast_dtype
from learners.networks.backbones import RANDOM
from learners.processes import ProcessGroup
from learners.runs import training_datasets
from learners.task import ChunkedPass
from learners.training.config import TrainingConfig
from pipeline.episodes import Sampler
from pipeline.loader.loader import EpisodeLoader
from pipeline.samplers import Fixed, MetaDataset, Orbit
from pipeline.samplers.hierarchy import Hierarchy
from pipeline.shardset import ShardSet

log = logging.getLogger(__name__)


def initial_learner(
    config: TrainingConfig, device: torch.device, *, stored: LearnerInfo | None = None
) -> MetaLearner:
    """The untrained learner on a device; its initial weights depend on the seed.

    stored: what a checkpoint says of it, whose weights replace these: none are fetched then.
    """
    weights, pixels = config.first_weights, NAMED_PIXELS.get(config.pixels)
    if stored is not None:
        weights, pixels = RANDOM, stored.normalisation
    learner = make_learner(
        config.learner, config.backbone, weights=weights, normalisation=pixels,
        temperature=config.temperature or None, seed=config.seed, options=config.options,
    ).to(device)  # fmt: skip
    if config.compile and learner.compilable:
        compile_networks(learner)
    return learner


def describe_run_learner(learner: MetaLearner, config: TrainingConfig, shards: ShardSet) -> LearnerInfo:
    """Describe the run's learner; its resizing is that of most of its training datasets."""
    used = [
        dataset.manifest.recipe.resizing
        for dataset in training_datasets(shards, config.datasets, orbit=bool(config.orbit)).values()
    ]
    most = max(used, key=used.count)
    if len(set(used)) > 1:
        log.warning(
            "the datasets were not resized alike (%s); whoever uses this learner has pictures %s",
            "; ".join(sorted(set(map(str, used)))), most,
        )  # fmt: skip
    return describe_learner(learner, config.learner, config.image_size, most, config.options)


def make_optimizer(config: TrainingConfig, learner: MetaLearner) -> torch.optim.Optimizer:
    """Adam over the trainable parameters, in one kernel on a GPU; the backbone has a group of its own."""
    named = [(name, p) for name, p in learner.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in named if n.startswith("backbone.")],
         "lr": config.lr * config.backbone_lr_scale},
        {"params": [p for n, p in named if not n.startswith("backbone.")], "lr": config.lr},
    ]  # fmt: skip
    first, second = config.adam_betas
    return torch.optim.Adam(
        [group for group in groups if group["params"]], lr=config.lr, betas=(first, second),
        eps=config.adam_epsilon, weight_decay=config.weight_decay,
        fused=all(p.is_cuda for _, p in named) or None,
    )  # fmt: skip


def scale_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set the learning rates to this factor of what they began with."""
    for group in optimizer.param_groups:
        group.setdefault("first_lr", group["lr"])
        group["lr"] = group["first_lr"] * factor


def lite_settings(config: TrainingConfig) -> Lite:
    """The settings of LITE's gradient."""
    settings = Lite(
        h=config.h, sampler=config.sampler, query_h=config.query_h or None, query_sampler=config.query_sampler,
        chunk=config.chunks.graph, forward_chunk=config.chunks.forward, precision=autocast_dtype(config.precision), penalty=config.penalty,
    )  # fmt: skip
    if settings.paper:  # a step divides by its tasks, and the papers' codes do not divide the penalty
        settings = replace(settings, penalty=config.penalty * config.tasks_per_step)
    return settings


def passage(config: TrainingConfig) -> ChunkedPass:
    """The chunks and precision of passes without a gradient."""
    return ChunkedPass(precision=autocast_dtype(config.precision)).resized(config.chunks)


def open_loader(
    shards: ShardSet, sampler: Sampler, config: TrainingConfig, processes: ProcessGroup, *, start: int = 0
) -> EpisodeLoader:
    """Open the loader of this process's episodes."""
    return EpisodeLoader(
        shards, sampler, image_size=config.image_size, h=0, start=start, device=processes.device,
        decoder=config.decoder, threads=config.threads or None, rank=processes.rank, world=processes.size,
    )  # fmt: skip


def _hierarchies(
    shards: ShardSet, config: TrainingConfig, split: str, datasets: Sequence[str]
) -> Hierarchy | dict[str, Hierarchy]:
    """How the classes of each dataset are drawn: `superclass` draws those of a graph (WordNet) alike."""
    if config.hierarchy != "superclass":
        return config.hierarchy
    return {
        name: "flat" if shards[name].manifest.hierarchy.get(split) else "auto"
        for name in datasets or shards.with_split(split)
    }


def make_sampler(
    shards: ShardSet, config: TrainingConfig, split: str, seed: int, datasets: tuple[str, ...] = ()
) -> Sampler:
    """The sampler of a split: fixed way and shot, ORBIT's tasks, or Meta-Dataset's."""
    if config.orbit:
        return Orbit(
            shards, split=split, protocol=config.orbit, mode=config.mode, seed=seed,
            caps_84px=config.orbit_caps and split == "train",
            dataset=datasets[0] if datasets else "orbit",
        )  # fmt: skip
    chosen = list(datasets) or None
    if config.way:
        return Fixed(
            shards, split=split, way=config.way, shot=config.shot, query=config.query,
            seed=seed, datasets=chosen,
        )  # fmt: skip
    return MetaDataset(
        shards, split=split, seed=seed, datasets=chosen,
        hierarchy=_hierarchies(shards, config, split, datasets),
        max_way=config.max_way, max_support=config.max_support, max_query=config.query,
    )  # fmt: skip
