"""Shards behave as torch's own datasets do: in a DataLoader, in workers, under others' samplers."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from traceback import clear_frames
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Sampler

from pipeline.build.builder import Run, build_shards
from pipeline.errors import IntegrityError, UsageError
from pipeline.loader.loader import EpisodeLoader
from pipeline.records import Encoding, Recipe
from pipeline.samplers.fixed import Fixed
from pipeline.samplers.replay import Replay, save_plans
from pipeline.shardset import ShardSet
from pipeline.sources.folder import FolderSource
from pipeline.torch_datasets import ClassDataset, EpisodeDataset, EpisodeTensors
from tests.images import fill_class_folders, stored_image

SIZES = (24, 48)  # raw, JPEG
WORKERS = pytest.mark.parametrize("workers", [0, 1, 2])


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets; pets has three classes in training and two in the test split."""
    root = tmp_path_factory.mktemp("torch")
    counts = {"train/cat": 9, "train/dog": 8, "train/owl": 7, "test/bee": 6, "test/fly": 5}
    recipe = Recipe(sizes=SIZES, encodings=(Encoding.parse("raw"), Encoding.parse("jpeg:95")))
    for name in ("pets", "more"):
        source = FolderSource(name=name, root=fill_class_folders(root / name, counts), split_by="folder")
        build_shards(source, root / "sets" / name, recipe, Run(workers=1))
    return root / "sets"


@pytest.fixture(scope="module")
def pets(sets: Path) -> ShardSet:
    return ShardSet.open(sets / "pets")


class PositionSampler(Sampler[list[int]]):
    """What easyfsl's sampler does: it reads the labels, and yields lists of positions."""

    def __init__(self, data: ClassDataset, *, way: int, images: int, tasks: int) -> None:
        self.positions: dict[int, list[int]] = {}
        for position, label in enumerate(data.get_labels()):
            self.positions.setdefault(label, []).append(position)
        self.way, self.images, self.tasks = way, images, tasks

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng(0)
        for _ in range(self.tasks):
            labels = generator.choice(len(self.positions), self.way, replace=False)
            yield [
                int(position)
                for label in labels.tolist()
                for position in generator.choice(self.positions[label], self.images, replace=False)
            ]


def all_items(data: ClassDataset) -> list[tuple[torch.Tensor, int]]:
    return [data[position] for position in range(len(data))]


def same_tensors(one: EpisodeTensors, other: EpisodeTensors) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("size", SIZES)
def test_an_item_is_the_stored_image_and_the_label_of_its_class(size: int, pets: ShardSet) -> None:
    data = ClassDataset(pets, split="test", image_size=size)
    dataset = pets["pets"]
    rows = np.flatnonzero(dataset.index.is_word("split", "test")).tolist()
    assert len(data) == len(rows) == 11
    assert data.classes == ["bee", "fly"]
    for row, (image, label) in zip(rows, all_items(data), strict=True):
        assert image.dtype == torch.uint8
        assert np.array_equal(image.permute(1, 2, 0), np.asarray(stored_image(dataset, size, row)))
        assert type(label) is int
        name = dataset.manifest.classes[int(dataset.index["class_id"][row])].name
        assert data.classes[label] == name


def test_a_path_and_a_name_are_enough_and_an_empty_split_is_everything(sets: Path) -> None:
    data = ClassDataset(sets, "more", split="", image_size=24)
    assert len(data) == 35
    assert sorted(data.classes) == ["bee", "cat", "dog", "fly", "owl"]


def test_positions_count_from_the_end_too_and_end(pets: ShardSet) -> None:
    data = ClassDataset(pets, split="train", image_size=24)
    assert torch.equal(data[-1][0], data[len(data) - 1][0])
    with pytest.raises(IndexError):
        data[len(data)]


def test_labels_and_positions_are_each_others_inverse(pets: ShardSet) -> None:
    data = ClassDataset(pets, split="train", image_size=24)
    assert data.get_labels() == [label for _, label in all_items(data)]
    by_label = data.labels_to_indices
    assert {label: len(found) for label, found in by_label.items()} == {0: 9, 1: 8, 2: 7}
    assert sorted(place for found in by_label.values() for place in found) == list(range(24))
    assert all(data.labels[place] == label for label in by_label for place in by_label[label])


@WORKERS
def test_an_episodic_batch_sampler_gets_its_episodes(workers: int, pets: ShardSet) -> None:
    data = ClassDataset(pets, split="train", image_size=48)
    _ = data[0]  # an open store in the parent does no harm to forked workers
    tasks = PositionSampler(data, way=2, images=5, tasks=6)
    batches = list(DataLoader(data, batch_sampler=tasks, num_workers=workers))
    for positions, (images, labels) in zip(tasks, batches, strict=True):
        assert images.shape == (10, 3, 48, 48)
        assert labels.tolist() == [data.get_labels()[position] for position in positions]
        assert torch.equal(images, torch.stack([data[position][0] for position in positions]))


def test_spawned_workers_give_the_same(pets: ShardSet) -> None:
    data = ClassDataset(pets, split="train", image_size=24)
    _ = data[0]
    sampler = Fixed(pets, split="train", way=2, shot=2, query=2, seed=1)
    episodes = EpisodeDataset(pets, sampler, image_size=24, stop=2)
    spawned: dict[str, Any] = {"num_workers": 1, "multiprocessing_context": "spawn"}
    images = torch.cat([batch for batch, _ in DataLoader(data, batch_size=8, **spawned)])
    assert torch.equal(images, torch.stack([image for image, _ in all_items(data)]))
    loaded = DataLoader(episodes, batch_size=None, **spawned)
    assert all(same_tensors(*pair) for pair in zip(loaded, episodes, strict=True))


def test_a_pickle_has_no_open_file_and_no_other_dataset(sets: Path) -> None:
    data = ClassDataset(sets, "pets", split="train", image_size=24)
    before = data[3][0]
    text = pickle.dumps(data)
    assert b"more" not in text
    assert torch.equal(pickle.loads(text)[3][0], before)


def test_a_transform_may_change_shape_and_type(pets: ShardSet) -> None:
    data = ClassDataset(pets, split="train", image_size=24, transform=lambda image: image[0] / 255)
    (images, _), *_ = DataLoader(data, batch_size=4, num_workers=1)
    assert images.shape == (4, 24, 24)
    assert images.dtype == torch.float32


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"split": "tset"}, r"no pictures in split 'tset'.*train \(24\).*test \(11\)"),
        ({"split": "validation"}, r"no pictures in split 'validation'.*train \(24\)"),
        ({"image_size": 32}, "24, 48.*32"),
        ({"dataset": "cars"}, "cars.*pets"),
        ({"dataset": None}, "2 datasets, more, pets"),
    ],
)
def test_a_dataset_or_split_that_is_not_there_is_refused_with_those_that_are(
    values: dict[str, str | int | None], message: str, sets: Path
) -> None:
    arguments = {"dataset": "pets", "split": "train", "image_size": 24, **values}
    with pytest.raises(UsageError, match=message):
        ClassDataset(sets, **arguments)  # type: ignore[arg-type]


@WORKERS
def test_a_damaged_image_is_an_error_that_names_it(workers: int, sets: Path, tmp_path: Path) -> None:
    shutil.copytree(sets / "pets", tmp_path / "pets")
    for tar in (tmp_path / "pets" / "24").glob("*.tar"):
        tar.write_bytes(tar.read_bytes().replace(b"NUMPY", b"NOMPY"))
    shards = ShardSet.open(tmp_path)
    data = ClassDataset(shards, split="train", image_size=24)
    sampler = Fixed(shards, split="train", way=2, shot=2, query=2)
    episodes = EpisodeDataset(shards, sampler, image_size=24)
    for loader in (
        DataLoader(data, batch_size=4, num_workers=workers),
        DataLoader(episodes, batch_size=None, num_workers=workers),
    ):
        with pytest.raises(IntegrityError, match=r"shard-000000\.tar") as caught:
            next(iter(loader))
        clear_frames(caught.tb)  # lets go of the iterator, whose workers end now and not in a circle


@WORKERS
def test_episodes_are_the_loaders_for_any_number_of_workers(workers: int, pets: ShardSet) -> None:
    sampler = Fixed(pets, split="train", way=2, shot=3, query=2, seed=4)
    episodes = EpisodeDataset(pets, sampler, image_size=48, start=5, stop=12)
    loaded = list(DataLoader(episodes, batch_size=None, num_workers=workers))  # all are kept
    assert len(loaded) == len(episodes) == 7
    with EpisodeLoader(pets, sampler, image_size=48, h=0, start=5) as loader:
        for one, episode in zip(loaded, loader, strict=False):
            plan = sampler[episode.number]
            assert isinstance(one, EpisodeTensors)
            assert torch.equal(one.support_images, episode.support.images)
            assert torch.equal(one.support_labels, episode.support.labels)
            assert torch.equal(one.query_images, episode.query.images)
            assert torch.equal(one.query_labels, episode.query.labels)
            assert sorted(one.support_labels.tolist()) == sorted(plan.support.labels.tolist())


@WORKERS
def test_ranks_share_the_episodes_of_one_process(workers: int, pets: ShardSet) -> None:
    sampler = Fixed(pets, split="train", way=3, shot=1, query=1, seed=4)
    alone = list(EpisodeDataset(pets, sampler, image_size=24, start=1, stop=10))
    for rank in range(2):
        mine = EpisodeDataset(pets, sampler, image_size=24, start=1, stop=10, rank=rank, world=2)
        loaded = list(DataLoader(mine, batch_size=None, num_workers=workers))
        assert len(mine) == len(loaded) == (5, 4)[rank]
        assert all(same_tensors(*pair) for pair in zip(loaded, alone[rank::2], strict=True))


@WORKERS
def test_a_finite_sampler_ends_the_pass_and_the_next_one_begins_anew(
    workers: int, pets: ShardSet, tmp_path: Path
) -> None:
    endless = Fixed(pets, split="test", way=2, shot=1, query=1)
    save_plans(tmp_path / "plans", (endless[number] for number in (9, 3, 7)), pets)
    for stop, expected in ((None, 3), (2, 2), (50, 3)):
        episodes = EpisodeDataset(pets, Replay(tmp_path / "plans", pets), image_size=24, stop=stop)
        loader = DataLoader(episodes, batch_size=None, num_workers=workers)
        first, second = list(loader), list(loader)
        assert len(first) == len(episodes) == expected
        assert all(same_tensors(*pair) for pair in zip(first, second, strict=True))


def test_an_endless_pass_has_no_length(pets: ShardSet) -> None:
    sampler = Fixed(pets, split="train", way=2, shot=1, query=1)
    with pytest.raises(TypeError):
        len(EpisodeDataset(pets, sampler, image_size=24))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": 25}, "24, 48"),
        ({"on_error": "mask"}, "one of raise, replace; got .mask."),
        ({"rank": 2, "world": 2}, "rank"),
        ({"start": -1}, "start"),
    ],
)
def test_an_impossible_stream_is_refused_before_any_worker_starts(
    values: dict[str, str | int], message: str, pets: ShardSet
) -> None:
    sampler = Fixed(pets, split="train", way=2, shot=1, query=1)
    with pytest.raises(UsageError, match=message):
        EpisodeDataset(pets, sampler, **{"image_size": 24, **values})  # type: ignore[arg-type]
