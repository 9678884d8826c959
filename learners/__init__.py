"""Learners: a support set becomes a classifier.

`Learner` and `PortableClassifier` are for using one; the other names are what a learner of your own needs.
"""

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
