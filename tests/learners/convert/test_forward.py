"""The authors' learners and ours, after conversion, give the same logits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from learners.convert.__main__ import convert, write_run
from learners.convert.identify import GivenFlags
from learners.learner import _in_random_order
from learners.runs import load_run
from learners.task import ChunkedPass
from tests.learners.convert.authors import AuthorsLearner, without_constant
from tests.learners.tasks import pixels
from tests.learners.training.tiny_md import one_thread

CLIP_VIT, VIT_S = "vit_base_patch32_clip_224.laion2b", "vit_small_patch32_224.augreg_in21k"
VIT_B, NET_V2 = "vit_base_patch32_224.augreg_in21k", "tf_efficientnetv2_s.in21k"
PAIRS = [
    ("lite", "simple_cnaps", "efficientnet_b0"),
    ("lite", "simple_cnaps", "efficientnet_b0_84"),
    *[("orbit-2021", learner, backbone)
      for backbone in ("resnet18", "resnet18_84", "efficientnet_b0")
      for learner in ("protonets", "cnaps", "simple_cnaps", "maml", "finetuner")],
    *[("orbit-2022", learner, "efficientnet_b0")
      for learner in ("protonets", "protonets_cosine", "cnaps", "simple_cnaps")],
    ("orbit-2022", "protonets_cosine", NET_V2),
    ("orbit-2022", "cnaps", NET_V2),
    ("orbit-2022", "simple_cnaps", VIT_S),
    ("orbit-2022", "finetuner", VIT_S),
    pytest.param("orbit-2022", "protonets", VIT_B, marks=pytest.mark.slow),
    pytest.param("orbit-2022", "cnaps", CLIP_VIT, marks=pytest.mark.slow),
]  # fmt: skip
single_thread = pytest.fixture(scope="module", autouse=True)(one_thread)
TOLERANCE = 1e-5  # of the largest logit, in float32


@pytest.mark.parametrize(("code", "learner", "backbone"), PAIRS)
def test_logits_of_a_converted_file_are_the_authors(
    code: str, learner: str, backbone: str, tmp_path: Path
) -> None:
    authors = AuthorsLearner(code, learner, backbone)
    file = tmp_path / "file.pth"
    torch.save(authors.state, file)
    size = 84 if backbone.endswith("_84") else 224
    given = GivenFlags(learner=learner, image_size=size)
    converted = convert(file, given)
    assert (converted.found.format.name, converted.found.backbone) == (code, backbone)
    write_run(tmp_path / "run", file, converted)
    run = load_run(tmp_path / "run")
    assert (run.info.learner, run.info.image_size) == (learner, size)

    # 32 pixels have the borders of 224 in the networks that do not ask for a size of their own
    side = 224 if "vit" in backbone else 84 if backbone == "efficientnet_b0_84" else 32
    clip = 2 if code == "orbit-2021" else 1
    labels = torch.tensor([0, 2, 1, 0, 2, 0, 2])  # class 1 has one unit
    asked = torch.tensor([0, 1, 2, 1])
    images = pixels(labels.repeat_interleave(clip), 1, side)
    queries = pixels(asked.repeat_interleave(clip), 2, side)
    batch = 4 * clip
    ours = run.net.adapt(images, labels.repeat_interleave(clip), 3, ChunkedPass(clip=clip, chunk=batch))
    order = torch.arange(len(images))
    if getattr(getattr(run.net, "encoder", None), "mixes_images", False):
        order = _in_random_order(order, clip)
    theirs = authors.logits(images, labels, queries, order, clip=clip, batch=batch)
    wanted, scale = without_constant(theirs), theirs.abs().max()
    error = (without_constant(ours.logits(queries)) - wanted).abs().max() / scale
    spread = wanted.std(0).max() / scale
    print(f"\n{code} {learner} {backbone}: {error:.1e}, spread {spread:.1e}, logits up to {scale:.3g}")
    assert spread > 50 * TOLERANCE  # the logits of queries differ, so the comparison says something
    assert error < TOLERANCE
