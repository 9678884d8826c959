from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from learners.networks import backbone, save_weights
from pipeline.errors import IntegrityError, SourceMissing
from pipeline.pixels import PixelNormalisation
from tests.learners.small import pictures, scramble


def made() -> dict[str, Tensor]:
    """The weights of a conv4 that no other conv4 has."""
    torch.manual_seed(7)
    net = backbone("conv4").net
    scramble(net)
    return {
        name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in net.state_dict().items()
    }


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "wrapped.pth", "gpus.pth", "head.pth"])
def test_weights_come_from_safetensors_and_from_torch(name: str, tmp_path: Path) -> None:
    tensors = made()
    if name.endswith(".safetensors"):
        save_file(tensors, tmp_path / name)
    elif name == "wrapped.pth":
        torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / name)
    elif name == "gpus.pth":
        torch.save({f"module.{key}": tensor for key, tensor in tensors.items()}, tmp_path / name)
    else:
        head = {"classifier.weight": torch.zeros(9, 64)} if name == "head.pth" else {}
        torch.save(tensors | head, tmp_path / name)
    net = backbone("conv4", weights=tmp_path / name, film=True).net
    assert net.state_dict().keys() == tensors.keys()
    assert all(torch.equal(value, tensors[key]) for key, value in net.state_dict().items())


def test_normalisation_travels_with_the_weights(tmp_path: Path) -> None:
    mine = PixelNormalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    net = backbone("resnet18_84", normalisation=mine)
    save_weights(tmp_path / "w.safetensors", net)
    again = backbone("resnet18_84", weights=tmp_path / "w.safetensors")
    assert again.normalisation == mine
    assert torch.equal(again(pictures(1, 40)), net(pictures(1, 40)))
    save_file(made(), tmp_path / "odd.safetensors", {"normalisation": "[[1, 2], 3]"})
    with pytest.raises(IntegrityError, match="three means and three deviations"):
        backbone("conv4", weights=tmp_path / "odd.safetensors")


def test_names_that_are_missing_or_too_many_and_wrong_shapes_are_named(tmp_path: Path) -> None:
    tensors = made()
    tensors["stranger.weight"] = tensors.pop("blocks.2.conv.weight")
    tensors["blocks.0.conv.weight"] = torch.zeros(64, 1, 3, 3)
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(IntegrityError) as caught:
        backbone("conv4", weights=tmp_path / "w.safetensors")
    message = str(caught.value)
    assert "lacks blocks.2.conv.weight" in message
    assert "has stranger.weight" in message
    assert "blocks.0.conv.weight has the shape [64, 1, 3, 3] and not [64, 3, 3, 3]" in message


def test_weights_of_another_network_are_refused_in_one_short_message(tmp_path: Path) -> None:
    save_weights(tmp_path / "w.safetensors", backbone("conv4"))
    with pytest.raises(IntegrityError, match=r"lacks .* and \d+ more; it has blocks") as caught:
        backbone("resnet18", weights=tmp_path / "w.safetensors")
    assert len(str(caught.value)) < 700


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('run')",)


def test_nothing_in_a_file_of_weights_is_run(tmp_path: Path) -> None:
    for name, data in (("w.pth", Evil()), ("dict.pth", {"blocks.0.conv.weight": Evil()})):
        (tmp_path / name).write_bytes(pickle.dumps(data))
        torch.save(data, tmp_path / f"zip-{name}")
        for path in (tmp_path / name, tmp_path / f"zip-{name}"):
            with pytest.raises(IntegrityError, match="nothing else in it is run"):
                backbone("conv4", weights=path)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
@pytest.mark.parametrize("keep", [0, 7, 1000, -1])
def test_a_file_cut_short_is_refused(name: str, keep: int, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith(".pth"):
        torch.save(made(), path)
    else:
        save_file(made(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(IntegrityError, match=name):
        backbone("conv4", weights=path)


def test_a_file_that_is_not_there_and_one_of_other_things_are_refused(tmp_path: Path) -> None:
    for name in ("no.pth", "no.safetensors"):
        with pytest.raises(SourceMissing, match="no such file"):
            backbone("conv4", weights=tmp_path / name)
    torch.save([1, 2, 3], tmp_path / "list.pth")
    with pytest.raises(IntegrityError, match="names and tensors"):
        backbone("conv4", weights=tmp_path / "list.pth")


def test_weights_with_nan_are_refused(tmp_path: Path) -> None:
    tensors = made()
    tensors["blocks.1.norm.weight"][3] = torch.nan
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(IntegrityError, match=r"blocks.1.norm.weight holds NaN"):
        backbone("conv4", weights=tmp_path / "w.safetensors")


def test_counters_of_batches_may_be_missing(tmp_path: Path) -> None:
    net = backbone("resnet18_84")
    tensors = {name: t.contiguous() for name, t in net.net.state_dict().items() if "num_batches" not in name}
    save_file(tensors, tmp_path / "w.safetensors")
    again = backbone("resnet18_84", weights=tmp_path / "w.safetensors")
    assert torch.equal(again(pictures(1, 40)), net(pictures(1, 40)))


def test_the_papers_names_of_efficientnets_parameters_are_known(tmp_path: Path) -> None:
    """Every parameter of the `efficientnet_pytorch` package, in the order that it has them."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = ["_conv_stem.weight", *(f"_bn0.{kind}" for kind in norm)]
    for block in range(16):
        for part in (
            *(("_expand_conv", "_bn0") if block else ()),
            *("_depthwise_conv", "_bn1", "_se_reduce", "_se_expand", "_project_conv", "_bn2"),
        ):
            kinds = norm if "bn" in part else ("weight", "bias") if "_se_" in part else ("weight",)
            names += [f"_blocks.{block}.{part}.{kind}" for kind in kinds]
    names += ["_conv_head.weight", *(f"_bn1.{kind}" for kind in norm), "_fc.weight", "_fc.bias"]
    torch.manual_seed(3)
    net = backbone("efficientnet_b0")
    scramble(net)
    tensors = [*net.net.state_dict().values(), torch.zeros(1000, 1280), torch.zeros(1000)]
    theirs = dict(zip(names, tensors, strict=True))  # timm has them in the same order
    torch.save(theirs, tmp_path / "b0.pth")
    again = backbone("efficientnet_b0", weights=tmp_path / "b0.pth")
    for key, value in net.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
