"""The drawn classes are the same everywhere, different from one another, and learnable."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.records import Item
from pipeline.sources.demo import IMAGES_PER_CLASS, DemoSource, draw_glyph


def ink(class_id: int, number: int) -> NDArray[np.float64]:
    """Where the image differs from its background, small and of unit length."""
    grey = np.asarray(draw_glyph(class_id, number).convert("L").resize((12, 12)), np.float64)
    difference = np.abs(grey - np.median(grey)).ravel()
    return np.asarray(difference / np.linalg.norm(difference))


def test_forty_classes_with_twenty_images_each() -> None:
    survey = DemoSource().survey()
    items = [item for item in survey.items if isinstance(item, Item)]
    assert len(survey.classes) == 40
    assert len(items) == 40 * IMAGES_PER_CLASS == 800
    assert {record.split for record in survey.classes} == {"train", "validation", "test"}


def test_an_image_is_the_same_whenever_it_is_drawn() -> None:
    source = DemoSource()
    items = [item for item in source.survey().items if isinstance(item, Item)]
    one, two = next(source.pictures(items[7:8])), next(source.pictures([items[7]]))
    assert np.array_equal(np.asarray(one), np.asarray(two))
    assert not np.array_equal(np.asarray(one), np.asarray(next(source.pictures([items[8]]))))


def test_even_pixels_tell_unseen_classes_apart_but_not_perfectly() -> None:
    right = []
    for group in range(0, 40, 5):
        classes = range(group, group + 5)
        means = np.stack([np.mean([ink(c, n) for n in range(10)], 0) for c in classes])
        right += [
            np.argmax(means @ ink(c, n)) == position
            for position, c in enumerate(classes)
            for n in range(10, 16)
        ]
    assert 0.35 < np.mean(right) < 0.95  # chance is 0.2
