"""Answers are those of a loop by hand, whichever process gives them and in whatever order."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from learners.evaluate.answers import ClipWindow
from learners.evaluate.features import shared_blocks
from learners.evaluate.ledger import TaskLedger, begin_or_resume
from learners.evaluate.protocols import FixedOptions, OrbitOptions, VtabOptions
from learners.evaluate.records import TaskAnswers
from learners.evaluate.run import EvaluationRun, EvaluationSettings, hash_weights
from learners.evaluate.task_set import TaskKey, TaskSet
from learners.learner import StagedLearner
from learners.methods.catalogue import make_learner
from learners.processes import ProcessGroup
from learners.task import ChunkedPass
from pipeline.episodes import EpisodePlan
from pipeline.errors import IntegrityError, UsageError
from pipeline.samplers.orbit.rules import ProtocolName
from pipeline.shardset import ShardSet
from pipeline.torch_datasets import ClassDataset
from tests.learners.evaluate.tiny import SIZE, flowers, glyphs, orbit

SETTINGS = EvaluationSettings(image_size=SIZE, passage=ChunkedPass(chunk=7), threads=1)
FIXED = FixedOptions(tasks=12, way=3, shot=2, query=4)


def protonets() -> StagedLearner:
    net = make_learner("protonets", "conv4")
    assert isinstance(net, StagedLearner)
    return net


pytestmark = pytest.mark.usefixtures("one_thread")


def answered(
    shards: ShardSet,
    task_set: TaskSet,
    folder: Path,
    settings: EvaluationSettings = SETTINGS,
    net: StagedLearner | None = None,
) -> list[TaskAnswers]:
    """The answers of one process, without the seconds, which differ each time, and the last digits of calibration."""
    processes = ProcessGroup(0, 1, torch.device("cpu"))
    run = EvaluationRun(
        learner=net or protonets(), task_set=task_set, shards=shards, settings=settings, processes=processes,
    )  # fmt: skip
    return [replace(task, adapt_seconds=0, calibration=None) for task in run.answers(folder, {})]


@pytest.fixture(scope="module")
def glyph_set(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return ShardSet.open(glyphs(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def orbit_set(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return ShardSet.open(orbit(tmp_path_factory.mktemp("run")))


def features(shards: ShardSet, name: str) -> Tensor:
    """The features of every image of a dataset, each passed alone."""
    data = ClassDataset(shards, name, split="", image_size=SIZE)
    net = protonets().eval()
    with torch.no_grad():
        return torch.cat([net.backbone(data[row][0][None]) for row in range(len(data))])


def nearest(means: Sequence[Tensor], feature: Tensor) -> int:
    return int(torch.stack([(feature - mean).square().sum() for mean in means]).argmin())


def means_of(table: Tensor, plan: EpisodePlan) -> list[Tensor]:
    """The mean of each class that has support images; all frames weigh the same."""
    return [table[plan.support.rows[plan.support.labels == c]].mean(0)
            for c in np.unique(plan.support.labels)]  # fmt: skip


def test_answers_are_those_of_a_loop_by_hand(glyph_set: ShardSet, tmp_path: Path) -> None:
    task_set = FIXED.task_set(glyph_set)
    table = features(glyph_set, "glyphs")
    tasks = answered(glyph_set, task_set, tmp_path)
    for task in tasks:
        plan = task_set.datasets[0].sampler[task.number]
        means = means_of(table, plan)
        right = [nearest(means, table[r]) == label
                 for r, label in zip(plan.query.rows, plan.query.labels, strict=True)]  # fmt: skip
        assert (task.correct, task.queries, task.support, task.way) == (sum(right), 12, 6, 3)
    assert [task.number for task in tasks] == list(range(12))
    assert len({task.correct for task in tasks}) > 1


def by_hand(table: Tensor, plan: EpisodePlan, videos: NDArray[np.int32]) -> Iterator[int]:
    """ORBIT's answers frame by frame: the mean of a frame and the seven before it in its video."""
    means = means_of(table, plan)
    for place, row in enumerate(plan.query.rows):
        clip = []
        for back in range(plan.clip - 1, -1, -1):
            at = place
            for _ in range(back):
                if at > 0 and videos[plan.query.rows[at - 1]] == videos[row]:
                    at -= 1
            clip.append(table[plan.query.rows[at]])
        yield nearest(means, torch.stack(clip).mean(0))


@pytest.mark.parametrize("name", ["2021", "2022"])
def test_orbits_frames_are_those_of_a_loop_by_hand(
    orbit_set: ShardSet, tmp_path: Path, name: ProtocolName
) -> None:
    task_set = OrbitOptions(orbit=name, tasks_per_user=1).task_set(orbit_set)
    index = orbit_set["orbit"].index
    table = features(orbit_set, "orbit")
    settings = replace(SETTINGS, share=False, passage=ChunkedPass(chunk=24))
    tasks = answered(orbit_set, task_set, tmp_path, settings)
    assert {(t.user, t.mode) for t in tasks} == {(u, p.group) for u in ("P177", "P999") for p in task_set.datasets}  # fmt: skip
    sampler = {own.group: own.sampler for own in task_set.datasets}
    for task in tasks:
        plan = sampler[task.mode][task.number]
        answers = [a for video in task.videos for a in video.answers]
        assert answers == list(by_hand(table, plan, index["group"]))
        assert task.correct == sum(np.array(answers) == plan.query.labels)
        frames = [f for video in task.videos for f in video.frames]
        assert frames == index["frame"][plan.query.rows].tolist()
        assert task.objects == ("bag", "finger nail clipper")
        for video in task.videos:
            thing = task.objects[video.label].replace(" ", "-")
            assert video.video.startswith(f"{task.user}--{thing}--")


def test_2021_scores_the_frames_that_pad_a_video_and_2022_each_frame_once(
    orbit_set: ShardSet, tmp_path: Path
) -> None:
    frames = {}
    settings = replace(SETTINGS, passage=ChunkedPass(chunk=24))
    protocols: tuple[ProtocolName, ...] = ("2021", "2022")
    for name in protocols:
        task_set = OrbitOptions(orbit=name, mode=("clu-ve",), tasks_per_user=1).task_set(orbit_set)
        frames[name] = [
            v.frames for t in answered(orbit_set, task_set, tmp_path / name, settings) for v in t.videos
        ]
    assert all(own == (*range(1, 53), 52, 52, 52, 52) for own in frames["2021"])
    assert all(own == tuple(range(1, 52)) for own in frames["2022"])


@pytest.mark.parametrize("cuts", [[20], [1] * 20, [3, 9, 8], [7, 7, 6], [12, 1, 7]])
def test_clips_of_a_stream_do_not_depend_on_how_it_is_cut(cuts: list[int]) -> None:
    frames = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    videos = torch.tensor([5] * 9 + [2] * 1 + [7] * 10)
    window = ClipWindow(4)
    pairs = zip(torch.split(frames, cuts), torch.split(videos, cuts), strict=True)
    clips = torch.cat([window(f, v) for f, v in pairs])
    first = {5: 0, 2: 9, 7: 10}
    for at in range(20):
        own = [max(at - back, first[int(videos[at])]) for back in range(4)]
        assert torch.allclose(clips[at], frames[own].mean(0), rtol=0, atol=1e-15)


def test_a_class_without_support_images_is_never_answered(tmp_path: Path) -> None:
    shards = ShardSet.open(flowers(tmp_path))
    task_set = VtabOptions(splits="lite").task_set(shards)
    (task,) = answered(shards, task_set, tmp_path / "out")
    plan = task_set.datasets[0].sampler[0]
    table = features(shards, "flowers102")
    seen = [0, 1, 3]
    answers = [seen[nearest(means_of(table, plan), table[row])] for row in plan.query.rows]
    assert task.correct == sum(np.array(answers) == plan.query.labels)
    assert (task.way, task.support, task.queries) == (4, 12, 18)
    assert task_set.notes[-1].startswith("flowers102: 1 of 4 classes have no support image; their 5 ")


# Features that tasks share


def test_shared_features_give_the_same_answers(glyph_set: ShardSet, tmp_path: Path) -> None:
    task_set = FIXED.task_set(glyph_set)
    blocks = shared_blocks(
        protonets(), task_set.datasets[0], range(12), glyph_set["glyphs"], SETTINGS.passage
    )
    assert blocks is not None
    assert len(blocks) < 12 * 18 / SETTINGS.passage.chunk  # passes that 12 tasks of 18 images take
    apart = answered(glyph_set, task_set, tmp_path / "a", replace(SETTINGS, share=False))
    assert answered(glyph_set, task_set, tmp_path / "b") == apart


def test_a_users_support_is_shared_by_the_tasks_of_the_later_orbit(
    orbit_set: ShardSet, tmp_path: Path
) -> None:
    task_set = OrbitOptions(orbit="2022", tasks_per_user=3).task_set(orbit_set)
    (own,) = task_set.datasets
    assert shared_blocks(protonets(), own, range(own.tasks), orbit_set["orbit"], SETTINGS.passage)
    apart = answered(orbit_set, task_set, tmp_path / "a", replace(SETTINGS, share=False))
    assert answered(orbit_set, task_set, tmp_path / "b") == apart


def test_features_are_shared_only_where_it_is_exact_and_worth_it(
    glyph_set: ShardSet, orbit_set: ShardSet
) -> None:
    fixed = FIXED.task_set(glyph_set).datasets[0]
    glyph = glyph_set["glyphs"]
    conditioned = make_learner("simple_cnaps", "resnet18")
    assert isinstance(conditioned, StagedLearner)
    assert shared_blocks(conditioned, fixed, range(12), glyph, SETTINGS.passage) is None
    assert shared_blocks(protonets(), replace(fixed, tasks=1), [0], glyph, SETTINGS.passage) is None
    clips = OrbitOptions(tasks_per_user=5).task_set(orbit_set).datasets[0]
    assert shared_blocks(protonets(), clips, range(10), orbit_set["orbit"], SETTINGS.passage) is None


def test_a_task_that_is_left_is_answered_as_if_all_were(glyph_set: ShardSet, tmp_path: Path) -> None:
    """Whether features are shared, and in which chunks, must not depend on what is left."""
    own = FIXED.task_set(glyph_set).datasets[0]
    few = shared_blocks(protonets(), own, [3], glyph_set["glyphs"], SETTINGS.passage)
    every = shared_blocks(protonets(), own, range(12), glyph_set["glyphs"], SETTINGS.passage)
    assert few is not None
    assert every is not None
    assert set(few.blocks) < set(every.blocks)
    assert np.array_equal(few.rows, every.rows)


# What is finished stays finished


def test_an_evaluation_goes_on_where_it_was_killed(glyph_set: ShardSet, tmp_path: Path) -> None:
    task_set = FIXED.task_set(glyph_set)
    whole = answered(glyph_set, task_set, tmp_path / "whole")
    lines = (tmp_path / "whole" / "tasks-0.jsonl").read_bytes().splitlines(keepends=True)
    begun = tmp_path / "begun"
    begin_or_resume(begun, {}, leads=True)
    marked = json.dumps({**json.loads(lines[4]), "adapt_seconds": 77.0}).encode() + b"\n"
    (begun / "tasks-0.jsonl").write_bytes(b"".join(lines[0:3]) + lines[3][:20])
    (begun / "tasks-5.jsonl").write_bytes(marked + lines[5][:-1])
    assert answered(glyph_set, task_set, begun) == whole
    kept = (begun / "tasks-0.jsonl").read_bytes().splitlines(keepends=True)
    assert kept[:3] == lines[:3]
    numbers = [json.loads(line)["number"] for line in kept]
    assert numbers == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    with TaskLedger(begun, 0) as ledger:
        assert ledger.tasks()[TaskKey("glyphs", "", 4)].adapt_seconds == 77


def test_nothing_is_done_again_once_all_is_finished(glyph_set: ShardSet, tmp_path: Path) -> None:
    task_set = FIXED.task_set(glyph_set)
    first = answered(glyph_set, task_set, tmp_path)
    before = (tmp_path / "tasks-0.jsonl").read_bytes()
    assert answered(glyph_set, task_set, tmp_path) == first
    assert (tmp_path / "tasks-0.jsonl").read_bytes() == before


@pytest.mark.parametrize("line", ['{"dataset": "x"}', "[3]", "{", "[" * 100_000, '{"number": "3"}'])
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "tasks-3.jsonl").write_text(f"{line}\n")
    with TaskLedger(tmp_path, 0) as ledger, pytest.raises(IntegrityError, match=r"tasks-3.*line 1"):
        ledger.tasks()


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    begin_or_resume(tmp_path / "a", {"way": 5, "seed": 0}, leads=True)
    begin_or_resume(tmp_path / "a", {"way": 5, "seed": 0}, leads=False)
    with pytest.raises(UsageError, match=r"other settings: shot was nothing and is 2; way was 5 and is 6\. "):
        begin_or_resume(tmp_path / "a", {"way": 6, "seed": 0, "shot": 2}, leads=True)
    for text in ("{", "[]"):
        (tmp_path / "a" / "settings.json").write_text(text)
        with pytest.raises(IntegrityError, match=r"settings.json is damaged"):
            begin_or_resume(tmp_path / "a", {}, leads=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "tasks-0.jsonl").write_text("")
    with pytest.raises(UsageError, match=r"no settings.json"):
        begin_or_resume(tmp_path / "b", {}, leads=True)


def test_a_digest_is_of_the_weights() -> None:
    first, again, other = (make_learner("protonets", "conv4", seed=seed) for seed in (0, 0, 1))
    assert hash_weights(first) == hash_weights(again)
    assert hash_weights(first) != hash_weights(other)


# One evaluation in a folder


def test_a_second_evaluation_in_a_folder_is_refused_while_the_first_lives(
    glyph_set: ShardSet, tmp_path: Path
) -> None:
    task_set = FIXED.task_set(glyph_set)
    with ProcessGroup(0, 1, torch.device("cpu")).hold(tmp_path):
        with pytest.raises(UsageError, match=rf"{tmp_path.name} is in use by process .*--out"):
            answered(glyph_set, task_set, tmp_path)
        assert not list(tmp_path.glob("*.json*"))
    assert len(answered(glyph_set, task_set, tmp_path)) == 12


def test_a_full_disk_is_an_error_that_names_the_ledger(tmp_path: Path) -> None:
    task = TaskAnswers(dataset="glyphs", number=0, way=3, support=6, queries=12, correct=4, adapt_seconds=0.1)
    with TaskLedger(tmp_path, 0) as ledger, Path("/dev/full").open("w") as full:
        ledger._file._file, own = full, ledger._file._file
        with pytest.raises(OSError, match=r"tasks-0.jsonl") as caught:
            ledger.add(task)
        ledger._file._file = own
        with suppress(OSError):
            full.close()
    assert caught.value.errno == errno.ENOSPC
