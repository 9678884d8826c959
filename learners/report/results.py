"""The results that a report is made of: evaluations, each with a name of its own, in the order given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from learners.evaluate.protocols import PROTOCOLS
from learners.evaluate.records import AverageScore, DatasetScore, EvaluationResult
from learners.report.ranks import MeanInterval
from pipeline.errors import UsageError

EXACT_SAMPLER: Final = "exact"
"""The gradient sampler that uses the whole support set, whatever |H| is."""
VTAB_SPLITS: Final = {"lite": "LITE's splits", "vtab": "the benchmark's splits"}


@dataclass(frozen=True, slots=True)
class NamedResult:
    """An evaluation under the name of its row."""

    name: str
    """Unique among the results of the same protocol and variant."""
    evaluation: EvaluationResult

    @property
    def protocol(self) -> str:
        return self.evaluation.protocol

    @property
    def variant(self) -> str:
        """The variant of the protocol; results of one variant are ranked together."""
        return protocol_variant(self.evaluation)

    @property
    def slug(self) -> str:
        """The name of its section in file names and anchors."""
        kind = {"vtab": "splits", "orbit": "orbit"}.get(self.protocol)
        value = str(self.option(kind, "")) if kind else ""
        return f"{self.protocol}-{value}" if value.isalnum() else self.protocol

    def option(self, name: str, default: Any = None) -> Any:
        """An option of the protocol."""
        value = self.evaluation.options.get(name)
        return default if value is None else value

    @property
    def h(self) -> int | None:
        """Support images with gradient in training; None for all of them, or if not known."""
        learner = self.evaluation.learner
        return None if learner.get("sampler") == EXACT_SAMPLER else learner.get("h")

    def figures(self) -> dict[str, MeanInterval]:
        """All figures by the keys of their columns."""
        scores = {score_key(s): MeanInterval(s.value, s.interval) for s in self.evaluation.scores}
        means = {self.mean_key(a): MeanInterval(a.value, None) for a in self.evaluation.averages}
        return scores | means

    def mean_key(self, average: AverageScore) -> str:
        """The key of an average's column; that of Meta-Dataset is the papers' MD-v2."""
        return "mean md" if (self.protocol, average.name) == ("md", "all") else f"mean {average.name}"


def score_key(score: DatasetScore) -> str:
    """The key of a score's column: the dataset, or in ORBIT the mode and the metric."""
    return score.dataset if score.metric == "accuracy" else f"{score.group} {score.metric}"


def protocol_variant(evaluation: EvaluationResult) -> str:
    """The variant of a protocol in words; "" for a protocol without variants."""
    options = evaluation.options
    if evaluation.protocol == "vtab":
        return VTAB_SPLITS.get(str(options.get("splits")), "splits unknown")
    if evaluation.protocol == "orbit":
        return str(options.get("orbit") or "2021")
    if evaluation.protocol == "fixed":
        return _episode_setup(options)
    return ""


def _episode_setup(options: Any) -> str:
    parts = [f"{options.get('way', '?')}-way {options.get('shot', '?')}-shot"]
    parts.append("within a group" if options.get("within") else "across groups")
    if options.get("split") not in (None, "", "test"):
        parts.append(f"{options['split']} split")
    return ", ".join(parts)


def read_results(paths: Sequence[Path]) -> list[NamedResult]:
    """Read evaluations from files or folders; two of one name and variant become "name (1)", "name (2)"."""
    files = [path.resolve() for path in paths]
    for path in paths:
        if files.count(path.resolve()) > 1:
            raise UsageError(f"{path} is given twice; leave one out")
    evaluations = [EvaluationResult.load(path) for path in paths]
    for path, evaluation in zip(paths, evaluations, strict=True):
        if evaluation.protocol not in PROTOCOLS:
            raise UsageError(
                f"{path} is of a protocol {evaluation.protocol!r}; a report knows {', '.join(PROTOCOLS)}"
            )
    return name_results(evaluations)


def name_results(evaluations: Iterable[EvaluationResult]) -> list[NamedResult]:
    """Give each evaluation a name that is unique within its protocol and variant."""
    evaluations = list(evaluations)
    kinds = [(e.name, e.protocol, protocol_variant(e)) for e in evaluations]
    named = []
    for index, evaluation in enumerate(evaluations):
        several = kinds.count(kinds[index]) > 1
        number = f" ({kinds[: index + 1].count(kinds[index])})" if several else ""
        named.append(NamedResult(evaluation.name + number, evaluation))
    return named
