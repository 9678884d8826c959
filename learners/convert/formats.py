"""The published checkpoints: what the official codes call the parts of a learner, and the networks they know.

lite        cambridge-mlg/LITE: Simple CNAPs on VTAB+MD
orbit-2021  microsoft/ORBIT-Dataset, tag results-neurips21-paper: the rows of the LITE paper's Table 1
orbit-2022  microsoft/ORBIT-Dataset since 2022: other backbones, of timm, and FiLM written into the norms
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

from learners.methods.options import LearnerOptions
from pipeline.pixels import IMAGENET, SYMMETRIC, PixelNormalisation

FormatName: TypeAlias = Literal["lite", "orbit-2021", "orbit-2022"]
EXTRACTOR: Final = "feature_extractor."
LARGE, SMALL = 224, 84  # pixels a side


@dataclass(frozen=True, kw_only=True, slots=True)
class OfficialBackbone:
    """A backbone of an official code, and the parameter that tells it from the others."""

    mark: str
    """A parameter's name, after `feature_extractor.`."""
    shape: tuple[int, ...]
    """The shape of that parameter."""
    image_size: int = LARGE
    normalisation: PixelNormalisation = IMAGENET
    film_places: str = ""
    """Where its code puts FiLM, if not where ours does; see `LearnerOptions`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OfficialFormat:
    """The names of one official code."""

    name: FormatName
    encoder: str
    """Before the names of the set encoder's parameters."""
    generator: str
    """Before the names of the FiLM generator's parameters."""
    backbones: Mapping[str, OfficialBackbone]
    """By our names; the first whose mark fits is that of a file."""
    extractor_learners: tuple[str, ...]
    """The learners whose files hold a feature extractor and nothing else."""
    options: Mapping[str, LearnerOptions]
    """By learner: what makes it the authors'."""


def _cnaps_options(**own: object) -> dict[str, LearnerOptions]:
    cnaps = LearnerOptions(encoder_size=0, **own)  # type: ignore[arg-type]
    return {"cnaps": cnaps, "simple_cnaps": LearnerOptions(encoder_size=0, one_shot="official", **own)}  # type: ignore[arg-type]


_STEM: Final = "_conv_stem.weight"  # of the package that the codes of 2021 took EfficientNet from
_TIMM_STEM: Final = "conv_stem.weight"
_PATCHES: Final = "patch_embed.proj.weight"
_VIT_PLACES: Final = r"norm|blocks\.\d+\.norm[12]"
_CLIP: Final = PixelNormalisation((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))

LITE_FORMAT: Final = OfficialFormat(
    name="lite",
    encoder="set_encoder.pre_pooling_fn.",
    generator="feature_adaptation_network.",
    backbones={
        "efficientnet_b0": OfficialBackbone(mark=_STEM, shape=(32, 3, 3, 3), normalisation=SYMMETRIC),
        "efficientnet_b0_84": OfficialBackbone(
            mark=_STEM, shape=(32, 3, 3, 3), image_size=SMALL, normalisation=SYMMETRIC
        ),
    },
    extractor_learners=(),
    options=_cnaps_options(encoder_norm="batch"),
)
ORBIT_2021_FORMAT: Final = OfficialFormat(
    name="orbit-2021",
    encoder="set_encoder.encoding_fn.",
    generator="feature_adapter.",
    backbones={
        "efficientnet_b0": OfficialBackbone(mark=_STEM, shape=(32, 3, 3, 3)),
        "resnet18": OfficialBackbone(mark="conv1.weight", shape=(64, 3, 7, 7)),
        "resnet18_84": OfficialBackbone(mark="conv1.weight", shape=(64, 3, 5, 5), image_size=SMALL),
    },
    extractor_learners=("protonets", "maml", "finetuner"),
    options={
        **_cnaps_options(encoder_norm="batch", encoder_pixels="imagenet"),
        "maml": LearnerOptions(inner_weighting="paper", clamp=10.0),
        "finetuner": LearnerOptions(inner_weighting="paper"),
    },
)
ORBIT_2022_FORMAT: Final = OfficialFormat(
    name="orbit-2022",
    encoder="set_encoder.encoder.",
    generator="film_generator.",
    backbones={
        "efficientnet_b0": OfficialBackbone(
            mark=_TIMM_STEM, shape=(32, 3, 3, 3), film_places=r"bn[12]|blocks\.[1-6]\.\d+\.bn2"
        ),
        "tf_efficientnetv2_s.in21k": OfficialBackbone(
            mark=_TIMM_STEM, shape=(24, 3, 3, 3), normalisation=SYMMETRIC,
            film_places=r"bn[12]|blocks\.[0-2]\.\d+\.bn1|blocks\.[3-5]\.\d+\.bn2",
        ),
        "vit_small_patch32_224.augreg_in21k": OfficialBackbone(
            mark=_PATCHES, shape=(384, 3, 32, 32), normalisation=SYMMETRIC, film_places=_VIT_PLACES
        ),
        "vit_base_patch32_clip_224.laion2b": OfficialBackbone(
            mark="norm_pre.weight", shape=(768,), normalisation=_CLIP, film_places=_VIT_PLACES
        ),
        "vit_base_patch32_224.augreg_in21k": OfficialBackbone(
            mark=_PATCHES, shape=(768, 3, 32, 32), normalisation=SYMMETRIC, film_places=_VIT_PLACES
        ),
    },
    extractor_learners=("protonets", "protonets_cosine", "finetuner"),
    options={
        **_cnaps_options(encoder_norm="stored", encoder_pixels="backbone"),
        "finetuner": LearnerOptions(inner_optimizer="adam"),
    },
)  # fmt: skip
FORMATS: Final[Mapping[str, OfficialFormat]] = MappingProxyType(
    {one.name: one for one in (LITE_FORMAT, ORBIT_2021_FORMAT, ORBIT_2022_FORMAT)}
)
