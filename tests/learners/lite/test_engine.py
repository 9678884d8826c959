from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from learners.heads.base import Head, State
from learners.labels import Labels
from learners.learner import StagedLearner
from learners.lite.engine import Lite, SamplerName, backward
from learners.methods.cnaps import CNAPs
from learners.methods.protonets import ProtoNets
from learners.networks.set_encoder import SetEncoder
from learners.task import Task
from pipeline.errors import UsageError
from tests.learners.heads.test_mahalanobis import by_inverses
from tests.learners.tasks import (
    LEARNERS,
    backbone,
    cnaps,
    error,
    expected,
    gathered,
    loud,
    protonets,
    rng,
    simple_cnaps,
    staged,
    task,
    whole,
)

SAMPLED: list[SamplerName] = ["uniform", "stratified", "neyman"]
quiet = pytest.mark.filterwarnings("ignore:h=. is less than 1.5")


def part(gradient: Tensor, learner: StagedLearner, name: str) -> Tensor:
    """The gradient of one stage's parameters."""
    wanted = [
        torch.full((parameter.numel(),), key.startswith(name))
        for key, parameter in learner.named_parameters()
    ]
    return gradient[torch.cat(wanted)]


class ByInverses(Head):
    """Simple CNAPs' head as the definition has it."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = torch.zeros(0)

    def fit(self, features: Tensor, labels: Labels) -> State:
        self.labels = torch.from_numpy(labels.values)
        return (features,)

    def logits(self, state: State, queries: Tensor) -> Tensor:
        return by_inverses(state[0], self.labels, queries, "zero")


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("clip", [1, 2])
def test_exact_is_full_back_propagation(name: str, clip: int) -> None:
    learner = LEARNERS[name]()
    asked = task((3, 1, 4), queries=7, batches=3, clip=clip)
    full, loss = whole(learner, asked, penalty=0.001)
    for chunk in (1, 3, 100):
        found, outcome = staged(learner, asked, Lite(sampler="exact", chunk=chunk))
        assert error(found, full) < 1e-10
        assert float(outcome.loss) == pytest.approx(float(loss), rel=1e-12)
        assert outcome.queries == 7
        assert set(outcome.h.values()) == {8}


def test_exact_simple_cnaps_is_full_back_propagation_through_a_loop_of_inverses() -> None:
    for shots, dim in (((3, 1, 4), 16), ((4, 1, 6), 4)):
        learner, asked = simple_cnaps(dim), task(shots, queries=6)
        found, _ = staged(learner, asked, Lite(sampler="exact", chunk=2))
        learner.head = ByInverses()
        full, _ = whole(learner, asked, penalty=0.001)
        assert error(found, full) < 1e-10


@quiet
@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("sampler", SAMPLED)
def test_the_mean_over_all_draws_is_the_full_gradient(name: str, sampler: SamplerName) -> None:
    learner, asked = LEARNERS[name](), task((3, 2))
    full, _ = whole(learner, asked, penalty=0.001)
    mean, count = expected(learner, asked, Lite(h=3, sampler=sampler, chunk=3))
    assert count >= 3
    assert error(mean, full) < 1e-12
    one, _ = staged(learner, asked, Lite(h=3, sampler=sampler))
    assert error(one, full) > 1e-4


@quiet
def test_the_mean_over_all_draws_of_clips_is_the_full_gradient() -> None:
    learner, asked = cnaps(), task((2, 2), clip=2)
    full, _ = whole(learner, asked, penalty=0.001)
    mean, _ = expected(learner, asked, Lite(h=2, sampler="stratified"))
    assert error(mean, full) < 1e-12


@quiet
def test_stages_may_have_samplers_of_their_own() -> None:
    learner, asked = simple_cnaps(), task((3, 2))
    full, _ = whole(learner, asked, penalty=0.001)
    settings = Lite(h=3, sampler="exact", encoder_sampler="uniform")
    mean, count = expected(learner, asked, settings)
    assert count == 10
    assert error(mean, full) < 1e-12
    one, outcome = staged(learner, asked, settings)
    assert outcome.h == {"backbone": 5, "encoder": 3}
    assert error(part(one, learner, "generator"), part(full, learner, "generator")) < 1e-10
    assert error(part(one, learner, "encoder"), part(full, learner, "encoder")) > 1e-3


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("sampler", [*SAMPLED, "exact", "subsample"])
def test_h_of_the_whole_support_is_the_full_gradient(name: str, sampler: SamplerName) -> None:
    learner, asked = LEARNERS[name](), task((3, 2, 2), queries=5, batches=2)
    full, _ = whole(learner, asked, penalty=0.001)
    for h in (7, 50):
        found, _ = staged(learner, asked, Lite(h=h, sampler=sampler))
        assert error(found, full) < 1e-10


@pytest.mark.parametrize("name", LEARNERS)
def test_h_of_nought_is_the_query_path_alone(name: str) -> None:
    learner, asked = LEARNERS[name](), task((3, 2, 2), queries=5)
    none, outcome = staged(learner, asked, Lite(sampler="none"))
    assert set(outcome.h.values()) == {0}
    for sampler in SAMPLED:
        assert torch.equal(staged(learner, asked, Lite(h=0, sampler=sampler))[0], none)
    assert torch.equal(staged(learner, asked, Lite(h=0, sampler="paper-lite"))[0], none)
    assert none.norm() > 0
    if learner.encoder is not None:
        assert part(none, learner, "encoder").norm() == 0
        assert part(none, learner, "generator").norm() > 0


@pytest.mark.parametrize("name", ["protonets", "cnaps"])
def test_the_papers_weightings_shrink_the_supports_share(name: str) -> None:
    """Mean g_Q + h / N of the support's part; ORBIT's is N / h times that. Shared by stages: not even that."""
    learner, asked = LEARNERS[name](), task((3, 2))
    queries, _ = staged(learner, asked, Lite(sampler="none", penalty=0))
    full, _ = whole(learner, asked)
    stages = ("backbone",) if name == "protonets" else ("generator", "head")
    biased = queries + 3 / 5 * (full - queries)
    lite, count = expected(learner, asked, Lite(h=3, sampler="paper-lite", penalty=0))
    orbit, _ = expected(learner, asked, Lite(h=3, sampler="paper-orbit", penalty=0))
    assert count == 10
    for stage in stages:
        wanted = part(biased, learner, stage)
        assert error(part(lite, learner, stage), wanted) < 1e-12
        assert error(part(orbit, learner, stage), 5 / 3 * wanted) < 1e-12
    assert error(lite, full) > 0.02
    if name == "cnaps":
        assert error(part(lite, learner, "head"), part(full, learner, "head")) < 1e-12
        encoder, exact = (part(gradient, learner, "encoder") for gradient in (lite, full))
        assert error(encoder, exact) > 0.05


def test_the_papers_add_up_batch_means_and_penalise_each_batch() -> None:
    learner, asked = cnaps(), task((3, 2), queries=6, batches=2)
    halves = [replace(asked, queries=[batch], query_count=3) for batch in asked.queries]
    settings = Lite(h=5, sampler="paper-lite", penalty=0.01)
    together, outcome = staged(learner, asked, settings)
    apart = sum((whole(learner, half, penalty=0.01)[0] for half in halves), torch.zeros(()))
    assert error(together, apart) < 1e-10
    assert outcome.h == {"backbone": 10, "encoder": 10}
    orbit, _ = staged(learner, asked, replace(settings, sampler="paper-orbit", h=10, penalty=0))
    plain = sum((whole(learner, half)[0] for half in halves), torch.zeros(()))
    assert error(orbit, 5 / 10 * plain) < 1e-10


def test_each_batch_of_queries_has_a_draw_of_its_own_in_the_papers_modes() -> None:
    learner, asked = protonets(), task((3, 2), queries=4)
    twice = replace(asked, queries=[*asked.queries, *asked.queries], query_count=8)
    settings = Lite(h=2, sampler="paper-lite")
    once = staged(learner, asked, settings)[0]
    assert error(staged(learner, twice, settings)[0], 2 * once) > 1e-3


def test_a_subsampled_task_is_the_task_of_those_images() -> None:
    learner, asked = simple_cnaps(), task((4, 1, 5))
    found, outcome = staged(learner, asked, Lite(h=4, sampler="subsample"), rng(3))
    assert set(outcome.h.values()) == {4}
    full, _ = whole(learner, asked, penalty=0.001)
    assert error(found, full) > 0.01
    again, _ = staged(learner, asked, Lite(h=4, sampler="subsample"), rng(3))
    assert torch.equal(found, again)


def test_a_draw_depends_on_the_generator_and_stages_draw_apart() -> None:
    learner, asked = simple_cnaps(), task((6, 6))
    settings = Lite(h=6, sampler="uniform")
    one, same, other = (staged(learner, asked, settings, rng(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_scale_multiplies_loss_and_penalty() -> None:
    learner, asked = cnaps(), task((3, 2))
    whole_gradient, outcome = staged(learner, asked, Lite(sampler="exact"))
    third = backward(learner, asked, Lite(sampler="exact"), rng(), scale=1 / 3)
    assert error(gathered(learner), whole_gradient / 3) < 1e-12
    assert torch.equal(third.loss, outcome.loss)


def test_gradients_of_tasks_add_up() -> None:
    learner = protonets()
    tasks = [task((3, 2), seed=seed) for seed in (0, 5)]
    apart = sum((staged(learner, one, Lite(sampler="exact"))[0] for one in tasks), torch.zeros(()))
    for one in tasks:
        backward(learner, one, Lite(sampler="exact"), rng())
    assert error(gathered(learner), apart) < 1e-12


@quiet
@pytest.mark.parametrize("shots", [(6,) * 5, (1, 2, 3, 8, 16)])
def test_neyman_has_a_fraction_of_uniforms_error(shots: tuple[int, ...]) -> None:
    learner, asked = protonets(), task(shots, queries=10)
    full, _ = whole(learner, asked)
    errors = {}
    for sampler in SAMPLED:
        found = [staged(learner, asked, Lite(h=10, sampler=sampler), rng(seed))[0] for seed in range(40)]
        errors[sampler] = sum(error(gradient, full) ** 2 for gradient in found) / len(found)
    assert errors["neyman"] < 0.3 * errors["uniform"]
    assert errors["neyman"] < 1.1 * errors["stratified"]


def saved_bytes(learner: StagedLearner, asked: Task, settings: Lite) -> int:
    """The most that is kept for backward passes at one time, parameters apart."""
    parameters = {parameter.data_ptr() for parameter in learner.parameters()}
    alive = peak = 0

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal alive, peak
            self.tensor = tensor
            self.bytes = 0 if tensor.data_ptr() in parameters else tensor.nbytes
            alive += self.bytes
            peak = max(peak, alive)

        def __del__(self) -> None:
            nonlocal alive
            alive -= self.bytes

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        backward(learner, asked, settings, rng())
    gathered(learner)
    assert alive == 0
    return peak


@pytest.mark.parametrize("name", ["protonets", "cnaps", "simple_cnaps"])
@pytest.mark.parametrize("sampler", ["neyman", "exact"])
def test_what_is_kept_for_backward_passes_does_not_grow_with_the_task(
    name: str, sampler: SamplerName
) -> None:
    learner = LEARNERS[name]()
    settings = Lite(h=8, sampler=sampler, chunk=8)
    small = saved_bytes(learner, task((4,) * 4, queries=16), settings)
    large = saved_bytes(learner, task((25,) * 4, queries=160), settings)
    assert large <= 1.1 * small + 3 * 100 * 5 * 8  # features of 100 images, a few times
    assert small > 8 * 4 * 7 * 7 * 8 * 3  # a chunk's maps


def test_queries_may_stream_past_once() -> None:
    learner, asked = protonets(), task((3, 2), queries=8, batches=4)
    found, _ = staged(learner, replace(asked, queries=iter(asked.queries)), Lite(sampler="exact"))
    assert torch.equal(found, staged(learner, asked, Lite(sampler="exact"))[0])


def test_reduced_precision_keeps_gradients_close_and_the_head_in_float32() -> None:
    learner, asked = cnaps().float(), task((3, 2, 4), queries=6)
    seen: set[torch.dtype] = set()
    fit = learner.head.fit

    def watched(features: Tensor, labels: Labels) -> State:
        seen.add(features.dtype)
        return fit(features, labels)

    learner.head.fit = watched  # type: ignore[method-assign]
    full, _ = staged(learner, asked, Lite(sampler="exact"))
    half, _ = staged(learner, asked, Lite(sampler="exact", precision=torch.bfloat16))
    assert seen == {torch.float32}
    assert half.dtype == torch.float32
    assert 1e-4 < error(half, full) < 0.5
    head = (part(gradient, learner, "head") for gradient in (half, full))
    assert error(*head) < 0.05


def test_an_autocast_around_it_changes_nothing() -> None:
    learner, asked = cnaps().float(), task((3, 2, 4), queries=6)
    settings = Lite(sampler="exact", precision=torch.bfloat16)
    alone, _ = staged(learner, asked, settings)
    with torch.autocast("cpu", torch.bfloat16):
        within, _ = staged(learner, asked, settings)
        plain, _ = staged(learner, asked, Lite(sampler="exact"))
    assert torch.equal(alone, within)
    assert torch.equal(plain, staged(learner, asked, Lite(sampler="exact"))[0])


def test_a_frozen_backbone_without_film_is_not_gone_through_again() -> None:
    learner = loud(CNAPs(backbone(film=True), encoder=SetEncoder(8)))
    learner.encoder.requires_grad_(requires_grad=False)  # type: ignore[union-attr]
    _, outcome = staged(learner, task((3, 2)), Lite(sampler="exact"))
    assert outcome.h == {"backbone": 5}
    frozen = ProtoNets(backbone().requires_grad_(requires_grad=False))
    gradient, outcome = staged(frozen, task((3, 2)), Lite(sampler="exact"))
    assert outcome.h == {}
    assert gradient.norm() == 0


def test_few_support_images_for_many_classes_warn_and_whole_sets_do_not() -> None:
    learner, asked = protonets(), task((3, 3, 3, 3))
    with pytest.warns(UserWarning, match="h=5 is less than 1.5 for each class"):
        staged(learner, asked, Lite(h=5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for settings in (Lite(h=6), Lite(h=0), Lite(h=5, sampler="exact"), Lite(h=40)):
            staged(learner, asked, settings)
        staged(learner, task((1, 1, 1, 1)), Lite(h=4))


def test_fewer_support_images_than_classes_still_make_a_gradient() -> None:
    learner, asked = simple_cnaps(), task((2, 3, 2, 1))
    with pytest.warns(UserWarning, match="h=2 is less"):
        gradient, outcome = staged(learner, asked, Lite(h=2))
    assert gradient.isfinite().all()
    assert outcome.h == {"backbone": 2, "encoder": 2}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"h": -1}, "h starts at 0 and chunk at 1, got h=-1"),
        ({"chunk": 0}, "got h=40 and chunk=0"),
        ({"sampler": "newman"}, "the sampler is one of exact, neyman, .* got 'newman'"),
        ({"encoder_sampler": "subsample"}, "the encoder's sampler is one of exact, .*'subsample'"),
        ({"sampler": "paper-lite", "encoder_sampler": "exact"}, "paper-lite rules the encoder"),
        ({"sampler": "paper-orbit", "h": 0}, "paper-orbit divides by h"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Lite(**wrong)  # type: ignore[arg-type]


def test_tasks_that_are_not_what_they_say_are_refused() -> None:
    learner, asked = protonets(), task((3, 2), queries=4)
    images, labels = asked.joined_queries()
    for wrong, message in (
        (replace(asked, query_count=5), "said to have 5 queries and handed over 4"),
        (replace(asked, queries=[(images, labels + 1)]), "query labels are 0 to 1, .* 2 of 4 are not"),
        (replace(asked, queries=[(images, labels - 1)]), "query labels are 0 to 1, .* 2 of 4 are not"),
        (replace(asked, queries=[(images[:3], labels)]), "got 3 and 4"),
        (replace(asked, queries=[(images[:0], labels[:0])]), "got 0 and 0"),
        (replace(asked, way=3), "of 3 classes 2 have none"),
        (replace(asked, way=1), "support labels are 0 to 0"),
    ):
        with pytest.raises(UsageError, match=message):
            staged(learner, wrong, Lite(sampler="exact"))
        gathered(learner)
    with pytest.raises(UsageError, match=r"images of shape .* and 4 labels"):
        replace(asked, labels=asked.labels[:4])
    with pytest.raises(UsageError, match="got 0 queries and clips of 1"):
        replace(asked, query_count=0)


def test_modules_are_left_as_they_were() -> None:
    learner, asked = cnaps(), task((3, 2))
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    modes = {name: module.training for name, module in learner.named_modules()}
    staged(learner, asked, Lite(h=3, sampler="uniform"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.state_dict().items())
    assert {name: module.training for name, module in learner.named_modules()} == modes
    assert isinstance(learner.encoder, nn.Module)
