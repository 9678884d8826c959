"""`python -m learners.convert` on files as the authors publish them, and on files that are something else."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from learners import Learner
from learners.convert.__main__ import main
from pipeline.command import run_command
from tests.learners.convert.authors import AuthorsLearner
from tests.learners.small import make_run


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """ORBIT's ProtoNets with a ResNet-18 for 84 pixels."""
    return AuthorsLearner("orbit-2021", "protonets", "resnet18_84").state


@pytest.fixture(scope="module")
def simple_cnaps() -> dict[str, Tensor]:
    """LITE's learner, whose parameters do not depend on the size of its images."""
    return AuthorsLearner("lite", "simple_cnaps", "efficientnet_b0").state


def saved(folder: Path, values: object, name: str = "file.pth") -> Path:
    torch.save(values, folder / name)
    return folder / name


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """The exit code, and what was printed."""
    code = run_command(main, [str(argument) for argument in arguments])
    shown = capsys.readouterr()
    return code, shown.out + shown.err


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    """The one line that refuses a request, which must leave nothing behind."""
    found, text = run(capsys, *arguments, "--out", "out")
    assert found == code, text
    assert text.startswith("error: ")
    assert text.count("\n") == 1
    assert not Path("out").exists()
    return text


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_published_name_says_the_learner_and_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], state: Mapping[str, Tensor]
) -> None:
    file = saved(tmp_path, state, "orbit_cluve_protonets_resnet18_84.pth")
    code, text = run(capsys, file)
    assert code == 0, text
    assert "protonets with resnet18_84 at 84 px, of orbit-2021" in text
    folder = tmp_path / "runs/orbit_cluve_protonets_resnet18_84"
    assert json.loads((folder / "converted.json").read_text())["file"] == file.name
    learner = Learner.load(folder)
    assert (learner.info.learner, learner.info.backbone, learner.info.image_size) == (
        "protonets", "resnet18_84", 84,
    )  # fmt: skip
    assert run(capsys, file)[0] == 0  # again, into the same folder


def test_the_authors_options_are_in_the_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], simple_cnaps: Mapping[str, Tensor]
) -> None:
    file = saved(tmp_path, {"model_state_dict": simple_cnaps, "iteration": 5}, "meta-trained_84.pt")
    assert run(capsys, file, "--out", "out")[0] == 0
    info = Learner.load("out").info
    assert (info.backbone, info.image_size) == ("efficientnet_b0_84", 84)
    assert (info.options.encoder_norm, info.options.encoder_size) == ("batch", 0)
    assert (info.options.encoder_pixels, info.options.one_shot) == ("symmetric", "official")
    assert info.normalisation.mean == (0.5, 0.5, 0.5)


def test_what_a_file_cannot_say_is_asked_for(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    state: Mapping[str, Tensor],
    simple_cnaps: Mapping[str, Tensor],
) -> None:
    file = saved(tmp_path, state)
    assert "protonets, maml, finetuner have; say with --learner" in refused(capsys, 2, file)
    assert run(capsys, file, "--learner", "maml")[0] == 0
    lite = saved(tmp_path, simple_cnaps, "lite.pt")
    assert "--image-size whether it was trained at 224 or 84 pixels" in refused(capsys, 2, lite)
    assert run(capsys, lite, "--backbone", "efficientnet_b0")[0] == 0
    assert "efficientnet_b0_84 at 112 px" in run(capsys, lite, "--image-size", 112)[1]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--learner", "cnaps"], "by its names .* is of protonets or maml or finetuner"),
        (["--learner", "maml", "--backbone", "resnet18"], "--backbone resnet18: .* holds resnet18_84"),
        (["--learner", "maml", "--image-size", "224"], "the resnet18_84 in .* is of 84 px"),
        (["--format", "lite"], "by its names .* is of orbit-2021"),
    ],
)
def test_a_flag_that_contradicts_the_file_is_refused(
    flags: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    state: Mapping[str, Tensor],
) -> None:  # fmt: skip
    text = refused(capsys, 2, saved(tmp_path, state), *flags)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(text)


class RunsCode:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("hacked",)


@pytest.mark.parametrize("kind", ["torch", "old torch", "pickle"])
def test_a_pickle_with_code_is_refused_and_not_run(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], state: Mapping[str, Tensor]
) -> None:
    file = tmp_path / "file.pth"
    values = {**state, "hidden": RunsCode()}
    if kind == "pickle":
        file.write_bytes(pickle.dumps({"hidden": RunsCode()}, protocol=2))
    else:
        torch.save(values, file, _use_new_zipfile_serialization=kind == "torch")
    text = refused(capsys, 4, file, "--learner", "protonets")
    assert "cannot be read as weights alone, and nothing else in it is run: it asks Python for" in text
    assert not Path("hacked").exists()


@pytest.mark.parametrize("kind", ["torch", "old torch"])
def test_a_truncated_file_is_refused(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], state: Mapping[str, Tensor]
) -> None:
    torch.save(state, tmp_path / "whole.pth", _use_new_zipfile_serialization=kind == "torch")
    whole = (tmp_path / "whole.pth").read_bytes()
    for size in (0, 7, len(whole) // 2, len(whole) - 100):
        (tmp_path / "cut.pth").write_bytes(whole[:size])
        assert "fetch a damaged file again" in refused(capsys, 4, "cut.pth", "--learner", "protonets")
    assert "no such file" in refused(capsys, 3, "absent.pth")


def test_every_missing_superfluous_and_misshapen_tensor_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], state: Mapping[str, Tensor]
) -> None:
    changed = dict(state)
    changed.pop("feature_extractor.layer3.1.bn2.bias")
    changed["feature_extractor.layer9.weight"] = torch.zeros(2)
    changed["feature_extractor.layer1.0.conv1.weight"] = torch.zeros(64, 64, 1, 1)
    changed["feature_extractor.bn1.weight"] = torch.full((64,), torch.nan)
    text = refused(capsys, 4, saved(tmp_path, changed), "--learner", "protonets")
    for words in (
        "does not fit protonets with resnet18_84 of orbit-2021: it lacks feature_extractor.layer3.1.bn2.bias",
        "it has feature_extractor.layer9.weight, which that has not",
        "layer1.0.conv1.weight has the shape [64, 64, 1, 1] and not [64, 64, 3, 3]",
        "bn1.weight holds NaN or infinity",
    ):
        assert words in text


def test_a_film_generator_with_a_tensor_too_few_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], simple_cnaps: Mapping[str, Tensor]
) -> None:
    changed = dict(simple_cnaps)
    name = "feature_adaptation_network.layers.17.beta_regularizers.0"
    del changed[name]
    text = refused(capsys, 4, saved(tmp_path, changed), "--image-size", 224)
    assert f"it lacks {name}" in text


def test_files_of_something_else_say_what_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], state: Mapping[str, Tensor]
) -> None:
    other = {"feature_extractor.features.0.weight": torch.zeros(1)}
    assert "none of the codes lite, orbit-2021, orbit-2022" in refused(capsys, 4, saved(tmp_path, other))
    wide = {**state, "feature_extractor.conv1.weight": torch.zeros(64, 3, 3, 3)}
    text = refused(capsys, 4, saved(tmp_path, wide), "--learner", "maml")
    assert "another backbone than efficientnet_b0, resnet18, resnet18_84" in text
    alone = {name.removeprefix("feature_extractor."): tensor for name, tensor in state.items()}
    assert "weights of a backbone alone go to --weights" in refused(capsys, 4, saved(tmp_path, alone))
    assert "names and tensors" in refused(capsys, 4, saved(tmp_path, {"epoch": 3}))
    film = {**state, "feature_adapter.layers.0.gammas.0.0": torch.zeros(64)}
    assert "FiLM that was learned" in refused(capsys, 2, saved(tmp_path, film))


def test_a_checkpoint_of_ours_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ours = make_run(tmp_path / "runs/own") / "last.safetensors"
    assert "a checkpoint of this project already" in refused(capsys, 2, ours)
    renamed = ours.rename(tmp_path / "own.pt")
    assert "a checkpoint of this project already" in refused(capsys, 2, renamed)
    assert "is a folder" in refused(capsys, 2, tmp_path / "runs/own")


def test_a_run_of_train_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], state: Mapping[str, Tensor]
) -> None:
    own = make_run(tmp_path / "runs/own")
    before = (own / "last.safetensors").read_bytes()
    code, text = run(capsys, saved(tmp_path, state), "--learner", "protonets", "--out", own)
    assert code == 2
    assert "holds a run of train.py; name another folder" in text
    assert (own / "last.safetensors").read_bytes() == before
