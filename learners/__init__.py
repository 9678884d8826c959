"""Learners: a support set becomes a classifier.

`Learner` and `PortableClassifier` are for using one; the other names are what a learner of your own needs. They are
loaded when first used, so that computing on images in memory needs no library that reads images.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from learners.heads.base import Head, State
    from learners.labels import Labels
    from learners.learner import MetaLearner, StagedLearner
    from learners.lite.engine import Lite, Outcome, backward
    from learners.networks import Backbone, backbone
    from learners.task import Classifier, Task
    from learners.use.classifier import Answer, Learner, PortableClassifier

__all__ = [
    "Answer",
    "Backbone",
    "Classifier",
    "Head",
    "Labels",
    "Learner",
    "Lite",
    "MetaLearner",
    "Outcome",
    "PortableClassifier",
    "StagedLearner",
    "State",
    "Task",
    "backbone",
    "backward",
]

_LEARNER_HOMES: Final = {
    "heads.base": ("Head", "State"),
    "labels": ("Labels",),
    "learner": ("MetaLearner", "StagedLearner"),
    "lite.engine": ("Lite", "Outcome", "backward"),
    "networks": ("Backbone", "backbone"),
    "task": ("Classifier", "Task"),
    "use.classifier": ("Answer", "Learner", "PortableClassifier"),
}


if not TYPE_CHECKING:  # a type checker sees the imports above, and every other name as an error

    def __getattr__(name: str) -> object:
        for module, names in _LEARNER_HOMES.items():
            if name in names:
                return getattr(import_module(f"learners.{module}"), name)
        raise AttributeError(f"module 'learners' has no attribute {name!r}")
