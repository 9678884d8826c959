"""`learners.report` writes a report that a browser shows, without anything from elsewhere."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from html import escape, unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from learners.report.__main__ import main
from pipeline.command import run_command
from tests.browser import run_browser
from tests.learners.report.results import WEAK, everything, md, orbit

NASTY = '<script>alert("x")</script> & <b>|'
PROBE = """<script>
addEventListener("load", () => {
  const seen = document.documentElement.dataset;
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument.documentElement;
    const all = [...frame.contentDocument.images];
    seen["w" + frame.width] = [all.length, all.filter((i) => i.naturalWidth > 0).length,
      page.scrollWidth - page.clientWidth, page.clientWidth].join(" ");
  }
});
</script>"""
FILES = ("report.md", "report.tex", "report.csv", "report.html")


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    yield
    logging.getLogger().handlers.clear()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """All protocols, one learner of a nasty name."""
    root = tmp_path_factory.mktemp("results")
    files = []
    for number, evaluation in enumerate([*everything(), md(NASTY, WEAK)]):
        (root / str(number)).mkdir()
        files.append(str(evaluation.save(root / str(number))))
    return files


@pytest.fixture(scope="module")
def report(results: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "deep" / "report"
    assert main([*results, "--out", str(out), "--title", "All & everything"]) == 0
    return out


def test_the_same_results_give_the_same_bytes(results: list[str], report: Path, tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    for out in (first, again):
        assert main([results[7], results[8], "--out", str(out)]) == 0
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert [*map(str, names)] == [
        "plots/orbit-2021-bars.png", "plots/orbit-2021-cost.png", *sorted(FILES),
    ]  # fmt: skip
    for name in names:
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    same = names[0]  # whatever else is in the report
    assert (first / same).read_bytes() == (report / same).read_bytes()


def test_every_plot_is_a_drawing_and_is_named_in_the_texts(report: Path) -> None:
    plots = sorted(path.name for path in (report / "plots").iterdir())
    assert {"md-bars.png", "md-cost.png", "md-h.png", "orbit-2021-cost.png"} <= set(plots)
    for form, pattern in (("report.md", r"\(plots/(.+?)\)"), ("report.tex", r"{plots/(.+?)}")):
        assert sorted(re.findall(pattern, (report / form).read_text())) == plots
    for name in plots:
        with Image.open(report / "plots" / name) as opened:
            drawing = np.asarray(opened.convert("RGB")).astype(int)
        assert drawing.shape[1] == 1440
        assert 0.005 < (drawing.min(axis=2) < 200).mean() < 0.5  # ink on paper
        assert ((drawing.max(axis=2) - drawing.min(axis=2)) > 60).mean() > 1e-4  # our colours
        for edge in (drawing[0], drawing[-1], drawing[:, 0], drawing[:, -1]):
            assert (edge.min(axis=1) > 200).all(), f"{name} is cut off"


def test_the_page_needs_nothing_but_itself_and_no_name_is_markup(report: Path) -> None:
    text = (report / "report.html").read_text(encoding="utf-8")
    links = re.findall(r'(?:src|href|srcset|action|data)="([^"]*)"', text)
    assert {link.split(",")[0] for link in links} == {"data:image/png;base64"}
    assert not re.search(r"<(script|link|iframe|object|embed)\b|url\(|@import|https?:", text)
    assert escape(NASTY) in text
    assert "All &amp; everything" in text
    shown = unescape(re.sub(r"<[^>]*>", "", text))
    for message in ("92.1 ± 0.9(1)", "Table 1, arXiv:2107.01105", "(5 of 8)", "published; not comparable"):
        assert message in shown


def test_one_id_belongs_to_one_table(report: Path) -> None:
    ids = re.findall(r' id="([^"]+)"', (report / "report.html").read_text())
    assert len(ids) == len(set(ids)) > 8


def test_without_published_rows_nothing_is_of_the_papers(results: list[str], tmp_path: Path) -> None:
    assert main([*results[:2], results[7], "--out", str(tmp_path), "--no-published"]) == 0
    for name in FILES:
        text = (tmp_path / name).read_text()
        assert "2107.01105" not in text
        assert "LITE, EfficientNet" not in text


def test_an_evaluation_that_is_damaged_stops_before_anything_is_written(
    results: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.json"
    values = json.loads(Path(results[0]).read_text())
    del values["scores"][0]["value"]
    bad.write_text(json.dumps(values))
    out = tmp_path / "out"
    assert run_command(main, [results[1], str(bad), "--out", str(out)]) == 4
    assert f"{bad} is damaged" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere", "--out", "o"], 3, "nowhere is no evaluation"),
        (["{0}", "--out", "{0}"], 2, "is a file; name a folder"),
        (["{0}", "{0}", "--out", "o"], 2, "is given twice"),
    ],
)
def test_impossible_requests_say_why(
    arguments: list[str], code: int, message: str, results: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = [argument.format(results[0]) for argument in arguments]
    assert run_command(main, given) == code
    assert message in capsys.readouterr().err


def test_a_learner_without_known_cost_or_image_size_is_reported_all_the_same(tmp_path: Path) -> None:
    file = orbit().save(tmp_path)
    values = json.loads(file.read_text())
    values["cost"]["macs"], values["learner"] = None, {}
    file.write_text(json.dumps(values))
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert re.search(r"^\| ProtoNets \|.* - \| 1F \| 1\.90 s \| 4\.01 M \|$", text, re.MULTILINE)
    assert [p.name for p in (tmp_path / "out" / "plots").iterdir()] == ["orbit-2021-bars.png"]


def test_a_browser_loads_every_plot_and_the_page_fits_wide_and_narrow_windows(
    report: Path, tmp_path: Path
) -> None:
    page = (report / "report.html").read_text(encoding="utf-8")
    frames = "".join(
        f'<iframe width="{width}" height="900" srcdoc="{escape(page)}"></iframe>' for width in (1200, 400)
    )
    probed = tmp_path / "probed.html"
    probed.write_text(f"<!doctype html><html><body>{frames}{PROBE}</body></html>")
    browser = run_browser(
        "--window-size=1700,1000", "--virtual-time-budget=10000", "--dump-dom", probed.as_uri(),
        profile=tmp_path / "p",
    )  # fmt: skip
    plots = page.count("<img ")
    assert plots == 11
    seen = dict(re.findall(r'data-w(\d+)="([^"]+)"', browser.stdout[:500]))
    assert seen == {"1200": f"{plots} {plots} 0 1200", "400": f"{plots} {plots} 0 400"}
    assert "CONSOLE" not in browser.stderr


def test_a_browser_draws_the_page_in_the_dark_too(report: Path, tmp_path: Path) -> None:
    out = tmp_path / "shot.png"
    browser = run_browser(
        "--force-dark-mode", "--window-size=1200,1600", f"--screenshot={out}",
        (report / "report.html").as_uri(), profile=tmp_path / "p",
    )  # fmt: skip
    assert "CONSOLE" not in browser.stderr
    shot = np.asarray(Image.open(io.BytesIO(out.read_bytes())).convert("RGB")).astype(int)
    assert shot.shape == (1600, 1200, 3)
    assert shot[2, 2].mean() < 40
    assert ((shot.max(axis=2) - shot.min(axis=2)) > 60).mean() > 0.02  # the plots
    assert (abs(shot - shot[2, 2]).max(axis=2) > 60).any(axis=1).mean() > 0.4  # text all the way


def test_the_command_says_what_it_wrote_and_its_help_has_examples(
    results: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([results[10], "--out", str(tmp_path)]) == 0
    written = [tmp_path / name for name in (*FILES, "plots")]
    assert capsys.readouterr().out.splitlines() == [f"wrote {path}" for path in written]
    assert all(path.exists() for path in written)
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "python -m learners.report results/*/evaluation.json --out" in capsys.readouterr().out
