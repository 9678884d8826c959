"""An episode becomes a task: augmentation, and the order in which images are batched."""

from __future__ import annotations

import torch
from torch import Tensor

from learners.lite.paper import shuffle_task
from learners.task import Images, Task, first_images
from learners.training.components import lite_settings
from learners.training.config import TrainingConfig
from pipeline.episodes import PAPER_ORDER_DRAW, TURN_DRAW, generator
from pipeline.loader.chunks import RESIDENT_IMAGES
from pipeline.loader.episode import Episode, EpisodeImages
from pipeline.loader.uploads import upload
from pipeline.pixels import draw_flips, flip, rotate_quarters


def training_task(episode: Episode, config: TrainingConfig) -> Task:
    """The task of an episode; it depends on the settings and the episode's number alone.

    No image is waited for, except by the papers' loops, which shuffle the task first.
    """
    turns = _turns(config, episode)
    task = Task(
        images=_augmented(config, episode, episode.support, turns),
        labels=episode.support.host_labels,
        way=episode.way,
        queries=[(_augmented(config, episode, episode.query, turns), episode.query.labels)],
        query_count=len(episode.query),
        clip=episode.plan.clip,
    )
    if lite_settings(config).paper:  # classes come one after the other, and batches matter there
        task = shuffle_task(task, generator(config.seed, episode.number, PAPER_ORDER_DRAW))
    return task


class AugmentedImages:
    """The support set or the queries of an episode, each image augmented once it has arrived."""

    def __init__(self, side: EpisodeImages, turns: Tensor | None, coins: Tensor | None) -> None:
        """`turns` and `coins`: the quarter turns of each image, and whether it is mirrored; None for no such thing."""
        self._side = side
        self._turns = turns
        self._coins = coins
        self._done = 0
        self._images: Tensor | None = None

    def __len__(self) -> int:
        return len(self._side)

    def first(self, count: int) -> Tensor:
        """The first `count` images, once they are there."""
        arrived = self._side.first(count)
        if self._images is None:
            shape = (len(self), *arrived.shape[1:])
            self._images = torch.empty(
                shape, dtype=arrived.dtype, device=arrived.device, memory_format=torch.channels_last
            )
        if self._done < count:
            self._images[self._done : count] = self._augment(arrived[self._done :], slice(self._done, count))
            self._done = count
        return self._images[:count]

    def _augment(self, images: Tensor, part: slice) -> Tensor:
        if self._turns is not None:
            images = rotate_quarters(images, self._turns[part])
        return images if self._coins is None else flip(images, self._coins[part])


def _augmented(config: TrainingConfig, episode: Episode, side: EpisodeImages, turns: Tensor | None) -> Images:
    """The images of support set or queries, after augmentation, as they arrive."""
    coins, device = None, side.labels.device
    if turns is not None:
        (turns,) = upload(turns[side.host_labels], device=device)
    if config.flip:
        tossed = draw_flips(config.seed, episode.number, side.host_positions, query=side is episode.query)
        (coins,) = upload(tossed, device=device)  # once, and not for each chunk
    images: Images = side
    if turns is not None or coins is not None:
        images = AugmentedImages(side, turns, coins)
    return images if len(side) <= RESIDENT_IMAGES else first_images(images)


def _turns(config: TrainingConfig, episode: Episode) -> Tensor | None:
    """The quarter turns of each class of an episode, with --rotate."""
    if not config.rotate:
        return None
    draw = generator(config.seed, episode.number, TURN_DRAW).integers(0, 4, episode.way)
    return torch.from_numpy(draw)
