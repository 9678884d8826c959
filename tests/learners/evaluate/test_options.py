"""Options of an untrained learner: flags, what they do to the answers, and what a folder and a result keep of them."""

from __future__ import annotations

import json
import urllib.error
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from learners import checkpoint
from learners.evaluate.__main__ import main
from learners.evaluate.protocols import OrbitOptions
from learners.evaluate.records import EvaluationResult
from learners.methods.catalogue import describe_learner, make_learner
from learners.methods.options import OPTION_NAMES, LearnerOptions
from pipeline.errors import PipelineError, SourceMissing, UsageError
from pipeline.settings import flag_name
from pipeline.shardset import ShardSet
from pipeline.torch_datasets import ClassDataset
from tests.learners.evaluate.tiny import LARGER, RECIPE, SIZE, glyphs, orbit

FIXED = ("--protocol", "fixed", "--way", 3, "--shot", 4, "--query", 3, "--tasks", 3)
TUNER = ("--learner", "finetuner", "--backbone", "conv4", "--weights", "random", "--image-size", SIZE)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return glyphs(tmp_path_factory.mktemp("options"))


def evaluate(shards: Path, out: Path, *more: object) -> int:
    own = ("--shards", shards, "--out", out, "--device", "cpu", "--threads", 1, *more)
    return main([str(word) for word in own])


def evaluated(shards: Path, out: Path, *more: object) -> EvaluationResult:
    assert evaluate(shards, out, *more) == 0
    return EvaluationResult.load(out)


# ORBIT's baseline since 2022


def tuned_layer(features: Tensor, labels: Tensor, way: int) -> tuple[Tensor, Tensor]:
    """Fifty steps of Adam at 0.001 on the mean loss of a linear layer that starts at zero."""
    weight, bias = torch.zeros(way, features.shape[1]).requires_grad_(), torch.zeros(way).requires_grad_()
    optimizer = torch.optim.Adam([weight, bias], lr=0.001)
    for _ in range(50):
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(functional.linear(features, weight, bias), labels))
        optimizer.step()
    return weight.detach(), bias.detach()


def test_adam_at_a_thousandth_is_the_finetuner_of_orbit_since_2022(tmp_path: Path) -> None:
    """Each frame is answered as by a layer tuned by hand on all frames of the support videos."""
    root = orbit(tmp_path)
    asked = ("--protocol", "orbit", "--orbit", "2022", "--tasks-per-user", 1)
    adam = (
        "--inner-optimizer",
        "adam",
        "--inner-lr",
        0.001,
        "--inner-steps",
        50,
        "--inner-weighting",
        "whole",
    )
    result = evaluated(root, tmp_path / "adam", *TUNER, *adam, *asked)
    assert result.cost.steps == "50FB"
    used = {name: result.learner["options"][name] for name in ("inner_optimizer", "inner_lr", "inner_steps")}
    assert used == {"inner_optimizer": "adam", "inner_lr": 0.001, "inner_steps": 50}
    shards = ShardSet.open(root)
    (own,) = OrbitOptions(orbit="2022", tasks_per_user=1).task_set(shards).datasets
    net = make_learner("finetuner", "conv4").eval()
    data = ClassDataset(shards, "orbit", split="", image_size=SIZE)
    with torch.no_grad():
        table = torch.cat([net.backbone(data[row][0][None]) for row in range(len(data))])
    lines = [json.loads(line) for line in (tmp_path / "adam" / "tasks-0.jsonl").read_text().splitlines()]
    clear = 0
    for line in lines:
        plan = own.sampler[line["number"]]
        layer = tuned_layer(table[plan.support.rows], torch.from_numpy(plan.support.labels).long(), plan.way)
        logits = functional.linear(table[plan.query.rows], *layer)
        first, second = logits.topk(2, dim=1).values.T
        answers = torch.tensor([answer for video in line["videos"] for answer in video["answers"]])
        apart = first - second > 1e-4 * first.abs().max()
        assert torch.equal(answers[apart], logits.argmax(1)[apart])
        clear += int(apart.sum())
    assert clear > 0.9 * sum(line["queries"] for line in lines)


def test_the_default_finetuner_is_another_one(shards: Path, tmp_path: Path) -> None:
    """Plain steps of 0.1 are ORBIT 2021's, and change the answers."""
    sgd = evaluated(shards, tmp_path / "sgd", *TUNER, *FIXED)
    same = ("--inner-optimizer", "sgd", "--inner-lr", 0.1, "--inner-steps", 50)
    assert evaluated(shards, tmp_path / "same", *TUNER, *same, *FIXED).scores == sgd.scores
    slow = evaluated(shards, tmp_path / "slow", *TUNER, "--inner-steps", 1, "--inner-lr", 1e-12, *FIXED)
    assert (slow.cost.steps, sgd.cost.steps) == ("1FB", "50FB")
    assert slow.scores[0].value < sgd.scores[0].value
    assert slow.cost.macs == pytest.approx((sgd.cost.macs or 0) / 50)


def test_the_papers_weighting_says_how_large_its_chunks_are(shards: Path, tmp_path: Path) -> None:
    result = evaluated(shards, tmp_path, *TUNER, "--inner-weighting", "paper", "--chunk", 5, *FIXED)
    assert result.notes == (
        "not trained on tasks; backbone's weights: random",
        "each inner step adds up the mean losses of chunks of 5 images (--chunk)",
    )


# What a folder and a result keep


def test_evaluations_of_the_same_weights_with_other_options_do_not_mix(shards: Path, tmp_path: Path) -> None:
    evaluated(shards, tmp_path, *TUNER, *FIXED)
    with pytest.raises(UsageError, match=r"other settings: inner_lr was nothing and is 0\.5\. .*--out"):
        evaluate(shards, tmp_path, *TUNER, "--inner-lr", 0.5, *FIXED)
    evaluated(shards, tmp_path / "other", *TUNER, "--inner-lr", 0.5, *FIXED)
    with pytest.raises(UsageError, match=r"other settings: inner_lr was 0\.5 and is 0\.25\. "):
        evaluate(shards, tmp_path / "other", *TUNER, "--inner-lr", 0.25, *FIXED)
    evaluated(shards, tmp_path / "other", *TUNER, "--inner-lr", 0.5, *FIXED)


def test_a_folder_from_before_there_were_options_goes_on_with_the_defaults(
    shards: Path, tmp_path: Path
) -> None:
    first = evaluated(shards, tmp_path, *TUNER, *FIXED)
    kept = json.loads((tmp_path / "settings.json").read_text())
    assert not kept.keys() & set(OPTION_NAMES)
    explicit = ("--inner-steps", 0, "--inner-lr", 0, "--inner-weighting", "whole", "--encoder-size", 84)
    assert evaluated(shards, tmp_path, *TUNER, *explicit, *FIXED).scores == first.scores


def test_checkpoints_with_the_same_weights_and_another_set_encoder_do_not_mix(tmp_path: Path) -> None:
    """Both norms have parameters of the same names and shapes, so the weights do not tell them apart."""
    root = glyphs(tmp_path)
    macs = {}
    for norm in ("example", "batch"):
        options = LearnerOptions(encoder_norm=norm, encoder_size=32)
        net = make_learner("simple_cnaps", "resnet18_84", options=options)
        tensors, state = checkpoint.flatten({"learner": net.state_dict()})
        about = describe_learner(net, "simple_cnaps", LARGER, RECIPE.resizing, options).described()
        checkpoint.save(
            tmp_path / f"{norm}.safetensors", tensors, {"about": about, "state": state, "tasks": 1}
        )
        asked = (
            "--checkpoint",
            tmp_path / f"{norm}.safetensors",
            "--protocol",
            "fixed",
            "--way",
            2,
            "--shot",
            1,
        )
        small = (*asked, "--query", 1, "--tasks", 1)
        result = evaluated(root, tmp_path / norm, *small)
        assert result.learner["options"]["encoder_norm"] == norm
        macs[norm] = result.cost.macs
        in_chunks = "the set encoder's norms have the statistics of chunks of 40 images (--chunk)"
        assert (in_chunks in result.notes) == (norm == "batch")
    with pytest.raises(UsageError, match=r"other settings: encoder_norm was nothing and is \"batch\"\. "):
        evaluate(root, tmp_path / "example", *small)
    assert macs["example"] == macs["batch"]


# What is refused, and what help says


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--learner", "protonets", "--inner-lr", 0.1),
            "--inner-lr does not apply to protonets; leave it out",
        ),
        (
            ("--learner", "maml", "--inner-optimizer", "adam"),
            "--inner-optimizer does not apply to maml; leave it out",
        ),
        (("--learner", "finetuner", "--clamp", 10), "--clamp does not apply to finetuner; leave it out"),
        (
            ("--learner", "finetuner", "--one-shot", "official"),
            "--one-shot does not apply to finetuner; leave it out",
        ),
        (("--learner", "finetuner", "--inner-lr", -1), "--inner-lr is a positive number, or 0, got -1.0"),
        (("--learner", "finetuner", "--inner-lr", "nan"), "--inner-lr is a positive number, or 0, got nan"),
        (("--learner", "maml", "--inner-steps", -1), "--inner-steps is a positive number, or 0, got -1"),
    ],
)
def test_wrong_combinations_are_refused_in_one_line(
    shards: Path, tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    untrained = ("--backbone", "conv4", "--weights", "random", "--image-size", SIZE)
    with pytest.raises(UsageError) as refused:
        evaluate(shards, tmp_path / "out", *untrained, *options, *FIXED)
    assert str(refused.value) == message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", OPTION_NAMES)
def test_a_run_has_its_options_already(shards: Path, tmp_path: Path, option: str) -> None:
    other: dict[str, Any] = {"film_places": "bn1", "encoder_size": 32, "inner_steps": 3}
    numbers = dict.fromkeys(("inner_lr", "inner_backbone_lr", "clamp", "logistic_c"), 0.5)
    words = {
        "encoder_norm": "batch", "encoder_pixels": "imagenet", "backbone_norm": "batch", "one_shot": "official",
        "inner_optimizer": "adam", "inner_weighting": "paper",
    }  # fmt: skip
    value = {**other, **numbers, **words}[option]
    with pytest.raises(UsageError, match=rf"--checkpoint says what {flag_name(option)} says"):
        evaluate(shards, tmp_path, "--checkpoint", "x", flag_name(option), value, *FIXED)


def test_help_lists_the_options_among_those_of_the_learner(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    group = shown.partition("\nlearner:\n")[2].partition("\noptions of the protocol:\n")[0]
    assert all(f"\n  {flag_name(name)} " in group for name in OPTION_NAMES)
    assert "--orbit 2022    ORBIT 2022's baseline" in shown


def test_without_weights_they_are_the_pretrained_ones_and_a_failure_says_what_to_do(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    asked = ("--learner", "finetuner", "--image-size", SIZE, *FIXED)
    with pytest.raises(SourceMissing) as missing:
        evaluate(shards, tmp_path / "out", "--backbone", "efficientnet_b0", *asked)
    for part in ("could not be fetched", "no network", "--weights FILE", "sha256", "--weights random"):
        assert part in str(missing.value)
    with pytest.raises(PipelineError, match=r"conv4 has no weights to fetch.*--weights random"):
        evaluate(shards, tmp_path / "out", "--backbone", "conv4", *asked)
    assert not (tmp_path / "out").exists()
