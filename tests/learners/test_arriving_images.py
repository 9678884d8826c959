"""Images that are there and images that arrive pass through networks alike."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from learners.task import ArrivingImages, ChunkedPass, Images, Task, first_images, split_images
from pipeline.errors import UsageError


class LateImages:
    """Images that appear when they are asked for, and not before."""

    def __init__(self, images: Tensor) -> None:
        self._images = images
        self._memory = torch.full_like(images, 255)
        self.there = 0

    def __len__(self) -> int:
        return len(self._images)

    def first(self, count: int) -> Tensor:
        assert count <= len(self)
        self.there = max(self.there, count)
        self._memory[: self.there] = self._images[: self.there]
        return self._memory[:count]


class MeanColours(nn.Module):
    """A network that notes how many images were there at each of its passes."""

    def __init__(self, late: LateImages) -> None:
        super().__init__()
        self.late = late
        self.there: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.there.append(self.late.there)
        return images.double().mean((2, 3))


def images(count: int) -> Tensor:
    return torch.arange(count * 3 * 4).to(torch.uint8).reshape(count, 3, 2, 2)


@pytest.mark.parametrize(("clip", "there"), [(1, [4, 8, 10]), (2, [4, 8, 10]), (5, [5, 10])])
def test_a_pass_waits_for_no_more_than_its_own_chunk(clip: int, there: list[int]) -> None:
    late = LateImages(images(10))
    network = MeanColours(late)
    vectors = ChunkedPass(chunk=4, clip=clip).whole(network, late)
    assert network.there == there
    assert torch.equal(vectors, ChunkedPass(clip=clip).whole(network, images(10)))


def test_drawn_images_are_those_of_the_whole_tensor() -> None:
    units, passage = torch.tensor([1, 3, 4]), ChunkedPass(chunk=4, clip=2)
    late: ArrivingImages = LateImages(images(10))
    found = list(passage.parts(late, units))
    assert [len(part) for part in found] == [4, 2]
    assert all(map(torch.equal, found, passage.parts(images(10), units)))


@pytest.mark.parametrize("given", [images(7), LateImages(images(7))])
def test_images_are_split_like_tensors(given: Images) -> None:
    assert all(map(torch.equal, split_images(given, [3, 4]), torch.split(images(7), [3, 4])))
    assert [len(chunk) for chunk in split_images(given, [5, 5])] == [5, 2]
    assert torch.equal(first_images(given), images(7))
    assert torch.equal(first_images(given, 2), images(7)[:2])


def test_a_task_has_its_images_as_whole_tensors_too() -> None:
    answers = torch.arange(5) % 2
    task = Task(
        images=LateImages(images(6)), labels=torch.arange(6) % 2, way=2, query_count=10,
        queries=[(LateImages(images(5)), answers), (images(5), answers)],
    )  # fmt: skip
    assert torch.equal(task.support, images(6))
    queries, labels = task.joined_queries()
    assert torch.equal(queries, torch.cat([images(5), images(5)]))
    assert torch.equal(labels, torch.cat([answers, answers]))


@pytest.mark.parametrize("wrong", [LateImages(images(5)), images(5), images(6)[0]])
def test_support_images_need_a_label_each(wrong: Images) -> None:
    with pytest.raises(UsageError, match="with a label each, got images of shape"):
        Task(images=wrong, labels=torch.zeros(6, dtype=torch.int64), way=1, queries=[], query_count=1)
