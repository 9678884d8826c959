"""Names and rooms stay as decision 0018 has them; `python3 tools/measure_house.py` prints the figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from measure_house import (
    arrows,
    circle,
    class_homes,
    constant_homes,
    module_trees,
    one_word,
    public_names,
    widest_folder,
)

ROOT = Path(__file__).resolve().parent.parent
TREES = module_trees(ROOT)
ONE_WORD_CLASSES = {"MAML"}  # the method's name in its paper
WIDEST_FOLDER = 22  # modules and folders side by side: as many as a listing shows at a glance
ARROWS = {"pipeline": 90, "learners": 65}


def test_no_two_classes_have_the_same_name() -> None:
    assert {name: homes for name, homes in class_homes(TREES).items() if len(homes) > 1} == {}


def test_a_class_has_two_words_unless_it_is_public() -> None:
    names = set(class_homes(TREES)) - public_names(TREES) - ONE_WORD_CLASSES
    assert {name for name in names if one_word(name)} == set()


def test_the_name_of_a_constant_stands_in_one_file() -> None:
    assert {name: homes for name, homes in constant_homes(TREES).items() if len(homes) > 1} == {}


def test_no_folder_is_too_wide_to_be_seen_at_a_glance() -> None:
    width, folder = widest_folder(ROOT)
    assert width <= WIDEST_FOLDER, folder


@pytest.mark.parametrize(("package", "most"), ARROWS.items())
def test_rooms_import_few_others_and_never_in_a_circle(package: str, most: int) -> None:
    graph = arrows(TREES, package)
    assert sum(map(len, graph.values())) <= most
    assert circle(graph) == "none"
