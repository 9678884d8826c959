"""A learner adapts to one's own images; its classifier is saved to a file and classifies from it alone."""

from __future__ import annotations

import random
import shutil
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from learners.heads.base import State
from learners.heads.prototypes import CosinePrototypes
from learners.learner import StagedLearner
from learners.methods.catalogue import LEARNERS, describe_learner, make_learner
from learners.networks import backbone, save_weights
from learners.use.classifier import Learner, PortableClassifier
from learners.use.pictures import ImageInput, list_images, load_pixels
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.records import DEFAULT_RESIZE, ResizeMethod
from tests.images import jpeg_bytes, make_image
from tests.learners.scarce_memory import memory_for
from tests.learners.small import pictures

SIZE = 32
NAMES = tuple(LEARNERS)


def learner(name: str = "protonets", seed: int = 0) -> Learner:
    net = make_learner(name, "conv4", seed=seed)
    return Learner.of(net, describe_learner(net, name, SIZE), "cpu")


def test_four_lines_from_a_run_to_answers(trained_run: Path, photos: Path, tmp_path: Path) -> None:
    classifier = Learner.load(trained_run, "cpu").adapt(photos)
    probabilities = classifier([photos / "owl" / "000.jpg", make_image(5, 300, 10)])
    assert classifier.classes == ("ant", "elk", "owl")
    assert probabilities.shape == (2, 3)
    assert torch.allclose(probabilities.sum(1), torch.ones(2))
    classifier.save(tmp_path / "pets.safetensors")
    assert (tmp_path / "pets.safetensors").is_file()


def test_pictures_become_squares_as_those_of_training_did(photos: Path, tmp_path: Path) -> None:
    net, how, wide = (
        make_learner("protonets", "conv4"),
        ResizeMethod("crop", "bicubic"),
        make_image(5, 300, 40),
    )
    classifier = Learner.of(net, describe_learner(net, "protonets", SIZE, how), "cpu").adapt(photos)
    assert torch.equal(classifier(wide), classifier(load_pixels([wide], SIZE, how, ["wide"])))
    assert not torch.equal(classifier(wide), classifier(load_pixels([wide], SIZE, DEFAULT_RESIZE, ["wide"])))
    classifier.save(tmp_path / "cut.safetensors")
    assert torch.equal(PortableClassifier.load(tmp_path / "cut.safetensors")(wide), classifier(wide))


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_classifier_answers_alone_as_before_to_the_bit(
    name: str, photos: Path, tmp_path: Path
) -> None:
    classifier = learner(name).adapt(photos)
    queries = [make_image(seed, 40 + seed, 50) for seed in range(5)]
    before = classifier(queries)
    classifier.save(tmp_path / "pets.safetensors")
    del classifier
    loaded = PortableClassifier.load(tmp_path / "pets.safetensors", "cpu")
    assert torch.equal(loaded(queries), before)
    assert loaded.classes == ("ant", "elk", "owl")
    assert (loaded.info.learner, loaded.info.image_size) == (name, SIZE)
    loaded.save(tmp_path / "again.safetensors")
    assert torch.equal(PortableClassifier.load(tmp_path / "again.safetensors", "cpu")(queries), before)


def test_a_heads_own_buffers_are_saved(photos: Path, tmp_path: Path) -> None:
    net = make_learner("protonets", "conv4", temperature=32.0)
    classifier = Learner.of(net, describe_learner(net, "protonets", SIZE), "cpu").adapt(photos)
    classifier.save(tmp_path / "pets.safetensors")
    loaded = PortableClassifier.load(tmp_path / "pets.safetensors", "cpu")
    assert torch.equal(loaded(make_image(1)), classifier(make_image(1)))
    assert not torch.equal(loaded(make_image(1)), learner().adapt(photos)(make_image(1)))


@pytest.mark.parametrize("name", NAMES)
def test_many_threads_get_the_answers_that_one_gets(name: str, photos: Path) -> None:
    used = learner(name)
    first, second = used.adapt(photos), used.adapt({"a": make_image(1), "b": make_image(2)})
    queries = [pictures(3, SIZE, seed) for seed in range(4)]
    alone = [(first(images), second(images)) for images in queries]

    def ask(number: int) -> bool:
        expected, other = alone[number % 4]
        if number == 0:  # adapting goes on beside it
            again = used.adapt(photos)
            return torch.equal(again(queries[number % 4]), expected)
        images = queries[number % 4]
        return torch.equal(first(images), expected) and torch.equal(second(images), other)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, range(12)))
    finally:
        sys.setswitchinterval(switch)


def test_networks_stay_in_eval_mode(photos: Path) -> None:
    net = make_learner("simple_cnaps", "conv4").train()
    used = Learner.of(net, describe_learner(net, "simple_cnaps", SIZE), "cpu")
    classifier = used.adapt(photos)
    classifier(make_image(1))
    for module in (used.net, classifier.inner.backbone, classifier.inner.head):
        assert not any(part.training for part in module.modules())
    assert net.training


def test_a_learner_is_a_copy_so_the_original_may_go_on_learning(photos: Path) -> None:
    net = make_learner("simple_cnaps", "conv4")
    classifier = Learner.of(net, describe_learner(net, "simple_cnaps", SIZE), "cpu").adapt(photos)
    before = classifier(make_image(1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    assert torch.equal(classifier(make_image(1)), before)


def test_each_picture_shown_is_recognised_under_its_name(photos: Path) -> None:
    one_each: dict[str, ImageInput] = {
        "b": jpeg_bytes(1),
        "a": make_image(2),
        "c": photos / "owl" / "000.jpg",
    }
    classifier = learner().adapt(one_each)
    answers = classifier.classify([*one_each.values()])
    assert [answer.name for answer in answers] == ["b", "a", "c"]
    assert all(1 / 3 < answer.probability <= 1 for answer in answers)
    labelled = learner().adapt([*one_each.values()], ["b", "a", "c"])
    assert [answer.name for answer in labelled.classify(jpeg_bytes(1))] == ["b"]
    assert labelled.classes == ("a", "b", "c")


def test_answers_do_not_depend_on_how_the_pictures_are_given(photos: Path) -> None:
    used = learner("finetuner")
    files = [path for name in ("ant", "elk", "owl") for path in list_images(photos / name)]
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


def test_too_little_memory_for_a_batch_halves_it_and_for_one_image_is_a_sentence(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    used, images = learner(), pictures(12, SIZE)
    classifier = used.adapt(photos)
    wanted = classifier(images)
    with memory_for(0, forward=5):
        found = used.adapt(photos)(images)
    torch.testing.assert_close(found, wanted)
    assert caplog.messages[-1].endswith("going on with chunks of 5 images")
    for ask in (lambda: used.adapt(photos), lambda: classifier(images)):
        with memory_for(0, forward=0), pytest.raises(UsageError, match="with one image at a time"):
            ask()


def test_a_bad_picture_loses_nothing_else(photos: Path, tmp_path: Path) -> None:
    used = learner()
    classifier = used.adapt(photos)
    before = classifier(make_image(1))
    queries: list[ImageInput] = [*[make_image(1)] * 50, b"no picture"]
    with pytest.raises(IntegrityError, match=r"a picture cannot be used: picture 51: not a"):
        classifier(queries)
    bad = shutil.copytree(photos, tmp_path / "bad")
    (bad / "elk" / "000.jpg").write_bytes(b"")
    with pytest.raises(IntegrityError, match=r"000\.jpg \(of class 'elk'\): the file is empty"):
        used.adapt(bad)
    assert torch.equal(classifier(make_image(1)), before)
    assert torch.equal(used.adapt(photos)(make_image(1)), before)


def test_one_class_only_is_refused(photos: Path) -> None:
    with pytest.raises(UsageError, match=r"one class only, 'owl': there is nothing to tell apart"):
        learner().adapt({"owl": photos / "owl"})


def test_a_backbone_without_a_run_is_enough(photos: Path, tmp_path: Path) -> None:
    weights = tmp_path / "conv4.safetensors"
    save_weights(weights, backbone("conv4"))
    used = Learner.pretrained("conv4", weights=weights, image_size=SIZE, device="cpu")
    assert (used.info.learner, used.info.backbone) == ("finetuner", "conv4")
    assert used.adapt(photos)(make_image(1)).shape == (1, 3)
    with pytest.raises(SourceMissing, match=r"missing\.safetensors"):
        Learner.pretrained("conv4", weights=tmp_path / "missing.safetensors")


class SharpCosine(CosinePrototypes):
    """A head of one's own, which `make_learner` cannot make."""

    def logits(self, state: State, queries: Tensor) -> Tensor:
        return 3 * super().logits(state, queries)


def test_a_learner_of_ones_own_is_used_and_not_saved_as_another(photos: Path, tmp_path: Path) -> None:
    info = describe_learner(make_learner("protonets_cosine", "conv4"), "protonets_cosine", SIZE)
    classifier = Learner.of(StagedLearner(backbone("conv4"), SharpCosine()), info, "cpu").adapt(photos)
    assert isinstance(classifier.inner.head, SharpCosine)
    assert classifier(make_image(1)).shape == (1, 3)
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
def test_a_gpu_that_is_not_there_is_an_error(trained_run: Path) -> None:
    with pytest.raises(UsageError, match=r"the device cuda needs a GPU"):
        Learner.load(trained_run, "cuda")
    with pytest.raises(UsageError, match=r"or auto; got 'gpu'"):
        Learner.load(trained_run, "gpu")
    assert next(Learner.load(trained_run).net.parameters()).device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_and_the_cpu_answer_alike(name: str, photos: Path, tmp_path: Path) -> None:
    net = make_learner(name, "conv4")
    classifier = Learner.of(net, describe_learner(net, name, SIZE), "cuda").adapt(photos)
    classifier.save(tmp_path / "x.safetensors")
    queries = pictures(5, SIZE).to("cuda")
    loaded = PortableClassifier.load(tmp_path / "x.safetensors", "cpu")(queries)
    assert torch.allclose(classifier(queries), loaded, atol=1e-2)


@pytest.mark.slow
def test_ten_classes_of_real_photographs_are_learned_in_seconds(real_data: Path, tmp_path: Path) -> None:
    with tarfile.open(next((real_data / "caltech101").glob("*.tar"))) as tar:
        tar.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    names = random.Random(0).sample(sorted(path.name for path in root.iterdir()), 10)
    weights = real_data / "weights" / "mobilenetv1_075_224.safetensors"
    used = Learner.pretrained("mobilenetv1_075", weights=weights, device="cpu")
    begin = time.process_time()
    classifier = used.adapt({name: list_images(root / name)[:5] for name in names})
    seconds = time.process_time() - begin
    queries = {path: name for name in names for path in list_images(root / name)[5:11]}
    answers = classifier.classify([*queries])
    right = sum(answer.name == name for answer, name in zip(answers, queries.values(), strict=True))
    assert right > 0.9 * len(queries)
    assert 0.6 < sum(answer.probability for answer in answers) / len(answers) < 0.99
    assert seconds < 5
