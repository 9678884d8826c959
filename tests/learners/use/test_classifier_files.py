"""A classifier's file that is malformed gives one error that names the field."""

from __future__ import annotations

from functools import reduce
from pathlib import Path

import pytest
import torch

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
        ("classifier/parts", {"$pairs": [[1, 2], ["a", 3]]}, r"'1', 'a', which this version does not know"),
        ("classifier/parts", {"$tensor": ".state.0"}, r"parts: it holds no tensors by name"),
        ("classifier/parts/backbone", 3, r"backbone: Expected `object`, got `int`"),
        ("classifier/parts/film", None, r"film: Expected `array`, got `null`"),
        ("classifier/parts/state", [], r"state: it does not fit the head"),
        ("classifier/parts/state", {"$tuple": 5}, r"parts: .*not iterable"),
        ("classifier/parts/state", {"$pairs": [[[], 1]]}, r"parts: .*unhashable"),
        ("classifier/parts/state", {"$tensor": []}, r"parts: .*unhashable"),
        ("classifier/parts/state", {"$tensor": "absent"}, r"has no tensor 'absent'"),
        (
            "classifier/parts/film",
            {"$tuple": [{"$tensor": ".state.0"}]},
            r"film: its tensors are not those of the conv4",
        ),
        ("classifier/parts/head", {"$pairs": [[1, 2]]}, r"head|lacks tensors"),
        ("classifier/about/image_size", 1025, r"1025 px a side: its image_size is wrong, which is 1 to 1024"),
        ("classifier/about/normalisation", [[0, 0, 0], [1, 0, 1]], r"deviations are positive numbers"),
        ("classifier/about/normalisation", [[float("nan"), 0, 0], [1, 1, 1]], r"normalisation"),
        ("classifier/about/backbone", "", r"there is no backbone ''"),
        ("classifier/about/backbone", "hf-hub:some/one", r"there is no backbone"),
        ("classifier/about/backbone", "resnet18.nonsense", r"timm.*resnet18\.nonsense"),
        ("classifier/about/backbone", "resnet18.a:b", r"resnet18\.a:b"),
        ("classifier/about/backbone", "vit_giant_patch14_clip_224", r"does not fit this network"),
        ("classifier/about/learner", "finetuner", r"does not fit this network|state: it does not fit"),
        ("classifier/about/options/inner_steps", 10**9, r"--inner-steps does not apply"),
        ("classifier/about/options/encoder_norm", "x", r"encoder_norm: Invalid enum value"),
    ],
)
def test_a_malformed_file_is_refused_by_the_name_of_its_field(
    field: str, value: object, message: str, tmp_path: Path
) -> None:
    file = classifier_file(tmp_path, "protonets")
    tensors, values = checkpoint.load(file)
    *outer, last = field.split("/")
    reduce(dict.__getitem__, outer, values)[last] = value
    checkpoint.save(file, tensors, values)
    with pytest.raises(IntegrityError, match=rf"pets\.safetensors.*({message})"):
        PortableClassifier.load(file, "cpu")


def classifier_file(folder: Path, learner: str) -> Path:
    net, file = make_learner(learner, "conv4"), folder / "pets.safetensors"
    own = Learner.of(net, describe_learner(net, learner, 32), "cpu")
    own.adapt({"a": [make_image(1), make_image(3)], "b": make_image(2)}).save(file)
    return file


GRADIENT_ONLY = (".state.3", ".state.5", ".state.6")  # of Simple CNAPs: the kernel, nodes and mix


@pytest.mark.parametrize("learner", ["protonets", "finetuner", "simple_cnaps", "finetuner_film"])
def test_tensors_of_other_shapes_and_kinds_are_refused_before_anything_is_computed(
    learner: str, tmp_path: Path
) -> None:
    """A row and a column would become a table: from two small tensors all of the memory."""
    file = classifier_file(tmp_path, learner)
    tensors, values = checkpoint.load(file)
    for name in [name for name in tensors if name.startswith((".state", ".film"))]:
        for changed in (tensors[name].new_zeros(70_000, 1), tensors[name].to(torch.complex64)):
            if learner == "simple_cnaps" and name in GRADIENT_ONLY and not changed.is_complex():
                continue
            checkpoint.save(file, {**tensors, name: changed}, values)
            with pytest.raises(IntegrityError, match=r"pets\.safetensors: (state|film|classes)"):
                PortableClassifier.load(file, "cpu")


def test_film_of_another_precision_is_used_as_the_network_needs_it(tmp_path: Path) -> None:
    file = classifier_file(tmp_path, "finetuner_film")
    tensors, values = checkpoint.load(file)
    answers = PortableClassifier.load(file, "cpu")([make_image(1)])
    doubles = {name: tensor.double() for name, tensor in tensors.items() if name.startswith(".film")}
    assert doubles
    checkpoint.save(file, tensors | doubles, values)
    assert torch.equal(PortableClassifier.load(file, "cpu")([make_image(1)]), answers)


@pytest.mark.parametrize(
    ("learner", "option", "value", "message"),
    [
        ("finetuner", "inner_steps", 10**9, "number of steps is 0 to 10,000"),
        ("finetuner_film", "film_places", "(a+)+", "none of a group"),
        ("finetuner_film", "film_places", ".*.*.*.*.*.*", "at most 500 letters, 5 repeats"),
        ("finetuner_film", "film_places", "a{9999999999999999}", "is no pattern"),
        ("simple_cnaps", "encoder_size", 5, "needs images of 32 pixels"),
        ("simple_cnaps", "inner_lr", float("inf"), "does not apply"),
    ],
)
def test_options_that_could_take_endless_time_are_refused(
    learner: str, option: str, value: object, message: str, tmp_path: Path
) -> None:
    file = classifier_file(tmp_path, learner)
    tensors, values = checkpoint.load(file)
    values["classifier"]["about"]["options"][option] = value
    checkpoint.save(file, tensors, values)
    with pytest.raises(IntegrityError, match=rf"pets\.safetensors.*{message}"):
        PortableClassifier.load(file, "cpu")
