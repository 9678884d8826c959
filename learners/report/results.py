"""What a report is made of: evaluations with a name each, in the order given, by protocol and variant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from learners.evaluate.records import Average, Evaluation, Score
from learners.report.ranks import Figure
from pipeline.errors import UsageError

PROTOCOLS: Final = ("md", "vtab", "orbit", "fixed")
ALL_IMAGES: Final = "exact"
"""The sampler whose gradient is that of the whole support set, whatever |H| says."""
SPLITS: Final = {"lite": "LITE's splits", "vtab": "the benchmark's splits"}


@dataclass(frozen=True, slots=True)
class Result:
    """One row of a report."""

    name: str
    """Different from the others' of the same protocol and variant."""
    evaluation: Evaluation

    @property
    def protocol(self) -> str:
        return self.evaluation.protocol

    @property
    def variant(self) -> str:
        """What must be equal for two results to stand in one ranking."""
        return variant(self.evaluation)

    @property
    def slug(self) -> str:
        """Of its section: for file names and anchors."""
        kind = {"vtab": "splits", "orbit": "orbit"}.get(self.protocol)
        known = str(self.option(kind, "")) if kind else ""
        return f"{self.protocol}-{known}" if known.isalnum() else self.protocol

    def option(self, name: str, default: Any = None) -> Any:
        """One that narrows the protocol."""
        found = self.evaluation.options.get(name)
        return default if found is None else found

    @property
    def h(self) -> int | None:
        """Support images with gradient in training; None for all of them, or where it is not known."""
        about = self.evaluation.learner
        return None if about.get("sampler") == ALL_IMAGES else about.get("h")

    def figures(self) -> dict[str, Figure]:
        """Every figure by the key of its column."""
        scores = {score_key(s): Figure(s.value, s.interval) for s in self.evaluation.scores}
        means = {self.mean_key(a): Figure(a.value, None) for a in self.evaluation.averages}
        return scores | means

    def mean_key(self, average: Average) -> str:
        """Of an average's column; Meta-Dataset's is the papers' MD-v2."""
        return (
            "mean md" if (self.protocol, average.name) == ("md", "all") else f"mean {average.name}"
        )


def score_key(score: Score) -> str:
    """Of a score's column: the dataset, or of ORBIT the mode and the metric."""
    return score.dataset if score.metric == "accuracy" else f"{score.group} {score.metric}"


def variant(evaluation: Evaluation) -> str:
    """What tells one kind of a protocol from another, in words; "" where there is one kind."""
    options = evaluation.options
    if evaluation.protocol == "vtab":
        return SPLITS.get(str(options.get("splits")), "splits unknown")
    if evaluation.protocol == "orbit":
        return str(options.get("orbit") or "2021")
    if evaluation.protocol == "fixed":
        return _setup(options)
    return ""


def _setup(options: Any) -> str:
    parts = [f"{options.get('way', '?')}-way {options.get('shot', '?')}-shot"]
    parts.append("within a group" if options.get("within") else "across groups")
    if options.get("split") not in (None, "", "test"):
        parts.append(f"{options['split']} split")
    return ", ".join(parts)


def read(places: Sequence[Path]) -> list[Result]:
    """The evaluations of files or folders; two of one name and kind become "name (1)", "name (2)"."""
    files = [place.resolve() for place in places]
    for place in places:
        if files.count(place.resolve()) > 1:
            raise UsageError(f"{place} is given twice; leave one out")
    evaluations = [Evaluation.load(place) for place in places]
    for place, evaluation in zip(places, evaluations, strict=True):
        if evaluation.protocol not in PROTOCOLS:
            raise UsageError(
                f"{place} is of a protocol {evaluation.protocol!r}; a report knows {', '.join(PROTOCOLS)}"
            )
    return name(evaluations)


def name(evaluations: Iterable[Evaluation]) -> list[Result]:
    """Each with a name of its own among those that it can stand beside."""
    evaluations = list(evaluations)
    kinds = [(e.name, e.protocol, variant(e)) for e in evaluations]
    named = []
    for index, evaluation in enumerate(evaluations):
        several = kinds.count(kinds[index]) > 1
        number = f" ({kinds[: index + 1].count(kinds[index])})" if several else ""
        named.append(Result(evaluation.name + number, evaluation))
    return named
