"""The classes of a support set are support, or the error says what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from learners.use.support import collect_support
from pipeline.errors import IntegrityError, PipelineError, SourceMissing, UsageError
from pipeline.records import DEFAULT_RESIZE
from tests.images import fill_class_folders, make_image
from tests.learners.small import pictures


def test_a_mapping_keeps_its_order_and_takes_every_form(tmp_path: Path) -> None:
    root = fill_class_folders(tmp_path, {"owl": 2, "ant": 1})
    support = collect_support({"owl": root / "owl", "elk": [make_image(1), root / "ant"], "bee": pictures(3)})
    assert support.classes == ("owl", "elk", "bee")
    assert support.labels == [0, 0, 1, 1, 2, 2, 2]
    assert support.pixels(8, DEFAULT_RESIZE).shape == (7, 3, 8, 8)


def test_a_folder_of_folders_names_its_classes(tmp_path: Path) -> None:
    root = fill_class_folders(tmp_path / "mine", {"owl": 2, "ant": 3})
    (root / ".DS_Store").touch()
    support = collect_support(str(root))
    assert (support.classes, support.labels) == (("ant", "owl"), [0, 0, 0, 1, 1])


@pytest.mark.parametrize(
    ("labels", "classes", "names", "numbers"),
    [
        ([1, 0, 1], None, ("0", "1"), [1, 0, 1]),
        (torch.tensor([1, 0, 1]), None, ("0", "1"), [1, 0, 1]),
        (np.array([1, 0, 1]), ("owl", "ant"), ("owl", "ant"), [1, 0, 1]),
        (["owl", "ant", "owl"], None, ("ant", "owl"), [1, 0, 1]),
        (["owl", "ant", "owl"], ["owl", "ant"], ("owl", "ant"), [0, 1, 0]),
    ],
)
def test_labels_are_numbers_or_names(
    labels: list[int], classes: list[str] | None, names: tuple[str, ...], numbers: list[int]
) -> None:
    support = collect_support(pictures(3), labels, classes)
    assert (support.classes, support.labels) == (names, numbers)


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, 0, 0], None, r"one class only, '0': there is nothing to tell apart"),
        ([0, 1], None, r"3 pictures need a label each, got 2"),
        ([0, 2, 7], None, r"without a gap; got \[0, 2, 7\]"),
        ([-1, 0, 1], ["a", "b"], r"2 classes need labels 0 to 1; got \[-1, 0, 1\]"),
        ([0, 1, 2], ["a", "b"], r"2 classes need labels 0 to 1"),
        ([0, 1, 1], ["a", "b", "c"], r"there is none of 'c'; add one or leave the class out"),
        (["a", "b", "d"], ["a", "b"], r"the labels hold 'd', and the classes are 'a', 'b'"),
        (["a", "b", "a"], ["a", "b", "a"], r"a name of its own, got 'a', 'b', 'a'"),
        ([0.5, 1.0, 0.0], None, r"whole numbers from 0, or names; got \[0\.5"),
        (["a", 1, 2], None, r"whole numbers from 0, or names"),
        (None, None, r"pictures need labels"),
        (None, ["a"], r"give `labels` as well"),
    ],
)
def test_labels_that_do_not_fit_are_refused(
    labels: list[int] | None, classes: list[str] | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        collect_support(pictures(3), labels, classes)


def test_classes_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none of 'owl'; add one"):
        collect_support({"ant": pictures(1), "owl": []})
    with pytest.raises(UsageError, match=r"one class only, 'ant'"):
        collect_support({"ant": pictures(4)})
    with pytest.raises(UsageError, match=r"no class: there is nothing"):
        collect_support({})
    with pytest.raises(UsageError, match=r"leave out `labels`"):
        collect_support({"ant": pictures(1), "owl": pictures(1)}, [0, 1])
    root = fill_class_folders(tmp_path, {"owl": 1, "ant": 0})
    with pytest.raises(UsageError, match=r"none of 'ant'"):
        collect_support(root)


def test_a_folder_without_classes_is_an_error(tmp_path: Path) -> None:
    wrong: list[tuple[Path, type[PipelineError], str]] = [
        (tmp_path / "nowhere", SourceMissing, r"should be a folder with a folder of pictures"),
        (fill_class_folders(tmp_path / "empty", {}), SourceMissing, r"empty"),
        (
            fill_class_folders(tmp_path / "flat", {"owl": 2}) / "owl",
            UsageError,
            r"'000\.jpg', '001\.jpg' lies in",
        ),
    ]
    (tmp_path / "empty").mkdir()
    for place, kind, message in wrong:
        with pytest.raises(kind, match=message):
            collect_support(place)


def test_an_unreadable_picture_is_named_with_its_class(tmp_path: Path) -> None:
    root = fill_class_folders(tmp_path, {"owl": 2, "ant": 2})
    bad = root / "owl" / "000.jpg"
    bad.write_text("no picture")
    with pytest.raises(IntegrityError, match=rf"{bad} \(of class 'owl'\): not a picture"):
        collect_support(root).pixels(8, DEFAULT_RESIZE)
