"""The ten minutes on a GPU: a dry run on a CPU, budgets, what is left out, and the model beside the figures."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

import benchmarks.gpu
from benchmarks.common import ROOT, TableRow, markdown_table
from benchmarks.gpu.__main__ import ALL_PARTS, MINUTES, main
from benchmarks.gpu.costs import CARDS
from benchmarks.gpu.model import LARGEST_EPISODE, MEAN_EPISODE, StepSetting, largest_chunk, predict
from benchmarks.gpu.model_tables import card_table, setting_table
from benchmarks.gpu.parts import right, step
from benchmarks.gpu.predictions import predicted_columns
from benchmarks.gpu.report import GpuReport
from benchmarks.gpu.runner import Measure, MeasuredPart, PartResult, run_parts
from benchmarks.gpu.scale import MeasureScale
from benchmarks.step_parts import StepCase
from tests.pretended_gpu import pretended_gpu

HIDE_MODULES = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
"""


def scale(folder: Path, *, quick: bool = True) -> MeasureScale:
    return MeasureScale(device="cpu", quick=quick, scratch=folder)


def part(name: str, measure: Measure, seconds: float = 1.0, needs: tuple[str, ...] = ()) -> MeasuredPart:
    return MeasuredPart(name=name, load=lambda: measure, seconds=seconds, needs=needs)


def run(
    folder: Path, *parts: MeasuredPart, seconds: float = 60.0, quick: bool = True
) -> dict[str, PartResult]:
    results: dict[str, PartResult] = {}
    run_parts(
        parts,
        scale(folder, quick=quick),
        seconds,
        keep=lambda one: results.update({one.name: one}),
        grace=0.5,
    )
    return results


def rows(*values: int, pause: float = 0.0) -> Callable[[MeasureScale], Iterator[TableRow]]:
    def measure(_: MeasureScale) -> Iterator[TableRow]:
        for value in values:
            yield {"value": value}
            time.sleep(pause)

    return measure


@pytest.mark.parametrize("names", [("ceilings", "right", "head", "race"), ("step", "fed", "decode")])
def test_every_part_that_a_cpu_can_run_runs(
    names: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "gpu.json"
    words = ["--device", "cpu", "--quick", "--minutes", "60", "--parts", *names, "--out", str(file)]
    monkeypatch.setattr("sys.argv", ["gpu", *words])
    assert main(words) == 0
    found = json.loads(file.read_text())
    assert tuple(found["parts"]) == names
    for name in names:
        result = found["parts"][name]
        assert result["rows"] or result["remark"] == "needs a GPU", name
        assert not result["trace"], name
    printed = capsys.readouterr().out
    assert file.with_suffix(".md").read_text().strip() in printed
    for words_of_machine in ("commit", "torch", "no GPU", "python -m benchmarks.gpu --device cpu"):
        assert words_of_machine in found["machine"]


def test_the_package_lists_its_parts() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", benchmarks.gpu.__doc__ or "", re.MULTILINE)
    assert listed == list(ALL_PARTS)
    assert sum(one.seconds for one in ALL_PARTS.values()) <= 60 * MINUTES + 20


def test_gradients_are_compared_with_those_in_float64(tmp_path: Path) -> None:
    errors = {row["precision"]: row["error"] for row in islice(right.measure(scale(tmp_path)), 4)}
    assert errors["tf32"] == errors["float32"] < 1e-3 < errors["float16"] < errors["bfloat16"] < 1


@pytest.mark.slow
def test_the_compiled_part_runs(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    assert (
        main(["--device", "cpu", "--quick", "--minutes", "60", "--parts", "compiled", "--out", str(file)])
        == 0
    )
    (row,) = json.loads(file.read_text())["parts"]["compiled"]["rows"]
    assert row["first_seconds"] > 0 < row["ms"]


def test_a_step_on_a_gpu_says_its_memory_and_the_chunks_that_fit(tmp_path: Path) -> None:
    on_gpu = MeasureScale(device="cuda", quick=True, scratch=tmp_path)
    with pretended_gpu(memory=2**30):
        named, chosen = islice(step.measure(on_gpu), 2)
    assert named["chunks"] == "8 / 8"
    assert chosen["chunks"] == "512 / 512"
    assert 0 < named["peak_gb"] < chosen["peak_gb"] < 1


def test_a_case_that_does_not_fit_is_a_row_that_says_so(tmp_path: Path) -> None:
    on_gpu = MeasureScale(device="cuda", quick=True, scratch=tmp_path)
    case = replace(step.resident_case(on_gpu, learner="protonets"), chunk=24)
    with pretended_gpu(memory=14 * 2**20):
        row = step.measure_case(case, *case.make())
    assert row["remark"].startswith("out of memory")
    assert "ms" not in row


def test_a_part_that_fails_costs_the_others_nothing(tmp_path: Path) -> None:
    def failing(_: MeasureScale) -> Iterator[TableRow]:
        yield {"value": 1}
        raise ValueError("no such kernel")

    results = run(tmp_path, part("failing", failing), part("fine", rows(2)))
    assert results["failing"].rows == [{"value": 1}]
    assert results["failing"].remark == "failed: ValueError: no such kernel"
    assert "in failing" in results["failing"].trace
    assert results["fine"].rows == [{"value": 2}]
    assert not results["fine"].remark


def test_a_part_stops_after_the_row_that_uses_up_its_time(tmp_path: Path) -> None:
    results = run(tmp_path, part("long", rows(*range(300), pause=0.01), seconds=0.1), quick=False)
    assert 0 < len(results["long"].rows) < 300
    assert results["long"].remark.startswith("stopped after")


def test_a_row_that_hangs_is_given_up(tmp_path: Path) -> None:
    results = run(
        tmp_path, part("hangs", rows(1, pause=500), seconds=0.2), part("next", rows(2)), quick=False
    )
    assert results["hangs"].rows == [{"value": 1}]
    assert "given up" in results["hangs"].remark
    assert results["next"].rows == [{"value": 2}]


def test_what_a_part_leaves_of_its_budget_is_the_next_ones(tmp_path: Path) -> None:
    longer = part("longer", rows(*range(50), pause=0.01), seconds=0.05)
    alone = run(tmp_path, longer, quick=False)
    after = run(tmp_path, part("short", rows(0), seconds=30), longer, quick=False)
    assert len(alone["longer"].rows) < len(after["longer"].rows) == 50


def test_a_part_without_enough_time_is_left_out(tmp_path: Path) -> None:
    results = run(tmp_path, part("late", rows(1), seconds=100), seconds=5, quick=False)
    assert not results["late"].rows
    assert results["late"].remark == "5 s were left, and its budget is 100"


def test_rows_are_on_disk_before_the_next_is_measured(tmp_path: Path) -> None:
    report = GpuReport(tmp_path / "gpu.json", "a machine")

    def measure(_: MeasureScale) -> Iterator[TableRow]:
        yield {"value": 17, "_largest_kernels": ["gemm: 3.00 ms in 7"]}
        seen = json.loads((tmp_path / "gpu.json").read_text())["parts"]["one"]["rows"]
        yield {"value": seen[0]["value"] + 1}

    run_parts([part("one", measure)], scale(tmp_path), 60, keep=report.keep)
    text = (tmp_path / "gpu.md").read_text()
    assert text.startswith("a machine")
    assert "| value |\n|---|\n| 17 |\n| 18 |" in text
    assert "- largest kernels of 17: gemm: 3.00 ms in 7" in text


def test_what_is_not_installed_is_said_and_the_rest_runs(tmp_path: Path) -> None:
    hidden = {"simplejpeg", "google_crc32c", "isal", "nvidia", "torchvision"}
    (tmp_path / "sitecustomize.py").write_text(HIDE_MODULES.format(names=hidden))
    words = ["--device", "cpu", "--quick", "--minutes", "60", "--parts", "step", "fed", "decode"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *words, "--commit", "abc1234"],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "#### step" in done.stdout
    assert "- fed: needs simplejpeg, google_crc32c, not installed" in done.stdout
    assert "- decode: needs simplejpeg, google_crc32c, not installed" in done.stdout


def test_the_commit_can_be_named_where_there_is_no_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.common.ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert main(["--device", "cpu", "--quick", "--parts", "ceilings", "--commit", "abc1234"]) == 0
    assert "commit abc1234, " in capsys.readouterr().out


def test_the_model_says_what_the_host_and_the_kernels_take() -> None:
    small, large = StepSetting(head="by size"), StepSetting(width="half", chunk=512)
    default, best = predict(LARGEST_EPISODE, small), predict(LARGEST_EPISODE, large)
    assert round(default.step_ms) == 483  # of the first model, before any code was changed for it
    assert default.host_ms > default.kernel_ms  # Python is slower than an H200
    assert best.host_ms < best.kernel_ms
    assert round(best.step_ms) == 134
    assert best.busy > 0.9
    assert default.busy < 0.6


def test_fewer_queries_with_a_graph_take_fewer_kernels_and_no_less_memory() -> None:
    everything, drawn = (StepSetting(width="half", chunk=512, query_h=count) for count in (0, 100))
    assert predict(LARGEST_EPISODE, drawn).kernel_ms < 0.8 * predict(LARGEST_EPISODE, everything).kernel_ms


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_a_larger_chunk_is_never_slower_in_the_model(card: object) -> None:
    times = [
        predict(MEAN_EPISODE, StepSetting(width="half", chunk=c)).step_ms for c in (40, 64, 128, 256, 512)
    ]
    assert times == sorted(times, reverse=True)


def test_chunks_grow_with_the_card_and_in_half_precision() -> None:
    chunks = [largest_chunk(card, StepSetting()) for card in CARDS]
    assert chunks == [128, 192, 512, 512]
    assert [largest_chunk(card, StepSetting(width="half")) for card in CARDS] == [256, 384, 512, 512]
    assert [largest_chunk(card, StepSetting(), graph=False) for card in CARDS] == [512] * 4


def test_a_case_has_a_prediction_where_the_model_has_figures() -> None:
    case = StepCase(size=224, precision="bfloat16", chunk=512)
    assert (
        predicted_columns(case)["predicted_ms"]
        == predict(LARGEST_EPISODE, StepSetting(width="half", chunk=512)).step_ms
    )
    assert predicted_columns(StepCase(backbone="conv4")) == {}
    assert predicted_columns(StepCase(precision="float32")) == {}


@pytest.mark.parametrize(
    "table",
    [
        pytest.param(lambda: setting_table(LARGEST_EPISODE, {}), id="the largest episode"),
        pytest.param(lambda: setting_table(MEAN_EPISODE, {}), id="the mean episode"),
        pytest.param(card_table, id="cards"),
    ],
)
def test_the_page_has_the_models_tables(table: Callable[[], Iterator[TableRow]]) -> None:
    page = (ROOT / "docs" / "how-fast.md").read_text(encoding="utf-8")
    assert markdown_table(list(table())) in page
