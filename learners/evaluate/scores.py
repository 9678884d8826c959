"""Scores from answers: means with their intervals, ORBIT's metrics, and the result file of its challenge.

No score depends on the order of the tasks, nor on how many processes answered them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, get_args

import numpy as np

from learners.evaluate.records import DatasetScore, TaskAnswers, VideoAnswers
from pipeline.errors import UsageError, check_choice
from pipeline.samplers.orbit.rules import ProtocolName

NORMAL_95: Final = 1.96


class _QueryVideo(NamedTuple):
    """A query video of a task."""

    task: TaskAnswers
    video: VideoAnswers

    @property
    def correct(self) -> int:
        """The number of frames that were answered correctly."""
        return self.video.answers.count(self.video.label)

    @property
    def object(self) -> tuple[str, str]:
        """The user and the object; objects of two users may have the same name."""
        return self.task.user, self.task.objects[self.video.label]


class _ScoredValue(NamedTuple):
    """One of the values that a score is the mean of."""

    score: float
    chance: float


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half of its 95 % interval by the papers' formula.

    That is 1.96 standard deviations (over n, not n - 1) divided by the root of n.
    """
    if not values:
        raise UsageError("a mean needs at least one value, and there is none")
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return mean, NORMAL_95 * math.sqrt(variance / len(values))


def accuracy_scores(tasks: Sequence[TaskAnswers], dataset: str, group: str = "") -> tuple[DatasetScore, ...]:
    """The mean accuracy over tasks, a tuple of one score; that of a single task has no interval."""
    values = [_ScoredValue(task.accuracy, 1 / task.way) for task in tasks]
    return (_dataset_score(values, dataset, "accuracy", group),)


def frame_accuracy(video: VideoAnswers) -> float:
    """The share of frames that were answered correctly."""
    return video.answers.count(video.label) / len(video.answers)


def video_accuracy(video: VideoAnswers) -> float:
    """1 if the most frequent answer is correct, else 0; of equally frequent ones the lowest label counts."""
    return float(np.bincount(video.answers).argmax() == video.label)


def frames_to_recognition(video: VideoAnswers) -> float:
    """The share of frames before the first correct answer; 1 if there is none."""
    if video.label not in video.answers:
        return 1.0
    return video.answers.index(video.label) / len(video.answers)


VIDEO_METRICS: Final[Mapping[str, Callable[[VideoAnswers], float]]] = {
    "frame_accuracy": frame_accuracy,
    "video_accuracy": video_accuracy,
    "frames_to_recognition": frames_to_recognition,
}
POOLED_UNITS: Final[Mapping[str, Callable[[_QueryVideo], Hashable]]] = {
    "user": lambda query: query.task.user,
    "task": lambda query: query.task.number,
    "object": lambda query: query.object,
}
"""What the protocol of 2022 also scores, with all frames of a unit pooled as if they were one video."""


def orbit_scores(
    tasks: Sequence[TaskAnswers], dataset: str, protocol: ProtocolName = "2021"
) -> tuple[DatasetScore, ...]:
    """ORBIT's metrics, for each mode by itself.

    2021: each of `VIDEO_METRICS` as the mean over all videos of all tasks, and `user_...`: the mean over
    users of the mean over a user's videos. 2022: frame accuracy over videos, and `user_`, `task_` and
    `object_frame_accuracy`, for which frames are pooled before they are averaged, as the official code does.

    The answers must hold exactly the frames that the protocol scores: 2021 scores the duplicate frames of a
    padded video, 2022 does not.
    """
    check_choice(protocol, get_args(ProtocolName), "ORBIT's protocol")
    values_of = _values_of_2021 if protocol == "2021" else _values_of_2022
    scores: list[DatasetScore] = []
    for mode in dict.fromkeys(task.mode for task in tasks):
        videos = [query for task in tasks if task.mode == mode for query in _query_videos(task)]
        scores += [
            _dataset_score(values, dataset, metric, mode) for metric, values in values_of(videos).items()
        ]
    return tuple(scores)


def challenge_results(tasks: Sequence[TaskAnswers], macs: Sequence[float | None]) -> dict[str, Any]:
    """The result file of ORBIT's challenge, for JSON: the answer to each frame, by user, task and video.

    The tasks are of one mode. `macs` are the multiply-accumulates to adapt to each task; where one is None,
    the file leaves it out.
    """
    modes = {task.mode for task in tasks}
    if len(modes) > 1:
        raise UsageError(f"a result file is of one mode, not of {' and '.join(sorted(modes))}")
    results: dict[str, Any] = {}
    for task, cost in sorted(zip(tasks, macs, strict=True), key=lambda pair: pair[0].number):
        entry: dict[str, Any] = {"task_object_list": list(task.objects)}
        if cost is not None:
            entry["task_macs_to_personalise"] = int(cost)
        entry["task_videos"] = {
            query.video.video: _answers_by_frame(query.video) for query in _query_videos(task)
        }
        results.setdefault(task.user, []).append(entry)
    return results


def _values_of_2021(videos: Sequence[_QueryVideo]) -> dict[str, list[_ScoredValue]]:
    metrics = {}
    for metric, measure in VIDEO_METRICS.items():
        by_user: dict[str, list[_ScoredValue]] = {}
        for query in videos:
            value = _ScoredValue(measure(query.video), 1 / query.task.way)
            by_user.setdefault(query.task.user, []).append(value)
        metrics[metric] = [value for values in by_user.values() for value in values]
        metrics[f"user_{metric}"] = [_mean_value(values) for values in by_user.values()]
    return metrics


def _values_of_2022(videos: Sequence[_QueryVideo]) -> dict[str, list[_ScoredValue]]:
    metric = "frame_accuracy"
    metrics = {metric: [_pool_frames([query]) for query in videos]}
    for unit, key in POOLED_UNITS.items():
        units: dict[Hashable, list[_QueryVideo]] = {}
        for query in videos:
            units.setdefault(key(query), []).append(query)
        metrics[f"{unit}_{metric}"] = [_pool_frames(own) for own in units.values()]
    return metrics


def _pool_frames(videos: Sequence[_QueryVideo]) -> _ScoredValue:
    frames = [len(query.video.answers) for query in videos]
    chances = (count / query.task.way for count, query in zip(frames, videos, strict=True))
    correct = sum(query.correct for query in videos)
    return _ScoredValue(correct / sum(frames), math.fsum(chances) / sum(frames))


def _mean_value(values: Sequence[_ScoredValue]) -> _ScoredValue:
    count = len(values)
    return _ScoredValue(*(math.fsum(column) / count for column in zip(*values, strict=True)))


def _dataset_score(values: Sequence[_ScoredValue], dataset: str, metric: str, group: str) -> DatasetScore:
    mean, half = mean_interval([value.score for value in values])
    chance, _ = mean_interval([value.chance for value in values])
    return DatasetScore(
        dataset=dataset,
        metric=metric,
        value=mean,
        interval=half if len(values) > 1 else None,
        count=len(values),
        chance=None if metric.endswith("frames_to_recognition") else chance,
        group=group,
    )


def _query_videos(task: TaskAnswers) -> Iterable[_QueryVideo]:
    """The query videos of a task, each with at least one frame and an answer for each."""
    where = f"task {task.number} of {task.dataset}"
    if not task.videos:
        raise UsageError(f"{where} has no query video, and ORBIT's metrics are about videos")
    for video in task.videos:
        if not video.answers or len(video.answers) != len(video.frames):
            raise UsageError(
                f"{where} has {len(video.answers)} answers for the {len(video.frames)} frames of "
                f"{video.video}; it needs a frame or more, and an answer for each"
            )
        yield _QueryVideo(task, video)


def _answers_by_frame(video: VideoAnswers) -> dict[int, int]:
    answers = dict(zip(video.frames, video.answers, strict=True))
    if len(answers) < len(video.frames):
        raise UsageError(
            f"{video.video} has frames that were answered twice; a result file takes each once, as the "
            "protocol of 2022 does"
        )
    return answers
