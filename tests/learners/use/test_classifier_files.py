"""A classifier's file that is malformed gives one error that names the field."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import pytest

from learners import checkpoint
from learners.methods.catalogue import describe_learner, make_learner
from learners.use.classifier import Learner, PortableClassifier
from pipeline.errors import IntegrityError
from tests.images import make_image


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("classifier", [], r"no whole classifier: the whole: Expected `object`, got `array`"),
        ("classifier/about", [], r"about: Expected `object`, got `array`"),
        ("classifier/about/image_size", "32", r"image_size: Expected `int`, got `str`"),
        ("classifier/about/image_size", 30_000, r"30000 px a side: its image_size is wrong"),
        ("classifier/classes", "ab", r"classes: Expected `array`, got `str`"),
        ("classifier/classes", [["a"], ["b"]], r"classes\[0\]: Expected `str`, got `array`"),
        ("classifier/classes", ["a"], r"classes: 1 names, and its state is of 2"),
        ("classifier/parts", ["head"], r"parts: Expected `object`, got `array`"),
        ("classifier/parts/backbone", 3, r"backbone: Expected `object`, got `int`"),
        ("classifier/parts/film", None, r"film: Expected `array`, got `null`"),
        ("classifier/parts/state", [], r"state: it does not fit the head"),
        ("classifier/parts/state", {"$tuple": 5}, r"parts: .*not iterable"),
    ],
)
def test_a_malformed_file_is_refused_by_the_name_of_its_field(
    field: str, value: object, message: str, tmp_path: Path
) -> None:
    net, file = make_learner("protonets", "conv4"), tmp_path / "pets.safetensors"
    learner = Learner.of(net, describe_learner(net, "protonets", 32), "cpu")
    learner.adapt({"a": make_image(1), "b": make_image(2)}).save(file)
    tensors, values = checkpoint.load(file)
    *outer, last = field.split("/")
    reduce(dict.__getitem__, outer, values)[last] = value
    checkpoint.save(file, tensors, values)
    with pytest.raises(IntegrityError, match=rf"pets\.safetensors.*{message}"):
        PortableClassifier.load(file, "cpu")
