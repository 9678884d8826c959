"""Where a learner's options differ from those of the code that made the published rows beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from learners.methods.catalogue import NAMED_PIXELS
from learners.methods.finetuner import FINETUNER_STEPS, OPTIMIZER_RATES
from learners.methods.maml import MAML_STEPS, InnerRates
from learners.methods.options import DEFAULT_OPTIONS
from learners.report.results import NamedResult

OptionValues = Mapping[str, Any]
ENCODER_DETAILS: Final = ("encoder_norm", "encoder_size", "encoder_pixels")
MAML_INNER: Final = {
    "inner_steps": MAML_STEPS, "inner_lr": InnerRates().head, "inner_backbone_lr": InnerRates().backbone,
}  # fmt: skip
SGD_TUNER: Final = {
    "inner_steps": FINETUNER_STEPS, "inner_optimizer": "sgd", "inner_lr": OPTIMIZER_RATES["sgd"],
}  # fmt: skip
ADAM_TUNER: Final = {
    "inner_steps": FINETUNER_STEPS, "inner_optimizer": "adam", "inner_lr": OPTIMIZER_RATES["adam"],
}  # fmt: skip
STEP_DEFAULTS: Final[Mapping[str, OptionValues]] = {
    "maml": MAML_INNER,
    "finetuner": {"inner_steps": FINETUNER_STEPS, "inner_optimizer": "sgd"},
    "finetuner_film": {"inner_steps": FINETUNER_STEPS, "inner_optimizer": "adam"},
}
"""The learners' own values where an option is left at 0 or ""; the rate is that of the optimizer."""
BATCH_ENCODER: Final = {"encoder_norm": "batch", "encoder_size": 0, "film_places": ""}
STORED_ENCODER: Final = {"encoder_norm": "stored", "encoder_size": 0, "encoder_pixels": "backbone"}
PUBLISHED_OPTIONS: Final[Mapping[str, Mapping[str, OptionValues]]] = {
    "lite": {  # the paper's VTAB+MD
        "cnaps": {**BATCH_ENCODER, "encoder_pixels": "symmetric"},
        "simple_cnaps": {**BATCH_ENCODER, "encoder_pixels": "symmetric", "one_shot": "official"},
    },
    "2021": {  # ORBIT, the paper's Table 1
        "cnaps": {**BATCH_ENCODER, "encoder_pixels": "imagenet"},
        "simple_cnaps": {**BATCH_ENCODER, "encoder_pixels": "imagenet", "one_shot": "official"},
        "protonets": {"backbone_norm": "batch"},
        "maml": {**MAML_INNER, "inner_weighting": "paper"},
        "finetuner": {**SGD_TUNER, "inner_weighting": "paper"},
    },
    "2022": {  # ORBIT's list since, where a batch weighs as much as it has images
        "cnaps": STORED_ENCODER,
        "simple_cnaps": {**STORED_ENCODER, "one_shot": "official"},
        "protonets": {"backbone_norm": "batch"},
        "protonets_cosine": {"backbone_norm": "batch"},
        "finetuner": {**ADAM_TUNER, "inner_weighting": "whole"},
        "finetuner_film": {**ADAM_TUNER, "inner_weighting": "whole"},
    },
}
"""The options of the published rows, by benchmark and learner; MAML's `clamp` depends on the tasks of a step."""


def option_notes(result: NamedResult) -> Iterator[str]:
    """Notes on a result whose learner has other options than the published rows of its benchmark."""
    benchmark = {"md": "lite", "vtab": "lite", "orbit": result.variant}.get(result.protocol, "")
    learner = result.evaluation.learner
    theirs = PUBLISHED_OPTIONS.get(benchmark, {}).get(str(learner.get("learner")), {})
    ours, normalisation = used_options(learner), learner.get("normalisation")
    others = [
        name
        for name, value in theirs.items()
        if _meaning(name, ours[name], normalisation) != _meaning(name, value, normalisation)
    ]
    encoder = [name for name in others if name in ENCODER_DETAILS]
    rest = [name for name in others if name not in encoder]
    if encoder:
        yield f"another set encoder than the paper's: {_compared(encoder, ours, theirs)}"
    if rest:
        yield f"other options than the paper's: {_compared(rest, ours, theirs)}"


def used_options(learner: Mapping[str, Any]) -> OptionValues:
    """The options of a learner that an evaluation describes, its own values where they are left at 0 or "".

    Evaluations from before there were options are of learners with the defaults.
    """
    given = learner.get("options")
    values = {**asdict(DEFAULT_OPTIONS), **(given if isinstance(given, Mapping) else {})}
    own = STEP_DEFAULTS.get(str(learner.get("learner")), {})
    values = {name: value or own.get(name, value) for name, value in values.items()}
    values["inner_lr"] = values["inner_lr"] or OPTIMIZER_RATES.get(values["inner_optimizer"], 0.0)
    return values


def _meaning(name: str, value: Any, normalisation: Any) -> Any:
    """The value of an option for comparison; of pixels their statistics, whatever the option calls them."""
    if name == "encoder_pixels":
        return json.dumps(NAMED_PIXELS.get(value, normalisation))
    return value


def _compared(names: Sequence[str], ours: OptionValues, theirs: OptionValues) -> str:
    return "; ".join(f"{name} {_shown(ours[name])}, theirs {_shown(theirs[name])}" for name in names)


def _shown(value: Any) -> str:
    return json.dumps(value) if value == "" else str(value)
