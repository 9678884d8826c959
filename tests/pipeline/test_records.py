"""A record that makes no sense cannot exist."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.records import Encoding, Recipe, rescale_box


@pytest.mark.parametrize("text", ["jpeg:1", "jpeg:95", "jpeg:100:444", "png", "raw"])
def test_an_encoding_is_what_its_text_says(text: str) -> None:
    assert str(Encoding.parse(text)) == text


@pytest.mark.parametrize("text", ["jpeg:0", "jpeg:101", "jpeg:high", "gif", "raw:8", "", "jpeg:95:422"])
def test_an_encoding_nobody_can_write_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Encoding.parse(text)


def test_sizes_have_their_default_encodings() -> None:
    assert [str(e) for e in Recipe().encodings] == ["raw", "jpeg:95"]
    assert [str(e) for e in Recipe(sizes=(224, 300)).encodings] == ["jpeg:95", "jpeg:95"]


@pytest.mark.parametrize("wrong", [{"sizes": ()}, {"sizes": (84, 84)}, {"sizes": (0,)}, {"limit_per_class": 0},
                                   {"encodings": (Encoding.parse("raw"),)}, {"shard_samples": -1}])  # fmt: skip
def test_a_recipe_that_contradicts_itself_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Recipe(**wrong)  # type: ignore[arg-type]


def test_boxes_scale_and_clamp_as_orbits_own_loader_does() -> None:
    assert rescale_box((540, 270, 100, 200), 224) == (112, 56, 20, 41)
    assert rescale_box((1079, 1079, 1, 1), 84) == (83, 83, 1, 1)
    assert rescale_box((-5, 0, 1080, 1080), 84) == (0, 0, 84, 84)
