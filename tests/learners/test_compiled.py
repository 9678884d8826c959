"""A compiled learner is the same learner, to rounding, whatever sizes of batches it has seen."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from learners.compiled import check_compiler, compile_networks
from learners.lite.engine import Lite
from pipeline.errors import UsageError
from tests.learners.tasks import pixels, rng, simple_cnaps, staged, task

CPU = torch.device("cpu")
GUARDED_GRADIENT = "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
"""Dynamo looks at `.grad` of every input and hides the warning itself, but not where warnings are errors."""


@pytest.fixture
def compiler() -> None:
    try:
        check_compiler(CPU)
    except UsageError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", GUARDED_GRADIENT)
def test_gradients_are_those_of_the_learner_as_it_is() -> None:
    plain, compiled = simple_cnaps(), simple_cnaps()
    names = list(compiled.state_dict())
    compile_networks(compiled)
    assert list(compiled.state_dict()) == names
    for seed, shots in enumerate([(3, 2, 2), (4, 3, 1)]):  # another FiLM each time
        asked = task(shots, queries=5, batches=2, seed=seed)
        settings = Lite(h=5, chunk=3 + seed)
        (wanted, _), (found, told) = (
            staged(learner, asked, settings, rng(seed)) for learner in (plain, compiled)
        )
        assert float((found - wanted).norm() / wanted.norm()) < 1e-5  # inductor computes parts in float32
        assert told.queries == 5


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@torch.no_grad()
def test_what_comes_out_does_not_depend_on_the_sizes_that_came_before() -> None:
    images = pixels([0, 1, 2, 0, 1], seed=0)
    fresh, used = simple_cnaps(), simple_cnaps()
    for learner in (fresh, used):
        compile_networks(learner)
    used.backbone(images[:2])
    used.backbone(images[:4])
    assert torch.equal(fresh.backbone(images), used.backbone(images))


def test_without_a_compiler_it_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match=r"--compile needs a C\+\+ compiler"):
        check_compiler(CPU)
