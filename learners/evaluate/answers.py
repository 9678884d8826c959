"""The answers to one task: a learner adapts to the support set and classifies the queries."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learners.evaluate.calibration import task_calibration
from learners.evaluate.records import TaskAnswers, VideoAnswers
from learners.evaluate.task_set import DatasetTasks
from learners.learner import MetaLearner
from learners.task import ChunkedPass, Classifier
from pipeline.episodes import EpisodePlan
from pipeline.index import Dataset
from pipeline.loader.episode import Episode


def timed_adapt(
    learner: MetaLearner, images: Tensor, labels: Tensor, passage: ChunkedPass
) -> tuple[Classifier, float]:
    """The classifier of a support set and the seconds it took; its classes are the labels present, ascending."""
    present, labels = torch.unique(labels, return_inverse=True)
    begin = device_seconds(images.device)
    classifier = learner.adapt(images, labels, len(present), passage)
    return classifier, device_seconds(images.device) - begin


class TaskScores(NamedTuple):
    """The logits of a task's queries, in the order of its plan."""

    plan: EpisodePlan
    logits: Tensor
    """M x classes, on the CPU; the classes are those with support images, ascending."""
    seconds: float
    """To adapt."""

    @property
    def present(self) -> NDArray[np.int64]:
        """The labels of the columns."""
        return np.unique(self.plan.support.labels)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """The logits of the queries whose class has support images, and the column of that class."""
        present = self.present
        known = np.isin(self.plan.query.labels, present)
        columns = np.searchsorted(present, self.plan.query.labels[known])
        return self.logits[torch.from_numpy(known)], torch.from_numpy(columns)


def answer_task(
    learner: MetaLearner, episode: Episode, tasks: DatasetTasks, dataset: Dataset, passage: ChunkedPass
) -> TaskAnswers:
    """Adapt to an episode from the loader and answer its queries, in whatever clips it has."""
    return task_answers(tasks, dataset, score_task(learner, episode, dataset, passage))


def score_task(learner: MetaLearner, episode: Episode, dataset: Dataset, passage: ChunkedPass) -> TaskScores:
    """Adapt to an episode from the loader and score its queries."""
    plan, support = episode.plan, episode.support
    clips, frames = replace(passage, clip=plan.clip), replace(passage, clip=1)
    classifier, seconds = timed_adapt(learner, support.images, support.labels, clips)
    features = ((b.positions, classifier.embed(b.images, frames)) for b in episode.query)
    return TaskScores(plan, score_queries(classifier, plan, dataset, features), seconds)


def score_queries(
    classifier: Classifier, plan: EpisodePlan, dataset: Dataset, features: Iterable[tuple[Tensor, Tensor]]
) -> Tensor:
    """The logits of each query row.

    features: batches of positions in the plan's query with the features of the frames there, of any size;
    those of a sliding query come in order.
    """
    videos = torch.from_numpy(dataset.index["group"][plan.query.rows].astype(np.int64))
    window = ClipWindow(plan.clip)
    places, scores = [], []
    for batch_positions, frames in features:
        positions = batch_positions.cpu()
        clips = frames if plan.clip == 1 else window(frames, videos[positions].to(frames.device))
        places.append(positions)
        scores.append(classifier.score(clips).cpu())
    return torch.cat(scores)[torch.cat(places).argsort()]


class ClipWindow:
    """ORBIT's sliding clips: the mean features of each frame and of the frames before it in its video.

    A clip has `clip` frames; at the start of a video its first frame is repeated.
    """

    def __init__(self, clip: int) -> None:
        self._clip = clip
        self._features: Tensor | None = None
        self._videos: Tensor | None = None

    def __call__(self, features: Tensor, videos: Tensor) -> Tensor:
        """The clips that end with the next frames, one vector for each."""
        earlier = 0
        if self._features is not None and self._videos is not None:
            earlier = len(self._features)
            features = torch.cat([self._features, features])
            videos = torch.cat([self._videos, videos])
        numbers = torch.arange(len(features), device=features.device)
        begins = torch.ones_like(videos, dtype=torch.bool)
        begins[1:] = videos[1:] != videos[:-1]
        first = torch.where(begins, numbers, 0).cummax(0).values
        back = torch.arange(1 - self._clip, 1, device=features.device)
        frames = torch.maximum(numbers[earlier:, None] + back, first[earlier:, None])
        self._features, self._videos = features[1 - self._clip :], videos[1 - self._clip :]
        return features[frames].mean(1)


def task_answers(
    tasks: DatasetTasks, dataset: Dataset, scores: TaskScores, temperature: float | None = None
) -> TaskAnswers:
    """The record of a finished task; `temperature` is the one that fits validation tasks, if there is one."""
    plan = scores.plan
    answers = scores.present[scores.logits.argmax(1).numpy()]
    pairs = scores.pairs()
    record = TaskAnswers(
        dataset=plan.dataset,
        number=plan.number,
        way=plan.way,
        support=len(plan.support),
        queries=len(plan.query),
        correct=int((answers == plan.query.labels).sum()),
        adapt_seconds=scores.seconds,
        calibration=task_calibration(*pairs),
        fitted_calibration=None if temperature is None else task_calibration(*pairs, temperature),
    )
    if not tasks.by_video:
        return record
    objects = [dataset.manifest.classes[class_id] for class_id in plan.classes]
    return replace(
        record,
        mode=tasks.mode,
        user=objects[0].superclass,
        objects=tuple(thing.name.removeprefix(f"{thing.superclass}/") for thing in objects),
        videos=tuple(_video_answers(dataset, plan, answers)),
    )


def _video_answers(dataset: Dataset, plan: EpisodePlan, answers: NDArray[np.int64]) -> Iterable[VideoAnswers]:
    groups = dataset.index["group"][plan.query.rows]
    frames = dataset.index["frame"][plan.query.rows]
    borders = np.flatnonzero(np.diff(groups)) + 1
    for rows in np.split(np.arange(len(groups)), borders):
        yield VideoAnswers(
            video=dataset.index.words["group"][groups[rows[0]]],
            label=int(plan.query.labels[rows[0]]),
            frames=tuple(frames[rows].tolist()),
            answers=tuple(answers[rows].tolist()),
        )


def device_seconds(device: torch.device) -> float:
    """The time in seconds, once the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
