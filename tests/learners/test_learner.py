from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from learners.heads.base import Head, State
from learners.labels import Labels
from learners.learner import StagedLearner
from learners.lite.engine import Lite
from learners.methods.cnaps import CNAPs
from learners.methods.protonets import ProtoNets
from learners.methods.simple_cnaps import SimpleCNAPs
from learners.networks import backbone as named
from learners.task import ChunkedPass, as_pixels
from pipeline.errors import UsageError
from tests.learners.tasks import LEARNERS, backbone, cnaps, error, pixels, protonets, staged, task, whole

TOTALS = {  # of the papers: ProtoNets, CNAPs, Simple CNAPs
    "resnet18_84": (11_171_904, 12_754_629, 11_966_144),
    "resnet18": (11_176_512, 12_759_237, 11_970_752),
    "efficientnet_b0": (4_007_548, 10_588_289, 5_667_964),
}


@pytest.mark.parametrize("name", TOTALS)
def test_learners_have_the_papers_numbers_of_parameters(name: str) -> None:
    learners = (ProtoNets(named(name)), CNAPs(named(name, film=True)), SimpleCNAPs(named(name, film=True)))
    found = [sum(tensor.numel() for tensor in learner.parameters()) for learner in learners]
    assert tuple(found) == TOTALS[name]


def test_adapted_backbones_keep_their_weights_and_protonets_learn() -> None:
    assert not any(tensor.requires_grad for tensor in cnaps().backbone.parameters())
    assert all(tensor.requires_grad for tensor in protonets().backbone.parameters())


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("clip", [1, 2])
def test_a_classifier_says_what_the_whole_graph_says(name: str, clip: int) -> None:
    learner, asked = LEARNERS[name](), task((3, 1, 4), queries=6, clip=clip)
    queries, _ = asked.joined_queries()
    wanted = learner(asked.support, asked.labels, queries, clip)
    passage = ChunkedPass(clip=clip, chunk=4)
    classifier = learner.adapt(asked.support, asked.labels, passage=passage)
    found = classifier.logits(queries)
    assert not found.requires_grad
    assert (found - wanted).abs().max() < 1e-10
    probabilities = classifier(queries)
    assert torch.allclose(probabilities, wanted.softmax(1), atol=1e-12)
    assert torch.allclose(probabilities.sum(1), torch.ones(6, dtype=torch.float64))


def test_frames_can_be_embedded_one_by_one_and_averaged_as_one_likes() -> None:
    learner, asked = protonets(), task((2, 2), queries=4, clip=3)
    queries, _ = asked.joined_queries()
    classifier = learner.adapt(asked.support, asked.labels, passage=ChunkedPass(clip=3))
    frames = classifier.embed(queries, ChunkedPass(clip=1, chunk=5))
    assert frames.shape == (12, 5)
    clips = torch.stack([frames[begin : begin + 3].mean(0) for begin in range(0, 12, 3)])
    assert torch.allclose(classifier.score(clips), classifier.logits(queries), atol=1e-12)


def test_pictures_are_taken_as_they_are() -> None:
    learner = protonets()
    images = pixels([0, 1, 0, 1], 3)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    found = learner.adapt(pictures[:2], [0, 1])(pictures[2:])
    assert torch.equal(found, learner.adapt(images[:2], torch.tensor([0, 1]))(images[2:]))
    assert as_pixels([picture.convert("L") for picture in pictures]).shape == (4, 3, 32, 32)
    with pytest.raises(UsageError, match="these 2 have 2 sizes; resize them first"):
        as_pixels([pictures[0], pictures[1].resize((8, 8))])


def test_modes_are_eval_while_adapting_and_as_before_afterwards() -> None:
    learner = StagedLearner(backbone(), Watching()).train()
    learner.backbone.net[0].eval()  # type: ignore[index]
    modes = [module.training for module in learner.modules()]
    classifier = learner.adapt(pixels([0, 1], 0), [0, 1])
    classifier(pixels([1], 1))
    assert learner.head.seen == [False, False]
    assert [module.training for module in learner.modules()] == modes


class Watching(Head):
    """A head of one's own: the nearest neighbour."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[bool] = []

    def fit(self, features: Tensor, labels: Labels) -> State:
        self.seen.append(self.training)
        return features, labels.averaging(features)

    def logits(self, state: State, queries: Tensor) -> Tensor:
        self.seen.append(self.training)
        features, chosen = state
        near = -(queries[:, None] - features).square().sum(2)
        return torch.logsumexp(near[:, None] + chosen.log(), 2)


def test_a_learner_of_ones_own_is_stages_handed_over() -> None:
    learner, asked = StagedLearner(backbone(), Watching()), task((3, 2), queries=4)
    full, _ = whole(learner, asked)
    found, _ = staged(learner, asked, Lite(sampler="exact", chunk=2))
    assert error(found, full) < 1e-10


def test_labels_and_images_must_fit() -> None:
    learner = protonets()
    with pytest.raises(UsageError, match="and 3 labels"):
        learner.adapt(pixels([0, 1], 0), [0, 1, 1])
    with pytest.raises(UsageError, match="1 have none"):
        learner.adapt(pixels([0, 1], 0), [0, 2])
    with pytest.raises(UsageError, match="the support set is empty"):
        learner.adapt(pixels([0], 0)[:0], torch.zeros(0, dtype=torch.int64))
    assert learner.adapt(pixels([0], 0), [0])(pixels([1, 2], 1)).tolist() == [[1.0], [1.0]]
    with pytest.raises(UsageError, match="need one another"):
        StagedLearner(backbone(), Watching(), encoder=nn.Identity())
    with pytest.raises(UsageError, match="at least one image"):
        ChunkedPass(chunk=0)


def test_a_metric_that_is_unknown_is_refused() -> None:
    with pytest.raises(UsageError, match="the metric is one of euclidean, cosine; got 'l1'"):
        ProtoNets(backbone(), metric="l1")  # type: ignore[arg-type]
