"""MobileNetV1 with the weights that TensorFlow's authors trained names what real photographs show."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from learners.networks import backbone
from learners.networks.film import identity_film
from pipeline.pixels import SYMMETRIC
from pipeline.sources.facts import fact_rows

WEIGHTS = "weights/mobilenetv1_075_224.safetensors"


def photographs(path: Path) -> tuple[Tensor, list[str]]:
    """All photographs, 256 pixels on the shorter side and cut to 224, and their WordNet ids."""
    images, names = [], []
    with tarfile.open(path) as tar:
        for member in tar:
            handle = tar.extractfile(member) if member.isfile() else None
            if handle is None:
                continue
            picture = Image.open(io.BytesIO(handle.read())).convert("RGB")
            scale = 256 / min(picture.size)
            width, height = (round(side * scale) for side in picture.size)
            picture = picture.resize((width, height), Image.Resampling.BILINEAR)
            left, top = (width - 224) // 2, (height - 224) // 2
            images.append(np.asarray(picture.crop((left, top, left + 224, top + 224))))
            names.append(Path(member.name).name.partition("_")[0])
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), names


@torch.no_grad()
def test_real_weights_name_what_real_photographs_show(real_data: Path) -> None:
    net = backbone("mobilenetv1_075", weights=real_data / WEIGHTS, film=True)
    assert net.normalisation == SYMMETRIC
    images, names = photographs(real_data / "photos" / "photos.tar")
    classes = sorted(row[0] for row in fact_rows("ilsvrc_2012") if int(row[1]))
    truth = torch.tensor([classes.index(name) for name in names])
    features = torch.cat([net(part) for part in torch.split(images, 32)])
    classifier = load_file(real_data / WEIGHTS)
    logits = features @ classifier["classifier.weight"].T + classifier["classifier.bias"]
    right = (logits.argmax(1) == truth).float().mean().item()
    print(f"top-1 on {len(names)} photographs: {right:.1%}")
    assert len(names) == 160
    assert right > 0.75
    film = identity_film(net.film_channels, features)
    assert torch.equal(net(images[:4], film), net(images[:4]))
    assert torch.allclose(net(images[5:6]), features[5:6], atol=1e-4)
