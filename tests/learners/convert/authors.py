"""The authors' learners as files, and the logits that their codes compute."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import timm
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from pipeline.pixels import IMAGENET, SYMMETRIC, PixelNormalisation
from tests.learners.convert.official import Adapter, EfficientNetB0, Generator2022, PrePoolNet, SmallResNet
from tests.learners.convert.official_heads import (
    LinearGenerator2021,
    cosine_logits,
    mahalanobis_logits,
    prototype_logits,
)
from tests.learners.tasks import pixels

CLIP_PIXELS = PixelNormalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
EXTRACTORS: dict[str, Callable[[], nn.Module]] = {
    "lite/efficientnet_b0": lambda: EfficientNetB0(0),
    "lite/efficientnet_b0_84": lambda: EfficientNetB0(0),
    "orbit-2021/efficientnet_b0": lambda: EfficientNetB0(7),
    "orbit-2021/resnet18": lambda: SmallResNet(7, pool=True),
    "orbit-2021/resnet18_84": lambda: SmallResNet(5, pool=False),
    "orbit-2022/efficientnet_b0": lambda: timm.create_model("tf_efficientnet_b0", num_classes=0),
    "orbit-2022/tf_efficientnetv2_s.in21k": lambda: timm.create_model("tf_efficientnetv2_s", num_classes=0),
    "orbit-2022/vit_small_patch32_224.augreg_in21k": lambda: timm.create_model(
        "vit_small_patch32_224", num_classes=0
    ),
    "orbit-2022/vit_base_patch32_224.augreg_in21k": lambda: timm.create_model(
        "vit_base_patch32_224", num_classes=0
    ),
    "orbit-2022/vit_base_patch32_clip_224.laion2b": lambda: timm.create_model(
        "vit_base_patch32_clip_224", num_classes=0
    ),
}
PIXELS_2022 = {"efficientnet_b0": IMAGENET, "vit_base_patch32_clip_224.laion2b": CLIP_PIXELS}
ADAPTERS = {
    "lite": "feature_adaptation_network",
    "orbit-2021": "feature_adapter",
    "orbit-2022": "film_generator",
}
ENCODERS = {"lite": "pre_pooling_fn", "orbit-2021": "encoding_fn", "orbit-2022": "encoder"}


def film_parameters(net: nn.Module) -> dict[str, Tensor]:
    """The norms that take FiLM since 2022, by the kinds of modules that they stand in."""
    names = []
    for name, module in net.named_modules():
        kind = type(module).__name__
        own = {"InvertedResidual": ["bn2"], "EdgeResidual": ["bn1"], "ConvBnAct": ["bn1"],
               "EfficientNet": ["bn1", "bn2"], "Block": ["norm1", "norm2"], "VisionTransformer": ["norm"]}  # fmt: skip
        names += [f"{name}.{norm}".lstrip(".") for norm in own.get(kind, ())]
    parameters = dict(net.named_parameters())
    return {f"{name}.{part}": parameters[f"{name}.{part}"] for name in names for part in ("weight", "bias")}


@dataclass(eq=False)
class AuthorsLearner:
    """A learner as one of the official codes makes it, in float32 with random weights."""

    format: str
    learner: str
    backbone: str
    net: nn.Module = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(3)
        self.net = nn.Module()
        extractor = EXTRACTORS[f"{self.format}/{self.backbone}"]()
        randomise(extractor)
        if self.learner in ("maml", "finetuner"):
            shorten(extractor)
        self.net.feature_extractor = extractor
        dim = 512 if isinstance(extractor, SmallResNet) else getattr(extractor, "num_features", 1280)
        if self.learner in ("cnaps", "simple_cnaps"):
            encoder = PrePoolNet()
            randomise(encoder)
            self.net.set_encoder = nn.ModuleDict({ENCODERS[self.format]: encoder})
            self.net.add_module(ADAPTERS[self.format], self._generator(extractor))
        if self.learner == "cnaps":
            self.net.classifier = LinearGenerator2021(dim)
        if self.learner == "finetuner" and self.format == "orbit-2021":
            self.net.classifier = nn.ModuleDict({"linear": nn.Linear(dim, 9)})

    def _generator(self, extractor: nn.Module) -> nn.Module:
        if self.format == "orbit-2022":
            return Generator2022(film_parameters(extractor))
        assert isinstance(extractor, EfficientNetB0 | SmallResNet)
        shape = (4, 2) if isinstance(extractor, SmallResNet) else (1, 1)
        return Adapter(extractor.film_sizes, *shape)

    @property
    def state(self) -> dict[str, Tensor]:
        """What the authors' code saves."""
        return {name: tensor.clone() for name, tensor in self.net.state_dict().items()}

    @property
    def pixels(self) -> PixelNormalisation:
        if self.format == "orbit-2022":
            return PIXELS_2022.get(self.backbone, SYMMETRIC)
        return SYMMETRIC if self.format == "lite" else IMAGENET

    def prepare(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in self.pixels)
        return (images.float() / 255 - mean) / std

    def logits(
        self, images: Tensor, labels: Tensor, queries: Tensor, order: Tensor, *, clip: int, batch: int
    ) -> Tensor:
        """Logits of queries.

        order: in which their set encoder sees the images. batch: the images that their code passes at a time.
        """
        support, asked = self.prepare(images), self.prepare(queries)
        if self.learner in ("maml", "finetuner"):
            return self._descend(support, labels, asked, clip, batch)
        with torch.no_grad():
            film = self._film(support, order, batch)
            features, found = (pool(self._features(x, film), clip) for x in (support, asked))
            if self.learner == "cnaps":
                made: Tensor = self.net.get_submodule("classifier")(features, labels, found)
                return made
            heads = {"protonets": prototype_logits, "protonets_cosine": cosine_logits,
                     "simple_cnaps": mahalanobis_logits}  # fmt: skip
            return heads[self.learner](features, labels, found)

    def _film(self, support: Tensor, order: Tensor, batch: int) -> object:
        if self.learner not in ("cnaps", "simple_cnaps"):
            return None
        self.net.eval()
        encoder = self.net.get_submodule(f"set_encoder.{ENCODERS[self.format]}")
        before = {name: tensor.clone() for name, tensor in encoder.named_buffers()}
        encoder.train(self.format != "orbit-2022")  # statistics of the batch, in testing too, before 2022
        shown = support[order]
        embedding = torch.cat([encoder(part) for part in torch.split(shown, batch)]).mean(0)
        encoder.load_state_dict(before, strict=False)
        return self.net.get_submodule(ADAPTERS[self.format])(embedding)

    def _features(self, x: Tensor, film: object) -> Tensor:
        extractor = self.net.get_submodule("feature_extractor").eval()
        if isinstance(film, dict):
            features: Tensor = functional_call(extractor, film, (x,))
        else:
            features = extractor(x) if film is None else extractor(x, film)
        return features

    def _descend(self, support: Tensor, labels: Tensor, asked: Tensor, clip: int, batch: int) -> Tensor:
        extractor = self.net.get_submodule("feature_extractor").eval()
        before = {name: tensor.clone() for name, tensor in extractor.state_dict().items()}
        way = len(torch.unique(labels))
        linear = nn.Linear(pool(extractor(asked), clip).shape[1], way)
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
        groups = [{"params": linear.parameters(), "lr": 0.001}]
        if self.learner == "maml":
            groups.append({"params": extractor.parameters(), "lr": 0.0001})
        elif self.format == "orbit-2021":
            groups[0]["lr"] = 0.1
        kind = torch.optim.Adam if self.format == "orbit-2022" else torch.optim.SGD
        optimizer = kind(groups)
        with torch.no_grad():
            frozen = [pool(extractor(part), clip) for part in torch.split(support, batch)]
        for _ in range(15 if self.learner == "maml" else 50):
            for at, answers in enumerate(torch.split(labels, batch // clip)):
                features = frozen[at]
                if self.learner == "maml":
                    features = pool(extractor(torch.split(support, batch)[at]), clip)
                loss = functional.cross_entropy(linear(features), answers)
                share = len(answers) / len(labels) if self.format == "orbit-2022" else 1.0
                torch.autograd.backward(loss * share)
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            logits: Tensor = linear(pool(extractor(asked), clip))
        extractor.load_state_dict(before)
        return logits


def pool(features: Tensor, clip: int) -> Tensor:
    """The mean over the frames of each clip."""
    return features.reshape(-1, clip, features.shape[-1]).mean(1)


def randomise(net: nn.Module) -> None:
    """Norms that differ from the identity, and statistics of features that neither vanish nor explode."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    net.train()
    with torch.no_grad():
        net(example_images(net))
    net.eval()


def example_images(net: nn.Module) -> Tensor:
    """Images of the kind that the tests compare on, and larger: features neither vanish nor explode then."""
    (side, _) = getattr(getattr(net, "patch_embed", None), "img_size", (64, 64))
    return pixels(range(12), 5, side) / 127.5 - 1


def shorten(net: nn.Module) -> None:
    """Features of a length at which descent is stable: otherwise it multiplies rounding errors."""
    with torch.no_grad():
        length = net(example_images(net)).norm(dim=1).mean()
        for name, norm in net.named_modules():
            if re.fullmatch(r"_bn1|norm|layer4\.(\d\.bn2|0\.downsample\.1)", name):
                norm.weight.div_(length)
                norm.bias.div_(length)


def without_constant(logits: Tensor) -> Tensor:
    """Logits up to what all classes of a query have in common, which changes no probability."""
    return logits.double() - logits.double().mean(1, keepdim=True)
