"""A run's settings become a learner, an optimiser, a sampler of episodes."""

from __future__ import annotations

import torch
from torch import nn

from learners.compiled import compile_networks
from learners.learner import StagedLearner
from learners.lite import Lite
from learners.named import make
from learners.training.config import Config
from pipeline.episodes import Sampler
from pipeline.samplers import Fixed, MetaDataset, Orbit
from pipeline.shardset import ShardSet


def make_learner(config: Config, device: torch.device) -> nn.Module:
    """The learner on a device with its first weights, which depend on the seed."""
    learner = make(
        config.learner, config.backbone, weights=config.weights, temperature=config.temperature or None,
        seed=config.seed,
    ).to(device)  # fmt: skip
    if config.compile and isinstance(learner, StagedLearner):
        compile_networks(learner)
    return learner


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
