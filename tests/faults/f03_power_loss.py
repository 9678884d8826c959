"""F3: a power cut in a build: what was not synced is lost in any order, and a commit record implies its data."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pipeline.layout import DatasetLayout
from tests.faults.builds import FaultyBuild, faulty_build, row, spread
from tests.faults.power_loss import CUT_STYLES, CrashModel
from tests.faults.rows import FaultRow

SHORT = 16
LONG = 600


def run(points: int, folder: Path) -> FaultRow:
    """Replay the log of one build up to any of its calls, in four ways; then go on from what is left."""
    problems: list[str] = []
    with faulty_build(folder) as build:
        build.begin()
        assert build.run(log=True).code == 0
        calls = list(build.server.shim.log())
        model = CrashModel(calls, build.out.parent)
        whole = dict(model.after_cut(len(calls), "all of it", 0))
        if any(
            build.reference[name] != _sha256(whole.get(str(build.out / name))) for name in build.reference
        ):
            problems.append("a finished build is not durable, or the model of the disk is wrong")
        chosen = spread(len(calls) * len(CUT_STYLES), points)
        for point in chosen:
            call, style = point // len(CUT_STYLES), CUT_STYLES[point % len(CUT_STYLES)]
            build.begin()
            for path, data in model.after_cut(call, style, seed=point):
                _restore(Path(path), data)
            if problem := _broken_promise(build) or _problem_of_resume(build):
                problems.append(
                    f"cut before {calls[call].kind} {calls[call].path}, losing {style}: {problem}"
                )
    return row(len(chosen), problems, f"{len(chosen)} cuts at {len(calls)} calls, {len(problems)} violations")


def _restore(path: Path, data: bytes | None) -> None:
    if data is None:
        path.mkdir(exist_ok=True)
    else:
        path.write_bytes(data)


def _broken_promise(build: FaultyBuild) -> str:
    """A commit record whose shard is not all there; empty if there is none."""
    for record in DatasetLayout(build.out).work.glob("shard-*.parquet"):
        shard = re.escape(record.stem)
        for name in filter(re.compile(rf"\d+/{shard}\.(tar|idx)").fullmatch, build.reference):
            if (
                not (build.out / name).exists()
                or _sha256((build.out / name).read_bytes()) != build.reference[name]
            ):
                return f"{record.name} is there and {name} is not"
    return ""


def _problem_of_resume(build: FaultyBuild) -> str:
    again = build.run()
    return f"exit code {again.code}: {again.errors}" if again.code else build.problem_of_the_end("the end")


def _sha256(data: bytes | None) -> str:
    return hashlib.sha256(data or b"").hexdigest()
