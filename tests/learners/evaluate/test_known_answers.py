"""ORBIT's figures on videos of red and blue frames and objects, so that the answer to each frame is known."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from learners.evaluate.protocols import OrbitOptions
from learners.evaluate.run import EvaluationRun, EvaluationSettings
from learners.evaluate.summary import score_tasks
from learners.heads.prototypes import EuclideanPrototypes
from learners.learner import StagedLearner
from learners.networks import Backbone
from learners.processes import ProcessGroup
from learners.task import ChunkedPass
from pipeline.build.builder import build_shards
from pipeline.pixels import SYMMETRIC
from pipeline.records import Encoding, Recipe
from pipeline.samplers.orbit.rules import ProtocolName
from pipeline.shardset import ShardSet
from pipeline.sources.orbit.source import OrbitSource

SIZE = 8
COLOURS = {"R": (250, 0, 0), "B": (0, 0, 200), "r": (200, 0, 0)}
"""r is red as the clean videos have it. Half R and half B is nearer to it than to B, so four R in a clip decide."""
Table = Mapping[str, tuple[float, ...]]


def write(root: Path, user: str, thing: str, kind: str, frames: str) -> None:
    """A video with a letter for each frame: its colour; x is a red frame without the object."""
    video = f"{user}--{thing}--{kind}--one"
    folder = root / "test" / user / thing / kind / video
    folder.mkdir(parents=True)
    notes = {}
    for number, letter in enumerate(frames, 1):
        name = f"{video}-{number:05d}.jpg"
        stream = BytesIO()
        colour = COLOURS["R" if letter == "x" else letter]
        Image.new("RGB", (SIZE, SIZE), colour).save(stream, "JPEG", quality=100)
        (folder / name).write_bytes(stream.getvalue())
        notes[name] = {"object_not_present_issue": letter == "x", "object_bounding_box": None}
    annotations = root / "annotations" / "test"
    annotations.mkdir(parents=True, exist_ok=True)
    (annotations / f"{video}.json").write_text(json.dumps(notes))


def figures(root: Path, protocol: ProtocolName, clutter: Mapping[str, Mapping[str, str]]) -> Table:
    """Value, interval and count of each metric; the bag is red and the mug blue, for every user."""
    for user, things in clutter.items():
        for thing, frames in things.items():
            write(root / "tree", user, thing, "clean", ("r" if thing == "bag" else "B") * 16)
            write(root / "tree", user, thing, "clutter", frames)
    recipe = Recipe(sizes=(SIZE,), encodings=(Encoding.parse("raw"),))
    build_shards(OrbitSource(root=root / "tree"), root / "orbit", recipe)
    shards = ShardSet.open(root / "orbit")
    task_set = OrbitOptions(orbit=protocol, mode=("clu-ve",)).task_set(shards)
    settings = EvaluationSettings(image_size=SIZE, passage=ChunkedPass(chunk=40), threads=1)
    processes = ProcessGroup(0, 1, torch.device("cpu"))
    tasks = EvaluationRun(
        learner=colours(), task_set=task_set, shards=shards, settings=settings, processes=processes
    ).answers(root / "a", {})
    return {s.metric: (s.value, s.interval or 0, s.count) for s in score_tasks(task_set, tasks)}


def colours() -> StagedLearner:
    """Its feature is the mean colour."""
    same = nn.Conv2d(3, 3, 1, bias=False)
    nn.init.eye_(same.weight.data.view(3, 3))
    net = nn.Sequential(same, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return StagedLearner(Backbone(net, name="colours", dim=3, normalisation=SYMMETRIC), EuclideanPrototypes())


def half(*values: float, times: int) -> float:
    """1.96 standard deviations over the root of n, each value so many times."""
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    return 1.96 * spread / math.sqrt(times * len(values))


def test_the_figures_of_2021_are_those_counted_by_hand(tmp_path: Path) -> None:
    """Each video gets a clip of copies of its last frame: 8 frames are scored as 16, and 16 as 24.

    A frame's clip is itself and the seven before it, so after eight blue frames the fourth red one (the 12th) is
    the first that is called red: 13 of 24 are.
    """
    metrics = figures(
        tmp_path, "2021",
        {"P177": {"bag": "R" * 8, "mug": "R" * 8}, "P999": {"bag": "B" * 8 + "R" * 8, "mug": "B" * 8}},
    )  # fmt: skip
    frame, video, late = (1, 0, 13 / 24, 1), (1, 0, 1, 1), (0, 1, 11 / 24, 0)
    tasks = 5  # of each user, with the same query videos
    for metric, values in (
        ("frame_accuracy", frame), ("video_accuracy", video), ("frames_to_recognition", late),
    ):  # fmt: skip
        expected = (sum(values) / 4, half(*values, times=tasks), 4 * tasks)
        assert metrics[metric] == pytest.approx(expected)
        users = (sum(values[:2]) / 2, sum(values[2:]) / 2)
        assert metrics[f"user_{metric}"] == pytest.approx((sum(users) / 2, half(*users, times=1), 2))


def test_the_figures_since_2022_are_those_counted_by_hand(tmp_path: Path) -> None:
    """Frames are answered one by one; those without the object do not count; a user's frames are pooled."""
    metrics = figures(
        tmp_path, "2022",
        {
            "P177": {"bag": "R" * 30 + "x" * 5 + "B" * 25, "mug": "B" * 50},
            "P999": {"bag": "R" * 51 + "B" * 9, "mug": "R" * 60},
        },
    )  # fmt: skip
    videos, users = (30 / 55, 1, 51 / 60, 0), (80 / 105, 51 / 120)
    tasks = 50
    assert metrics == {
        "frame_accuracy": pytest.approx((sum(videos) / 4, half(*videos, times=tasks), 4 * tasks)),
        "object_frame_accuracy": pytest.approx((sum(videos) / 4, half(*videos, times=1), 4)),
        "task_frame_accuracy": pytest.approx((sum(users) / 2, half(*users, times=tasks), 2 * tasks)),
        "user_frame_accuracy": pytest.approx((sum(users) / 2, half(*users, times=1), 2)),
    }
