"""One task: a learner adapts to its support set and is asked about its queries."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from learners.evaluate.records import TaskAnswers, VideoAnswers
from learners.evaluate.work import Part
from learners.learner import Classifier, Passage
from pipeline.episodes import EpisodePlan
from pipeline.index import Dataset
from pipeline.loader.episode import Episode
from pipeline.samplers import Orbit


def adapt(
    learner: nn.Module, images: Tensor, labels: Tensor, passage: Passage
) -> tuple[Classifier, float]:
    """A classifier of the labels that there are, as 0, 1, ... in their order, and its seconds.

    The learner: any with an `adapt` like `StagedLearner`'s.
    """
    seen, labels = torch.unique(labels, return_inverse=True)
    begin = now(images.device)
    classify: Classifier = learner.adapt(  # type: ignore[operator]
        images, labels, len(seen), passage
    )
    return classify, now(images.device) - begin


def answer(
    learner: nn.Module, episode: Episode, part: Part, dataset: Dataset, passage: Passage
) -> TaskAnswers:
    """A task whose images stream by, adapted to and asked; whatever clips it has."""
    plan, support = episode.plan, episode.support
    clips, frames = replace(passage, clip=plan.clip), replace(passage, clip=1)
    classify, seconds = adapt(learner, support.images, support.labels, clips)
    asked = ((c.positions, classify.embed(c.images, frames)) for c in episode.query)
    return record(part, dataset, plan, ask(classify, plan, dataset, asked), seconds)


def ask(
    classify: Classifier,
    plan: EpisodePlan,
    dataset: Dataset,
    features: Iterable[tuple[Tensor, Tensor]],
) -> NDArray[np.int64]:
    """The label that each query row is given.

    features: places in the plan's query, and the features of the frames there, whatever the batches; a
    sliding query's come in order.
    """
    seen = np.unique(plan.support.labels)
    answers = np.full(len(plan.query), -1)
    videos = torch.from_numpy(dataset.index["group"][plan.query.rows].astype(np.int64))
    window = Window(plan.clip)
    for places, frames in features:
        where = places.cpu()
        clips = frames if plan.clip == 1 else window(frames, videos[where].to(frames.device))
        answers[where.numpy()] = seen[classify.score(clips).argmax(1).cpu().numpy()]
    return answers


class Window:
    """ORBIT's clips: the mean of each frame's features and of those of the frames before it in its video.

    A clip has `clip` frames; at the start of a video its first frame is repeated.
    """

    def __init__(self, clip: int) -> None:
        self._clip = clip
        self._features: Tensor | None = None
        self._videos: Tensor | None = None

    def __call__(self, features: Tensor, videos: Tensor) -> Tensor:
        """The clips of the next frames, one vector for each."""
        old = 0
        if self._features is not None and self._videos is not None:
            old = len(self._features)
            features = torch.cat([self._features, features])
            videos = torch.cat([self._videos, videos])
        numbers = torch.arange(len(features), device=features.device)
        begins = torch.ones_like(videos, dtype=torch.bool)
        begins[1:] = videos[1:] != videos[:-1]
        first = torch.where(begins, numbers, 0).cummax(0).values
        back = torch.arange(1 - self._clip, 1, device=features.device)
        frames = torch.maximum(numbers[old:, None] + back, first[old:, None])
        self._features, self._videos = features[1 - self._clip :], videos[1 - self._clip :]
        return features[frames].mean(1)


def record(
    part: Part, dataset: Dataset, plan: EpisodePlan, answers: NDArray[np.int64], seconds: float
) -> TaskAnswers:
    """What is kept of a task."""
    found = TaskAnswers(
        dataset=plan.dataset,
        number=plan.number,
        way=plan.way,
        support=len(plan.support),
        queries=len(plan.query),
        correct=int((answers == plan.query.labels).sum()),
        adapt_seconds=seconds,
    )
    if not isinstance(part.sampler, Orbit):
        return found
    return replace(
        found,
        mode=part.group,
        user=part.sampler.user_of(plan.number),
        objects=tuple(_object(dataset, class_id) for class_id in plan.classes),
        videos=tuple(_videos(dataset, plan, answers)),
    )


def _videos(
    dataset: Dataset, plan: EpisodePlan, answers: NDArray[np.int64]
) -> Iterable[VideoAnswers]:
    groups = dataset.index["group"][plan.query.rows]
    frames = dataset.index["frame"][plan.query.rows]
    borders = np.flatnonzero(np.diff(groups)) + 1
    for own in np.split(np.arange(len(groups)), borders):
        yield VideoAnswers(
            video=dataset.index.words["group"][groups[own[0]]],
            label=int(plan.query.labels[own[0]]),
            frames=tuple(frames[own].tolist()),
            answers=tuple(answers[own].tolist()),
        )


def _object(dataset: Dataset, class_id: int) -> str:
    """An object's name, without its user's."""
    record = dataset.manifest.classes[class_id]
    return record.name.removeprefix(f"{record.superclass}/")


def now(device: torch.device) -> float:
    """Seconds, once all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
