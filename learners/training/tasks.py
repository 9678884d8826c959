"""An episode becomes a task: augmentation, and the order in which images are batched."""

from __future__ import annotations

import torch
from torch import Tensor

from learners.lite.paper import shuffle_task
from learners.task import Task
from learners.training.components import lite_settings
from learners.training.config import TrainingConfig
from pipeline.episodes import PAPER_ORDER_DRAW, TURN_DRAW, generator
from pipeline.loader.episode import Episode, EpisodeImages
from pipeline.pixels import draw_flips, flip, rotate_quarters


def training_task(episode: Episode, config: TrainingConfig) -> Task:
    """The task of an episode; it depends on the settings and the episode's number alone."""
    turns = _turns(config, episode)
    task = Task(
        images=_augmented(config, episode, episode.support, turns),
        labels=episode.support.labels,
        way=episode.way,
        queries=[(_augmented(config, episode, episode.query, turns), episode.query.labels)],
        query_count=len(episode.query),
        clip=episode.plan.clip,
    )
    if lite_settings(config).paper:  # classes come one after the other, and batches matter there
        task = shuffle_task(task, generator(config.seed, episode.number, PAPER_ORDER_DRAW))
    return task


def _augmented(config: TrainingConfig, episode: Episode, part: EpisodeImages, turns: Tensor | None) -> Tensor:
    """The images of support or query set, after augmentation."""
    images = part.images
    if turns is not None:
        images = rotate_quarters(images, turns.to(images.device)[part.labels])
    if config.flip:
        coins = draw_flips(config.seed, episode.number, part.positions, query=part is episode.query)
        images = flip(images, coins)
    return images


def _turns(config: TrainingConfig, episode: Episode) -> Tensor | None:
    """The quarter turns of each class of an episode, with --rotate."""
    if not config.rotate:
        return None
    draw = generator(config.seed, episode.number, TURN_DRAW).integers(0, 4, episode.way)
    return torch.from_numpy(draw)
