"""A learner adapts to anybody's pictures; what it makes goes into a file and answers alone."""

from __future__ import annotations

import random
import shutil
import sys
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pytest
import torch
from PIL import Image
from torch import Tensor

from learners import checkpoint
from learners.heads.base import State
from learners.heads.prototypes import Cosine
from learners.learner import StagedLearner
from learners.methods.catalogue import Name, about, make
from learners.networks import backbone, save_weights
from learners.use.classifier import Learner, PortableClassifier
from learners.use.pictures import Picture, listed, pixels
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.records import SQUASHED, Resizing
from tests.learners.small import pictures
from tests.pictures import fill, jpeg, picture

SIZE = 32
NAMES = get_args(Name)


@pytest.fixture(autouse=True, scope="module")
def _one_core() -> Iterator[None]:
    """Small networks gain nothing from several, and tests that run side by side lose much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def learner(name: Name = "protonets", seed: int = 0) -> Learner:
    net = make(name, "conv4", seed=seed)
    return Learner.of(net, about(net, name, SIZE), "cpu")


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training run of Simple CNAPs leaves."""
    net, folder = make("simple_cnaps", "conv4", seed=5), tmp_path_factory.mktemp("run")
    tensors, values = checkpoint.flatten({"learner": net.state_dict()})
    what = about(net, "simple_cnaps", SIZE).described()
    checkpoint.save(
        folder / "last.safetensors", tensors, {"about": what, "state": values, "tasks": 3}
    )
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("photos"), {"owl": 3, "ant": 2, "elk": 1})


def test_four_lines_from_a_run_to_answers(trained_run: Path, photos: Path, tmp_path: Path) -> None:
    classifier = Learner.load(trained_run, "cpu").adapt(photos)
    probabilities = classifier([photos / "owl" / "000.jpg", picture(5, 300, 10)])
    assert classifier.classes == ("ant", "elk", "owl")
    assert probabilities.shape == (2, 3)
    assert torch.allclose(probabilities.sum(1), torch.ones(2))
    classifier.save(tmp_path / "pets.safetensors")
    assert (tmp_path / "pets.safetensors").is_file()


def test_pictures_become_squares_as_those_of_training_did(photos: Path, tmp_path: Path) -> None:
    net, how, wide = make("protonets", "conv4"), Resizing("crop", "bicubic"), picture(5, 300, 40)
    made = Learner.of(net, about(net, "protonets", SIZE, how), "cpu").adapt(photos)
    assert torch.equal(made(wide), made(pixels([wide], SIZE, how, ["wide"])))
    assert not torch.equal(made(wide), made(pixels([wide], SIZE, SQUASHED, ["wide"])))
    made.save(tmp_path / "cut.safetensors")
    assert torch.equal(PortableClassifier.load(tmp_path / "cut.safetensors")(wide), made(wide))


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_classifier_answers_alone_as_before_to_the_bit(
    name: Name, photos: Path, tmp_path: Path
) -> None:
    made = learner(name).adapt(photos)
    asked = [picture(seed, 40 + seed, 50) for seed in range(5)]
    before = made(asked)
    made.save(tmp_path / "pets.safetensors")
    del made
    found = PortableClassifier.load(tmp_path / "pets.safetensors", "cpu")
    assert torch.equal(found(asked), before)
    assert found.classes == ("ant", "elk", "owl")
    assert (found.about.learner, found.about.image_size) == (name, SIZE)
    found.save(tmp_path / "again.safetensors")
    assert torch.equal(
        PortableClassifier.load(tmp_path / "again.safetensors", "cpu")(asked), before
    )


def test_what_a_head_has_of_its_own_is_saved(photos: Path, tmp_path: Path) -> None:
    net = make("protonets", "conv4", temperature=32.0)
    made = Learner.of(net, about(net, "protonets", SIZE), "cpu").adapt(photos)
    made.save(tmp_path / "pets.safetensors")
    found = PortableClassifier.load(tmp_path / "pets.safetensors", "cpu")
    assert torch.equal(found(picture(1)), made(picture(1)))
    assert not torch.equal(found(picture(1)), learner().adapt(photos)(picture(1)))


@pytest.mark.parametrize("name", NAMES)
def test_many_threads_get_the_answers_that_one_gets(name: Name, photos: Path) -> None:
    used = learner(name)
    first, second = used.adapt(photos), used.adapt({"a": picture(1), "b": picture(2)})
    asked = [pictures(3, SIZE, seed) for seed in range(4)]
    alone = [(first(images), second(images)) for images in asked]

    def ask(number: int) -> bool:
        wanted, other = alone[number % 4]
        if number == 0:  # adapting goes on beside it
            again = used.adapt(photos)
            return torch.equal(again(asked[number % 4]), wanted)
        images = asked[number % 4]
        return torch.equal(first(images), wanted) and torch.equal(second(images), other)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, range(12)))
    finally:
        sys.setswitchinterval(switch)


def test_nothing_puts_a_network_out_of_eval_mode(photos: Path) -> None:
    net = make("simple_cnaps", "conv4").train()
    used = Learner.of(net, about(net, "simple_cnaps", SIZE), "cpu")
    classifier = used.adapt(photos)
    classifier(picture(1))
    for module in (used.net, classifier.inner.learner):
        assert not any(part.training for part in module.modules())
    assert net.training


def test_a_learner_is_a_copy_so_the_original_may_go_on_learning(photos: Path) -> None:
    net = make("simple_cnaps", "conv4")
    classifier = Learner.of(net, about(net, "simple_cnaps", SIZE), "cpu").adapt(photos)
    before = classifier(picture(1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    assert torch.equal(classifier(picture(1)), before)


def test_each_picture_shown_is_recognised_under_its_name(photos: Path) -> None:
    one_each: dict[str, Picture] = {"b": jpeg(1), "a": picture(2), "c": photos / "owl" / "000.jpg"}
    classifier = learner().adapt(one_each)
    answers = classifier.classify([*one_each.values()])
    assert [answer.name for answer in answers] == ["b", "a", "c"]
    assert all(1 / 3 < answer.probability <= 1 for answer in answers)
    labelled = learner().adapt([*one_each.values()], ["b", "a", "c"])
    assert [answer.name for answer in labelled.classify(jpeg(1))] == ["b"]
    assert labelled.classes == ("a", "b", "c")


def test_answers_do_not_depend_on_how_the_pictures_are_given(photos: Path) -> None:
    used = learner("finetuner")
    files = [path for name in ("ant", "elk", "owl") for path in listed(photos / name)]
    labels = [0, 0, 1, 2, 2, 2]
    folder = used.adapt(photos)(files)
    images = [Image.open(path).copy() for path in map(str, files)]
    assert torch.equal(used.adapt(images, torch.tensor(labels))(images), folder)
    assert torch.equal(used.adapt(files, labels, classes=["x", "y", "z"])(str(photos)), folder)


def test_queries_pass_in_batches_and_none_is_fine(photos: Path) -> None:
    classifier = learner().adapt(photos)
    many = pictures(95, SIZE)
    parts = torch.cat([classifier(part) for part in torch.split(many, 40)])
    assert torch.equal(classifier(many), parts)
    assert classifier([]).shape == (0, 3)
    assert classifier.classify([]) == []


def test_a_bad_picture_loses_nothing_else(photos: Path, tmp_path: Path) -> None:
    used = learner()
    classifier = used.adapt(photos)
    before = classifier(picture(1))
    asked: list[Picture] = [*[picture(1)] * 50, b"no picture"]
    with pytest.raises(IntegrityError, match=r"a picture cannot be used: picture 51: not a"):
        classifier(asked)
    bad = shutil.copytree(photos, tmp_path / "bad")
    (bad / "elk" / "000.jpg").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"000\.jpg \(of class 'elk'\): the file is empty"):
        used.adapt(bad)
    assert torch.equal(classifier(picture(1)), before)
    assert torch.equal(used.adapt(photos)(picture(1)), before)


def test_one_class_only_is_refused(photos: Path) -> None:
    with pytest.raises(UsageError, match=r"one class only, 'owl': there is nothing to tell apart"):
        learner().adapt({"owl": photos / "owl"})


def test_a_backbone_without_a_run_is_enough(photos: Path, tmp_path: Path) -> None:
    weights = tmp_path / "conv4.safetensors"
    save_weights(weights, backbone("conv4"))
    used = Learner.pretrained("conv4", weights=weights, image_size=SIZE, device="cpu")
    assert (used.about.learner, used.about.backbone) == ("finetuner", "conv4")
    assert used.adapt(photos)(picture(1)).shape == (1, 3)
    with pytest.raises(SourceMissing, match=r"missing\.safetensors"):
        Learner.pretrained("conv4", weights=tmp_path / "missing.safetensors")


class Sharp(Cosine):
    """A head of one's own, which `about` cannot say."""

    def logits(self, state: State, queries: Tensor) -> Tensor:
        return 3 * super().logits(state, queries)


def test_a_learner_of_ones_own_is_used_and_not_saved_as_another(
    photos: Path, tmp_path: Path
) -> None:
    what = about(make("protonets_cosine", "conv4"), "protonets_cosine", SIZE)
    classifier = Learner.of(StagedLearner(backbone("conv4"), Sharp()), what, "cpu").adapt(photos)
    assert isinstance(classifier.inner.learner, StagedLearner)
    assert classifier(picture(1)).shape == (1, 3)
    with pytest.raises(UsageError, match=r"not the protonets_cosine with a conv4"):
        classifier.save(tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


def test_files_of_another_kind_are_refused(trained_run: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"holds no classifier; .* for Learner\.load"):
        PortableClassifier.load(trained_run / "last.safetensors")
    file = tmp_path / "pets.safetensors"
    learner().adapt(photos).save(file)
    with pytest.raises(UsageError, match=r"has adapted already; PortableClassifier\.load uses it"):
        Learner.load(file)
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"damaged: its checksum differs"):
        PortableClassifier.load(file)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said(trained_run: Path) -> None:
    with pytest.raises(UsageError, match=r"the device cuda needs a GPU"):
        Learner.load(trained_run, "cuda")
    with pytest.raises(UsageError, match=r"or auto; got 'gpu'"):
        Learner.load(trained_run, "gpu")
    assert next(Learner.load(trained_run).net.parameters()).device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_and_the_cpu_answer_alike(name: Name, photos: Path, tmp_path: Path) -> None:
    net = make(name, "conv4")
    classifier = Learner.of(net, about(net, name, SIZE), "cuda").adapt(photos)
    classifier.save(tmp_path / "x.safetensors")
    asked = pictures(5, SIZE).to("cuda")
    found = PortableClassifier.load(tmp_path / "x.safetensors", "cpu")(asked)
    assert torch.allclose(classifier(asked), found, atol=1e-2)


@pytest.mark.slow
def test_ten_classes_of_real_photographs_are_learned_in_seconds(
    real_data: Path, tmp_path: Path
) -> None:
    with tarfile.open(next((real_data / "caltech101").glob("*.tar"))) as tar:
        tar.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    names = random.Random(0).sample(sorted(path.name for path in root.iterdir()), 10)
    weights = real_data / "weights" / "mobilenetv1_075_224.safetensors"
    used = Learner.pretrained("mobilenetv1_075", weights=weights, device="cpu")
    begin = time.process_time()
    classifier = used.adapt({name: listed(root / name)[:5] for name in names})
    seconds = time.process_time() - begin
    asked = {path: name for name in names for path in listed(root / name)[5:11]}
    answers = classifier.classify([*asked])
    right = sum(answer.name == name for answer, name in zip(answers, asked.values(), strict=True))
    assert right > 0.9 * len(asked)
    assert 0.6 < sum(answer.probability for answer in answers) / len(answers) < 0.99
    assert seconds < 5
