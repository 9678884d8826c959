"""A run's settings become a learner, an optimiser, a sampler and a loader of episodes."""

from __future__ import annotations

import logging

import torch
from torch import nn

from learners.compiled import compile_networks
from learners.learner import Passage, StagedLearner
from learners.lite.engine import Lite
from learners.methods.catalogue import About, about, make
from learners.processes import Team
from learners.runs import training_datasets
from learners.training.config import Config
from pipeline.episodes import Sampler
from pipeline.loader.loader import EpisodeLoader
from pipeline.samplers import Fixed, MetaDataset, Orbit
from pipeline.shardset import ShardSet

log = logging.getLogger(__name__)


def make_learner(config: Config, device: torch.device) -> nn.Module:
    """The learner on a device with its first weights, which depend on the seed."""
    learner = make(
        config.learner, config.backbone, weights=config.weights, temperature=config.temperature or None,
        seed=config.seed,
    ).to(device)  # fmt: skip
    if config.compile and isinstance(learner, StagedLearner):
        compile_networks(learner)
    return learner


def describe(learner: nn.Module, config: Config, shards: ShardSet) -> About:
    """What the run's learner is; its pictures are resized as most datasets' that it learns from."""
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
    return about(learner, config.learner, config.image_size, most)


def make_optimizer(config: Config, learner: nn.Module) -> torch.optim.Optimizer:
    """Adam over what learns; the backbone is a group of its own."""
    named = [(name, p) for name, p in learner.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for n, p in named if n.startswith("backbone.")],
         "lr": config.lr * config.backbone_lr_scale},
        {"params": [p for n, p in named if not n.startswith("backbone.")], "lr": config.lr},
    ]  # fmt: skip
    return torch.optim.Adam([group for group in groups if group["params"]], lr=config.lr)


def lite(config: Config) -> Lite:
    """How gradients are taken."""
    return Lite(h=config.h, sampler=config.sampler, chunk=config.chunk, precision=precision(config))


def precision(config: Config) -> torch.dtype | None:
    """Of autocast."""
    return None if config.precision == "float32" else getattr(torch, config.precision)


def passage(config: Config) -> Passage:
    """How images pass where no gradient is taken."""
    return Passage(chunk=config.chunk, precision=precision(config))


def open_loader(
    shards: ShardSet, sampler: Sampler, config: Config, members: Team, *, start: int = 0
) -> EpisodeLoader:
    """This process's episodes."""
    return EpisodeLoader(
        shards, sampler, image_size=config.image_size, h=0, start=start, device=members.device,
        decoder=config.decoder, threads=config.threads or None, rank=members.rank, world=members.size,
    )  # fmt: skip


def make_sampler(
    shards: ShardSet, config: Config, split: str, seed: int, datasets: tuple[str, ...] = ()
) -> Sampler:
    """Episodes of a split: of fixed way and shot, ORBIT's, or as Meta-Dataset's."""
    if config.orbit:
        return Orbit(
            shards, split=split, protocol=config.orbit, mode=config.mode, seed=seed,
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
        max_way=config.max_way, max_support=config.max_support, max_query=config.query,
    )  # fmt: skip
