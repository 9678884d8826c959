from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from learners.evaluate.records import TaskAnswers, VideoAnswers
from learners.evaluate.scores import accuracy_scores, challenge_results, mean_interval, orbit_scores
from pipeline.errors import UsageError


def video(name: str, label: int, answers: str) -> VideoAnswers:
    """A video with one digit per frame as its answer."""
    labels = tuple(map(int, answers))
    frames = tuple(range(1, len(labels) + 1))
    return VideoAnswers(video=name, label=label, frames=frames, answers=labels)


def task(number: int, user: str, objects: str, *videos: VideoAnswers) -> TaskAnswers:
    queries = [(v.label, answer) for v in videos for answer in v.answers]
    return TaskAnswers(
        dataset="orbit", number=number, way=len(objects), support=8, queries=len(queries),
        correct=sum(a == b for a, b in queries), adapt_seconds=0.1, mode="clu-ve", user=user,
        objects=tuple(objects), videos=videos,
    )  # fmt: skip


# Both users have an object c. By hand, for each video:   frame  video  to recognition
TASKS = (
    task(0, "P1", "ck",
         video("v1", 0, "0010"),                         # 3/4    1      0
         video("v2", 1, "01")),                          # 1/2    0      1/2    0 and 1 tie: it is 0
    task(1, "P1", "ck",
         video("v1", 0, "1010"),                         # 2/4    1      1/4    0 and 1 tie: it is 0
         video("v2", 1, "00000")),                       # 0      0      1      never
    task(2, "P2", "abcd",
         video("v3", 3, "3"),                            # 1      1      0      one frame
         video("v4", 2, "13213")),                       # 1/5    0      2/5    1 and 3 tie: it is 1
)  # fmt: skip
CHANCE = (4 / 2 + 2 / 4) / 6
USERS_CHANCE = (1 / 2 + 1 / 4) / 2
TABLE_2021 = {  # value, the values that it is the mean of, chance
    "frame_accuracy": (2.95 / 6, [0.75, 0.5, 0.5, 0, 1, 0.2], CHANCE),
    "user_frame_accuracy": (0.51875, [0.4375, 0.6], USERS_CHANCE),
    "video_accuracy": (0.5, [1, 0, 1, 0, 1, 0], CHANCE),
    "user_video_accuracy": (0.5, [0.5, 0.5], USERS_CHANCE),
    "frames_to_recognition": (2.15 / 6, [0, 0.5, 0.25, 1, 0, 0.4], None),
    "user_frames_to_recognition": (0.31875, [0.4375, 0.2], None),
}
TABLE_2022 = {
    "frame_accuracy": (2.95 / 6, [0.75, 0.5, 0.5, 0, 1, 0.2], CHANCE),
    "user_frame_accuracy": (11 / 30, [6 / 15, 2 / 6], USERS_CHANCE),
    "task_frame_accuracy": (11 / 27, [4 / 6, 2 / 9, 2 / 6], (1 / 2 + 1 / 2 + 1 / 4) / 3),
    "object_frame_accuracy": (
        (5 / 8 + 1 / 7 + 1 + 1 / 5) / 4,  # P1's c and k, P2's d and c
        [5 / 8, 1 / 7, 1, 1 / 5],
        3 / 8,
    ),
}


@pytest.mark.parametrize(
    ("protocol", "table"), [("2021", TABLE_2021), ("2022", TABLE_2022)], ids=["2021", "2022"]
)
def test_orbits_metrics_are_those_counted_by_hand(
    protocol: str, table: dict[str, tuple[float, list[float], float | None]]
) -> None:
    scores = orbit_scores(TASKS, "orbit", protocol)  # type: ignore[arg-type]
    assert {score.metric for score in scores} == set(table)
    for score in scores:
        value, values, chance = table[score.metric]
        half = 1.96 * np.std(values) / math.sqrt(len(values))
        assert score.value == pytest.approx(value), score.metric
        assert score.interval == pytest.approx(half), score.metric
        assert score.count == len(values)
        assert score.chance == (None if chance is None else pytest.approx(chance))
        assert (score.dataset, score.group) == ("orbit", "clu-ve")


def test_modes_are_scored_apart_and_in_any_order_of_tasks() -> None:
    clean = [replace(task, mode="cle-ve") for task in TASKS[:2]]
    both = orbit_scores([*TASKS, *clean], "orbit")
    assert [s for s in both if s.group == "clu-ve"] == list(orbit_scores(TASKS, "orbit"))
    assert [s for s in both if s.group == "cle-ve"] == list(orbit_scores(clean, "orbit"))
    turned = orbit_scores([*clean, *TASKS][::-1], "orbit")
    assert {(s.metric, s.group): s for s in turned} == {(s.metric, s.group): s for s in both}
    one_user = next(s for s in both if (s.metric, s.group) == ("user_frame_accuracy", "cle-ve"))
    assert (one_user.count, one_user.interval) == (1, None)


def test_accuracy_is_the_mean_over_tasks_with_the_papers_interval() -> None:
    (score,) = accuracy_scores(TASKS, "orbit", "clu-ve")
    half = 1.96 * float(np.std([4 / 6, 2 / 9, 2 / 6])) / 3**0.5
    assert (score.value, score.interval) == pytest.approx((11 / 27, half))
    assert score.chance == pytest.approx((0.5 + 0.5 + 0.25) / 3)
    assert (score.dataset, score.metric, score.count) == ("orbit", "accuracy", 3)
    assert score.group == "clu-ve"
    assert accuracy_scores(TASKS[:1], "kitti")[0].interval is None


def test_an_interval_is_of_all_values_and_not_of_n_less_one() -> None:
    assert mean_interval([0.2, 0.6]) == pytest.approx((0.4, 1.96 * 0.2 / 2**0.5))
    assert mean_interval([0.3]) == (0.3, 0.0)
    numbers = np.random.default_rng(0).random(600).tolist()
    assert mean_interval(numbers) == mean_interval(numbers[::-1])
    with pytest.raises(UsageError, match="at least one value"):
        mean_interval([])


def test_the_challenges_file_holds_every_answer_by_user_task_video_and_frame() -> None:
    results = json.loads(json.dumps(challenge_results(TASKS[::-1], [7e12, 5.5, None])))
    assert results == {
        "P1": [
            {
                "task_object_list": ["c", "k"],
                "task_videos": {"v1": {"1": 0, "2": 0, "3": 1, "4": 0}, "v2": {"1": 0, "2": 1}},
            },
            {
                "task_object_list": ["c", "k"],
                "task_macs_to_personalise": 5,
                "task_videos": {
                    "v1": {"1": 1, "2": 0, "3": 1, "4": 0},
                    "v2": {"1": 0, "2": 0, "3": 0, "4": 0, "5": 0},
                },
            },
        ],
        "P2": [
            {
                "task_object_list": ["a", "b", "c", "d"],
                "task_macs_to_personalise": 7_000_000_000_000,
                "task_videos": {"v3": {"1": 3}, "v4": {"1": 1, "2": 3, "3": 2, "4": 1, "5": 3}},
            }
        ],
    }


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(UsageError, match="task 0 of orbit has no query video"):
        orbit_scores([replace(TASKS[0], videos=())], "orbit")
    empty = replace(TASKS[0].videos[0], frames=(), answers=())
    with pytest.raises(UsageError, match="0 answers for the 0 frames of v1"):
        orbit_scores([replace(TASKS[0], videos=(empty,))], "orbit", "2022")
    short = replace(TASKS[0].videos[0], answers=(1,))
    with pytest.raises(UsageError, match="1 answers for the 4 frames of v1"):
        orbit_scores([replace(TASKS[0], videos=(short,))], "orbit")
    twice = replace(TASKS[0].videos[0], frames=(1, 2, 2, 3))
    with pytest.raises(UsageError, match="v1 has frames that were answered twice"):
        challenge_results([replace(TASKS[0], videos=(twice,))], [None])
    with pytest.raises(UsageError, match="of one mode, not of cle-ve and clu-ve"):
        challenge_results([TASKS[0], replace(TASKS[1], mode="cle-ve")], [None, None])
    with pytest.raises(UsageError, match="protocol is one of 2021, 2022; got '2023'"):
        orbit_scores(TASKS, "orbit", "2023")  # type: ignore[arg-type]
