"""What the weights of a backbone were trained on, by the tag that timm's names end with.

A reader of a table would otherwise credit the learner with what the backbone has seen.
"""

from __future__ import annotations

from typing import Final

from learners.networks.backbones import ALIASES, OWN_NETWORKS, PRETRAINED, RANDOM, TIMM, usual_tag

PRETRAINING_SETS: Final = (
    ("lvd142m", "LVD-142M, self-supervised"),
    ("lvd1689m", "LVD-1689M, self-supervised"),
    ("sat493m", "SAT-493M, self-supervised"),
    ("laion2b", "LAION-2B, image and text"),
    ("laion400m", "LAION-400M, image and text"),
    ("datacomp", "DataComp, image and text"),
    ("metaclip", "MetaCLIP, image and text"),
    ("openai", "WIT-400M, image and text"),
    ("webli", "WebLI, image and text"),
    ("apple_mclip", "DataCompDR, image and text"),
    ("in22k", "ImageNet-22k"),
    ("in21k", "ImageNet-21k"),
    ("in12k", "ImageNet-12k"),
    ("in1k", "ImageNet-1k"),
    ("dino", "ImageNet-1k, self-supervised"),
    ("mae", "ImageNet-1k, self-supervised"),
    ("tv", "ImageNet-1k"),
)
"""Parts of tags, and what they stand for; the first that a tag holds is what the weights were first trained on."""
FINE_TUNED: Final = "_ft_"
DISTILLED: Final = "_distilled_"


def pretraining_data(backbone: str, weights: str) -> str:
    """What a backbone's first weights were trained on; "" where that is not known.

    weights: a file, `pretrained`, or `random`. A file is taken for that of the name's tag, if the name has one.
    """
    if weights in ("", RANDOM):
        return "none"
    if backbone in OWN_NETWORKS:
        return ""
    name = ALIASES.get(backbone, backbone).removeprefix(TIMM)
    tag = name.partition(".")[2] or (usual_tag(name) if weights == PRETRAINED else "")
    for later in (FINE_TUNED, DISTILLED):
        first, found, last = tag.partition(later)
        if found and _set_of(first) and _set_of(last):
            return f"{_set_of(first)}, then {_set_of(last)}"
    return _set_of(tag)


def _set_of(tag: str) -> str:
    return next((what for part, what in PRETRAINING_SETS if part in tag), "")
