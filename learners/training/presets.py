"""Presets: the settings of published runs by name, each beside what the papers' own codes have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from pipeline.errors import check_choice

LITE_REPOSITORY: Final = "github.com/cambridge-mlg/LITE, 6e6499b"
ORBIT_2021_CODE: Final = "github.com/microsoft/ORBIT-Dataset, tag results-neurips21-paper"
ORBIT_2022_CODE: Final = "github.com/microsoft/ORBIT-Dataset, master, 97ccae1"


class PresetSetting(NamedTuple):
    """A setting of `train.py`, and what the official code has there."""

    value: Any
    official: str


class PresetDifference(NamedTuple):
    """What remains different from the official run; docs/reproduce-the-paper.md has reason and effect by topic."""

    topic: str
    text: str


Settings = Mapping[str, PresetSetting]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingPreset:
    """Settings of `train.py` by name, which flags override."""

    summary: str
    code: str
    """Where the official values come from."""
    settings: Settings
    by_learner: Mapping[str, Settings]
    """What differs for each learner that the preset covers; the first learner is the default."""
    differences: tuple[PresetDifference, ...] = ()

    def chosen(self, learner: str) -> dict[str, PresetSetting]:
        """The settings for a learner; "" is the first one."""
        name = learner or next(iter(self.by_learner))
        check_choice(name, tuple(self.by_learner), f"with this preset ({self.summary}) --learner")
        return {**self.settings, "learner": PresetSetting(name, name), **self.by_learner[name]}

    def values(self, learner: str) -> dict[str, Any]:
        """The values of these settings."""
        return {name: setting.value for name, setting in self.chosen(learner).items()}


def _settings(**pairs: tuple[Any, str]) -> Settings:
    return MappingProxyType({name: PresetSetting(*pair) for name, pair in pairs.items()})


VTAB_MD_TRAINING: Final = (
    "ilsvrc_2012_v2", "omniglot", "aircraft", "cu_birds", "dtd", "quickdraw", "fungi", "mnist",
)  # fmt: skip
VTAB_MD_VALIDATION: Final = ("omniglot", "aircraft", "cu_birds", "dtd", "quickdraw", "fungi", "mscoco")
RANDOM_NUMBERS: Final = PresetDifference(
    "random numbers", "episodes, H and first weights are drawn by other generators, by the same laws"
)
RESIZING: Final = PresetDifference(
    "resizing of Meta-Dataset's images", "Lanczos with antialiasing; theirs is bilinear without"
)
WEIGHTS_FILE: Final = PresetDifference(
    "file of the ImageNet weights", "timm's conversion of the AutoAugment checkpoint; theirs is another file"
)
LAST_IMAGE: Final = PresetDifference(
    "last image in validation and testing",
    "a support set of 40 k + 1 images ends with a batch of one; theirs counts that image twice",
)
LITE_CODE: Final = _settings(
    backbone=("efficientnet_b0", "efficientnet-b0"),
    weights=("pretrained", "efficientnet-b0-355c32eb.pth"),
    pixels=("symmetric", "-1 to 1"),
    image_size=(224, "--image_size 224"),
    datasets=(VTAB_MD_TRAINING, "these 8, ImageNet with all 1,000 classes"),
    hierarchy=("superclass", "Omniglot by alphabet, ImageNet flat"),
    max_way=(50, "--max_way_train 50"),
    max_support=(500, "--max_support_train 500"),
    query=(10, "at most 10 of a class"),
    h=(40, "--h 40"),
    sampler=("paper-lite", "uniform, new for each query batch, no N/H"),
    chunk=(40, "--batch_size 40"),
    penalty=(0.001, "0.001 with each query batch, undivided"),
    encoder_norm=("batch", "BatchNorm, always in training mode"),
    encoder_size=(0, "the images' size"),
    encoder_pixels=("symmetric", "-1 to 1"),
    one_shot=("official", "a scalar variance for a class of one image"),
    tasks=(10_000, "--training_iterations 10000"),
    tasks_per_step=(16, "--tasks_per_step 16"),
    lr=(1e-3, "--learning_rate 0.001, Adam"),
    validate_every=(5_000, "--val_freq 5000"),
    validate_at_end=(False, "not after the last iteration"),
    validation_tasks=(200, "200 tasks of a dataset"),
    validation_datasets=(VTAB_MD_VALIDATION, "these 7"),
    validation_max_way=(50, "max_way_test 50"),
    validation_max_support=(500, "max_support_test 500"),
)
LITE_DIFFERENCES: Final = (RANDOM_NUMBERS, RESIZING, WEIGHTS_FILE, LAST_IMAGE)
NOTHING: Final = _settings()
ORBIT_COMMON: Final = _settings(
    datasets=(("orbit",), "the benchmark's training users"),
    validation_datasets=(("orbit",), "its validation users"),
    mode=("clu-ve", "--target_video_type clutter"),
    image_size=(224, "--frame_size 224"),
    backbone=("efficientnet_b0", "efficientnet-b0"),
    pixels=("imagenet", "ImageNet's statistics"),
    sampler=("paper-orbit", "uniform, new for each query batch, times N/H"),
    tasks_per_step=(16, "--tasks_per_batch 16"),
    tasks_per_epoch=(2_200, "50 tasks of 44 users, a short step at the end"),
    validate_every=(2_200, "an epoch"),
)
ORBIT_ENCODER: Final = _settings(
    penalty=(0.001, "0.001 with each query batch, undivided"),
    encoder_size=(0, "the images' size"),
    encoder_pixels=("imagenet", "ImageNet's statistics"),
)
ORBIT_ONE_SHOT: Final = _settings(one_shot=("official", "a scalar variance for a class of one clip"))
ORBIT_2021_ENCODER: Final = {
    **ORBIT_ENCODER, **_settings(encoder_norm=("batch", "BatchNorm, always in training mode"))
}  # fmt: skip
ORBIT_2022_ENCODER: Final = {
    **ORBIT_ENCODER,
    **_settings(
        encoder_norm=("stored", "BatchNorm, never in training mode"),
        film_places=(r"bn1|bn2|blocks\.[1-6]\.\d+\.bn2", "17 norms: not that of the first block"),
    ),
}
TRAINED_EXTRACTOR: Final = _settings(backbone_norm=("batch", "--learn_extractor: BatchNorm in training mode"))
VIDEO_MEAN: Final = PresetDifference(
    "mean of ORBIT's validation",
    "the mean over tasks of the mean over their videos; theirs is over all videos",
)
PRESETS: Final[Mapping[str, TrainingPreset]] = {
    "lite-vtab-md": TrainingPreset(
        summary="LITE on VTAB+MD at 224 px, |H| = 40 (Table 2 and Figure 3)",
        code=f"{LITE_REPOSITORY}: run.py, its defaults",
        settings=LITE_CODE,
        by_learner={"simple_cnaps": NOTHING},
        differences=LITE_DIFFERENCES,
    ),
    "lite-vtab-md-84": TrainingPreset(
        summary="the 84-px run without LITE that Table 2 compares with; needs --weights efficientnet-b0_84.pt",
        code=f"{LITE_REPOSITORY}: run.py --train_method no_lite -i 35000 --image_size 84 ...",
        settings={
            **LITE_CODE,
            **_settings(
                backbone=("efficientnet_b0_84", "efficientnet-b0 with borders of a 224-px image"),
                weights=("pretrained", "models/efficientnet-b0_84.pt"),
                image_size=(84, "--image_size 84"),
                max_way=(40, "--max_way_train 40"),
                max_support=(300, "--max_support_train 300"),
                sampler=("exact", "--train_method no_lite"),
                chunk=(501, "--batch_size 501"),
                penalty=(0.016, "0.001 with each task, undivided: 16 times in the mean of 16"),
                tasks=(35_000, "--training_iterations 35000"),
            ),
        },
        by_learner={"simple_cnaps": NOTHING},
        differences=LITE_DIFFERENCES,
    ),
    "lite-small-tasks": TrainingPreset(
        summary="the baseline of small tasks at 224 px: at most 40 support images, all gradients (section D.3)",
        code=f"{LITE_REPOSITORY}: run.py --train_method small_task -i 15000 --max_support_train 40 --max_way_train 30",
        settings={
            **LITE_CODE,
            **_settings(
                max_way=(30, "--max_way_train 30"),
                max_support=(40, "--max_support_train 40"),
                sampler=("paper-lite", "--train_method small_task: all of at most 40 images, per query batch"),
                tasks=(15_000, "--training_iterations 15000"),
            ),
        },
        by_learner={"simple_cnaps": NOTHING},
        differences=LITE_DIFFERENCES,
    ),
    "orbit-2021": TrainingPreset(
        summary="ORBIT as in the paper: LITE at 224 px (Table 1); MAML at 84 px, as its code has it",
        code=f"{ORBIT_2021_CODE}: README.md, utils/args.py",
        settings={
            **ORBIT_COMMON,
            **_settings(
                orbit=("2021", "clips of 8 frames, 4 of a video"),
                weights=("pretrained", "features/pretrained/efficientnetb0_imagenet_224.pth"),
                h=(8, "--num_lite_samples 8, clips"),
                chunk=(64, "--batch_size 8, clips of 8 frames"),
                tasks=(22_000, "10 epochs"),
                lr=(1e-4, "--learning_rate 0.0001, Adam"),
                backbone_lr_scale=(0.1, "extractor_scale_factor 0.1"),
                validate_from=(11_000, "--validation_on_epoch 5"),
                validation_tasks=(30, "5 tasks of 6 users"),
            ),
        },
        by_learner={
            "simple_cnaps": {**ORBIT_2021_ENCODER, **ORBIT_ONE_SHOT},
            "cnaps": ORBIT_2021_ENCODER,
            "protonets": {**TRAINED_EXTRACTOR, **_settings(h=(16, "--num_lite_samples 16, clips"))},
            "maml": _settings(
                backbone=("resnet18_84", "--feature_extractor resnet18 --frame_size 84"),
                weights=("pretrained", "features/pretrained/resnet18_imagenet_84.pth"),
                image_size=(84, "--frame_size 84"),
                orbit_caps=(True, "--train_object_cap 10 --with_train_shot_caps"),
                sampler=("exact", "no LITE"),
                chunk=(2_048, "--batch_size 256, clips of 8 frames"),
                lr=(1e-5, "--learning_rate 0.00001, Adam"),
                inner_steps=(15, "--num_grad_steps 15"),
                inner_lr=(1e-3, "--inner_learning_rate 0.001"),
                inner_backbone_lr=(1e-4, "0.1 of it"),
                inner_weighting=("paper", "batch means are added up"),
                clamp=(160.0, "10 for the gradient divided by 16 tasks"),
            ),
        },
        differences=(
            RANDOM_NUMBERS, WEIGHTS_FILE, LAST_IMAGE, VIDEO_MEAN,
            PresetDifference("cache of ORBIT's set encoder",
                             "all clips are in the embedding; theirs looks frames up by the numbers of clips"),
            PresetDifference("stochastic depth of ProtoNets' EfficientNet",
                             "none; theirs drops blocks with a chance of up to 0.2 in training"),
            PresetDifference("MAML's bound on gradients",
                             "on each task's gradient; theirs is on the running sum of a step"),
        ),
    ),
    "orbit-2022": TrainingPreset(
        summary="ORBIT as its code has it since December 2022: frames one by one, 224 px",
        code=f"{ORBIT_2022_CODE}: README.md, utils/args.py",
        settings={
            **ORBIT_COMMON,
            **_settings(
                orbit=("2022", "single frames, every 30th of a support video"),
                weights=("pretrained", "tf_efficientnet_b0_aa-827b6e33.pth"),
                h=(16, "--num_lite_samples 16, frames"),
                chunk=(256, "--batch_size 256"),
                tasks=(66_000, "30 epochs"),
                lr=(5e-6, "--learning_rate 5e-6, Adam"),
                backbone_lr_scale=(1.0, "--extractor_lr_scale 1"),
                weight_decay=(0.2, "--weight_decay 0.2"),
                adam_betas=((0.9, 0.98), "--betas 0.9 0.98"),
                adam_epsilon=(1e-6, "--epsilon 1e-6"),
                lr_factors=(
                    ("0:0.2", "2200:0.36", "4400:0.52", "6600:0.68", "8800:0.84", "11000:1", "30800:0.5"),
                    "multistep: 5 epochs from 1e-6 up, halved after 14",
                ),
                validation_tasks=(180, "30 tasks of 6 users"),
            ),
        },
        by_learner={
            "simple_cnaps": {**ORBIT_2022_ENCODER, **ORBIT_ONE_SHOT},
            "cnaps": ORBIT_2022_ENCODER,
            "protonets": TRAINED_EXTRACTOR,
            "protonets_cosine": {**TRAINED_EXTRACTOR, **_settings(temperature=(1.0, "--logit_scale 1"))},
        },
        differences=(RANDOM_NUMBERS, VIDEO_MEAN),
    ),
}  # fmt: skip
