"""Scores from answers: means with their intervals, ORBIT's metrics, and its challenge's result file.

No score depends on the order of the tasks, nor on how many processes answered them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

import numpy as np

from learners.evaluate.records import Score, TaskAnswers, VideoAnswers
from pipeline.errors import UsageError, check_choice

NORMAL_95: Final = 1.96
OrbitProtocol: TypeAlias = Literal["2021", "2022"]


class _Film(NamedTuple):
    """A query video of a task."""

    task: TaskAnswers
    answered: VideoAnswers

    @property
    def right(self) -> int:
        return self.answered.answers.count(self.answered.label)

    @property
    def owner(self) -> tuple[str, str]:
        """A user and an object; users may have objects of the same name."""
        return self.task.user, self.task.objects[self.answered.label]


class _Value(NamedTuple):
    """What a score is a mean of."""

    score: float
    chance: float


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half of its 95 % interval by the papers' formula.

    That is 1.96 standard deviations (of all, not n - 1) over the root of n.
    """
    if not values:
        raise UsageError("a mean needs at least one value, and there is none")
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / len(values)
    return mean, NORMAL_95 * math.sqrt(variance / len(values))


def accuracy(tasks: Sequence[TaskAnswers], dataset: str, group: str = "") -> Score:
    """The mean over tasks of the share of their queries that was answered rightly; one has no interval."""
    values = [_Value(task.accuracy, 1 / task.way) for task in tasks]
    return _score(values, dataset, "accuracy", group)


def frame_accuracy(video: VideoAnswers) -> float:
    """The share of frames that was answered rightly."""
    return video.answers.count(video.label) / len(video.answers)


def video_accuracy(video: VideoAnswers) -> float:
    """1 if the most frequent answer is right; of several as frequent the lowest label counts."""
    return float(np.bincount(video.answers).argmax() == video.label)


def frames_to_recognition(video: VideoAnswers) -> float:
    """The share of frames before the first right answer; 1 if there is none."""
    if video.label not in video.answers:
        return 1.0
    return video.answers.index(video.label) / len(video.answers)


METRICS: Final[Mapping[str, Callable[[VideoAnswers], float]]] = {
    "frame_accuracy": frame_accuracy,
    "video_accuracy": video_accuracy,
    "frames_to_recognition": frames_to_recognition,
}
POOLED: Final[Mapping[str, Callable[[_Film], Hashable]]] = {
    "user": lambda film: film.task.user,
    "task": lambda film: film.task.number,
    "object": lambda film: film.owner,
}
"""What the protocol of 2022 also scores, as if all frames of one were one video."""


def orbit_scores(
    tasks: Sequence[TaskAnswers], dataset: str, protocol: OrbitProtocol = "2021"
) -> tuple[Score, ...]:
    """ORBIT's metrics, for each mode by itself.

    2021: each of `METRICS` as the mean over all videos of all tasks, and `user_...`: the mean over users of
    the mean over a user's videos. 2022: frame accuracy over videos, and `user_`, `task_` and
    `object_frame_accuracy`, for which frames are pooled before they are averaged, as the official code does.

    The answers hold what the protocol scores: 2021 scores a padded video's duplicate frames, 2022 does not,
    and whoever makes the answers has left them out.
    """
    check_choice(protocol, get_args(OrbitProtocol), "ORBIT's protocol")
    values_of = _values_of_2021 if protocol == "2021" else _values_of_2022
    scores: list[Score] = []
    for mode in dict.fromkeys(task.mode for task in tasks):
        films = [film for task in tasks if task.mode == mode for film in _films(task)]
        scores += [_score(v, dataset, metric, mode) for metric, v in values_of(films).items()]
    return tuple(scores)


def challenge(tasks: Sequence[TaskAnswers], macs: Sequence[float | None]) -> dict[str, Any]:
    """The result file of ORBIT's challenge, for JSON: what was said of each frame, task by task, by user.

    macs: of each of these tasks to adapt; where it is None the file says nothing of it. The tasks are of one
    mode.
    """
    modes = {task.mode for task in tasks}
    if len(modes) > 1:
        raise UsageError(f"a result file is of one mode, not of {' and '.join(sorted(modes))}")
    found: dict[str, Any] = {}
    for task, cost in sorted(zip(tasks, macs, strict=True), key=lambda pair: pair[0].number):
        entry: dict[str, Any] = {"task_object_list": list(task.objects)}
        if cost is not None:
            entry["task_macs_to_personalise"] = int(cost)
        entry["task_videos"] = {film.answered.video: _by_frame(film) for film in _films(task)}
        found.setdefault(task.user, []).append(entry)
    return found


def _values_of_2021(films: Sequence[_Film]) -> dict[str, list[_Value]]:
    found = {}
    for metric, measure in METRICS.items():
        by_user: dict[str, list[_Value]] = {}
        for film in films:
            value = _Value(measure(film.answered), 1 / film.task.way)
            by_user.setdefault(film.task.user, []).append(value)
        found[metric] = [value for values in by_user.values() for value in values]
        found[f"user_{metric}"] = [_mean(values) for values in by_user.values()]
    return found


def _values_of_2022(films: Sequence[_Film]) -> dict[str, list[_Value]]:
    metric = "frame_accuracy"
    found = {metric: [_pooled([film]) for film in films]}
    for unit, key in POOLED.items():
        units: dict[Hashable, list[_Film]] = {}
        for film in films:
            units.setdefault(key(film), []).append(film)
        found[f"{unit}_{metric}"] = [_pooled(some) for some in units.values()]
    return found


def _pooled(films: Sequence[_Film]) -> _Value:
    frames = [len(film.answered.answers) for film in films]
    chances = (count / film.task.way for count, film in zip(frames, films, strict=True))
    right = sum(film.right for film in films)
    return _Value(right / sum(frames), math.fsum(chances) / sum(frames))


def _mean(values: Sequence[_Value]) -> _Value:
    count = len(values)
    return _Value(*(math.fsum(column) / count for column in zip(*values, strict=True)))


def _score(values: Sequence[_Value], dataset: str, metric: str, group: str) -> Score:
    mean, half = interval([value.score for value in values])
    guess, _ = interval([value.chance for value in values])
    return Score(
        dataset=dataset,
        metric=metric,
        value=mean,
        interval=half if len(values) > 1 else None,
        count=len(values),
        chance=None if metric.endswith("frames_to_recognition") else guess,
        group=group,
    )


def _films(task: TaskAnswers) -> Iterable[_Film]:
    """A task's videos, each with at least one frame and an answer for each."""
    where = f"task {task.number} of {task.dataset}"
    if not task.videos:
        raise UsageError(f"{where} has no query video, and ORBIT's metrics are about videos")
    for video in task.videos:
        if not video.answers or len(video.answers) != len(video.frames):
            raise UsageError(
                f"{where} has {len(video.answers)} answers for the {len(video.frames)} frames of "
                f"{video.video}; it needs a frame or more, and an answer for each"
            )
        yield _Film(task, video)


def _by_frame(film: _Film) -> dict[int, int]:
    video = film.answered
    answers = dict(zip(video.frames, video.answers, strict=True))
    if len(answers) < len(video.frames):
        raise UsageError(
            f"{video.video} has frames that were answered twice; a result file takes each once, as the "
            "protocol of 2022 does"
        )
    return answers
