from __future__ import annotations

import pytest

from pipeline.sources.vtab.sun397 import lite_split, torch_permutation


@pytest.mark.parametrize(("count", "seed"), [(0, 15), (1, 15), (2, 15), (97, 0), (20_000, 15)])
def test_the_permutation_is_torchs(count: int, seed: int) -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference")
    expected = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    assert torch_permutation(count, seed).tolist() == expected.tolist()


def test_the_parts_are_those_of_random_split() -> None:
    torch = pytest.importorskip("torch", reason="torch is the reference")
    count = 1011
    generator = torch.Generator().manual_seed(15)
    sizes = [708, 101, 202]  # 70 %, 10 % and the rest
    reference = torch.utils.data.random_split(range(count), sizes, generator=generator)
    support, test = lite_split([0] * count, [f"{i:05d}" for i in range(count)])
    assert test == list(reference[2])
    assert set(support) <= set(reference[0])


def test_images_are_put_in_a_folders_order_first() -> None:
    names = ["b", "a", "c", "d"] * 25
    labels = [1, 0, 1, 0] * 25
    names = [f"{name}{i:03d}" for i, name in enumerate(names)]
    order = sorted(range(100), key=lambda i: (labels[i], names[i]))
    _, test = lite_split([labels[i] for i in order], [names[i] for i in order])
    assert lite_split(labels, names)[1] == [order[i] for i in test]


def test_at_most_two_of_a_class_are_taken_until_all_were_seen_then_any() -> None:
    labels, names = [0] * 900 + [1] * 100, [f"{i:04d}" for i in range(1000)]
    support, _ = lite_split(labels, names, support=100)
    drawn = [labels[position] for position in support]
    assert drawn.index(1) == 2  # the third of class 0 had to wait
    assert len(set(support)) == 100
    assert drawn.count(0) > 50


def test_a_small_folder_gives_all_of_its_training_part() -> None:
    support, test = lite_split([0] * 10, list("abcdefghij"))
    assert (len(support), len(test)) == (7, 2)
    assert not set(support) & set(test)
