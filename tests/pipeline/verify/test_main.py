"""Damage to any byte of a shard set is found, named, and can be repaired."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline.build.jobs
from pipeline.build.builder import Run, build_shards
from pipeline.build.finalize import _parquet_bytes
from pipeline.command import run_command
from pipeline.errors import IntegrityError, SourceMissing
from pipeline.index import DatasetManifest
from pipeline.layout import HOST_NAME, TEMPORARY_PREFIX, DatasetLayout
from pipeline.records import ClassRecord, Encoding, Item, Recipe, Rejected, Survey
from pipeline.sources.base import Source
from pipeline.sources.folder import FolderSource
from pipeline.verify.__main__ import main, repair, verify
from pipeline.verify.damage import CheckReport
from tests.faults.damage import damages, flip, public_files
from tests.images import fill_class_folders, tree_hashes

RECIPE = Recipe(sizes=(84,), encodings=(Encoding.parse("jpeg:80"),), shard_samples=16)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    yield
    logging.getLogger().handlers.clear()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> FolderSource:
    """40 good images, one that does not decode, and a file without a class, in a tar."""
    folder = fill_class_folders(tmp_path_factory.mktemp("source") / "zoo", {"cat": 20, "dog": 14, "owl": 6})
    (folder / "cat" / "half.jpg").write_bytes(b"no picture")
    (folder / "stray.txt").write_text("in no class's folder")
    with tarfile.open(folder.with_suffix(".tar"), "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.add(path, path.relative_to(folder).as_posix(), recursive=False)
    return FolderSource(name="zoo", root=folder.with_suffix(".tar"))


@pytest.fixture(scope="module")
def whole(source: FolderSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set as it was built; tests must not change it."""
    out = tmp_path_factory.mktemp("whole") / "zoo"
    report = build_shards(source, out, RECIPE, Run(workers=1))
    assert report.manifest is not None
    assert (report.manifest.samples, len(report.rejected)) == (40, 2)
    return out


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """The same set, to be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "zoo"))


def test_an_intact_set_has_no_problems_and_everything_was_read(whole: Path) -> None:
    report = verify(whole)
    assert report.ok
    assert report.problems == ()
    assert report.datasets == ("zoo",)
    assert report.members == 3 * 40
    assert report.files == len(public_files(whole))
    assert report.bytes == sum(path.stat().st_size for path in public_files(whole))


def test_without_the_records_flips_outside_the_manifest_are_found_as_well(copy: Path) -> None:
    shutil.rmtree(copy / ".build")
    assert verify(copy).ok
    stream = ((p, c) for p, c in damages(copy, seed=1) if p.name != "dataset.json")
    for _, (path, choice) in zip(range(60), stream, strict=False):
        original = path.read_bytes()
        flip(path, choice.randrange(len(original)), choice.randrange(8))
        assert not verify(copy, workers=1).ok, path
        path.write_bytes(original)


def test_each_fact_of_the_manifest_is_checked_against_the_records(copy: Path) -> None:
    path = copy / "dataset.json"
    manifest = DatasetManifest.read(path)
    file = replace(manifest.shards[84][0], samples=15)
    for change in (
        {"name": "pest"},
        {"plan_hash": "0" * 64},
        {"samples": 41},
        {"splits": {"": 39}},
        {"classes": (*manifest.classes[:2], ClassRecord(name="oil"))},
        {"hierarchy": {"train": {"n1": ("n2",)}}},
        {"shards": {84: (file, *manifest.shards[84][1:])}},
        {"sources": ()},
        {"quarantined": manifest.quarantined[:1]},
        {"quarantined": manifest.quarantined[1:]},
        {"versions": ({"pillow": "0"},)},
        {"index_sha256": "0" * 64},
        {"recipe": replace(manifest.recipe, seed=1)},
    ):
        changes: dict[str, Any] = change
        path.write_text(replace(manifest, **changes).text(), encoding="utf-8")
        assert not verify(copy).ok, change


def test_a_problem_names_shard_key_and_place(copy: Path) -> None:
    tar = copy / "84" / "shard-000001.tar"
    with tarfile.open(tar) as archive:
        member = next(m for m in archive if m.name.endswith("20.jpg"))
    flip(tar, member.offset_data + 5)
    first, second = verify(copy).problems
    assert (first.dataset, first.file) == ("zoo", "84/shard-000001.tar")
    assert (first.shard, first.key, first.offset) == (1, member.name[:9], member.offset_data)
    assert "crc32" in first.what
    assert "sha256" in second.what
    assert first.remedy == second.remedy == "shard"


@pytest.mark.parametrize("part", ["cls", "jpg", "json"])
def test_damage_to_a_header_is_named_as_such_and_does_not_hide_the_next(part: str, copy: Path) -> None:
    tar = copy / "84" / "shard-000000.tar"
    with tarfile.open(tar) as archive:
        members = [m for m in archive if m.name.endswith(part)]
    for member in (members[2], members[5], members[-1]):
        flip(tar, member.offset + 130, 3)
    problems = [p for p in verify(copy).problems if "header" in p.what]
    assert [p.key for p in problems] == [m.name[:9] for m in (members[2], members[5], members[-1])]


def edit_json(tar: Path, number: int, old: bytes, new: bytes) -> None:
    assert len(old) == len(new)
    with tarfile.open(tar) as archive:
        member = [m for m in archive if m.name.endswith("json")][number]
    data = tar.read_bytes()
    text = data[member.offset_data : member.offset_data + member.size]
    assert old in text
    start, end = member.offset_data, member.offset_data + member.size
    tar.write_bytes(data[:start] + text.replace(old, new) + data[end:])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"frame": -1', b'"frame": -2', "says frame -2"),
        (b'"frame": -1', b'"frame":""  ', "other keys or types"),
        (b'"user": ""', b'"uses": ""', "other keys or types"),
        (b'"frame": -1', b'"frame":null'[:11], "is not JSON"),
        (b'"group": ""', b'"group":[] ', "other keys or types"),
    ],
)
def test_a_json_member_must_be_like_the_others_and_like_the_index(
    old: bytes, new: bytes, message: str, copy: Path
) -> None:
    edit_json(copy / "84" / "shard-000000.tar", 3, old, new.ljust(len(old))[: len(old)])
    assert any(message in problem.what for problem in verify(copy).problems)


def test_a_null_in_a_json_member_is_found(copy: Path) -> None:
    edit_json(copy / "84" / "shard-000000.tar", 3, b'"split": ""', b'"s":  null ')
    assert any("without nulls" in problem.what for problem in verify(copy).problems)


@pytest.mark.parametrize("name", ["dataset.json", "index.parquet", "84/wids.json", "84/shard-000001.idx"])
def test_a_missing_file_is_named(name: str, copy: Path) -> None:
    (copy / name).unlink()
    report = verify(copy)
    assert report.exit_code == 4
    assert [problem.file for problem in report.problems] == [name]


def test_a_missing_tar_is_named_and_the_others_are_still_read(copy: Path) -> None:
    (copy / "84" / "shard-000001.tar").unlink()
    report = verify(copy)
    assert [problem.file for problem in report.problems] == ["84/shard-000001.tar"]
    lost = DatasetManifest.read(copy / "dataset.json").shards[84][1].samples
    assert report.members == 3 * (40 - lost)


@pytest.mark.parametrize(
    "name",
    [
        "dataset.json", "index.parquet", "84/wids.json", "84/shard-000001.idx", "84/shard-000001.tar",
        ".build/plan.parquet", ".build/shard-000001.parquet",
    ],
)  # fmt: skip
def test_a_pipe_in_a_file_s_place_is_named_and_not_waited_for(name: str, copy: Path) -> None:
    (copy / name).unlink()
    os.mkfifo(copy / name)
    report = verify(copy)
    assert {problem.file for problem in report.problems} == {name}
    assert any("is no regular file" in problem.what for problem in report.problems)


def test_a_plan_of_more_shards_than_it_has_rows_is_named(copy: Path) -> None:
    plan = pq.read_table(copy / ".build" / "plan.parquet")
    about = json.loads(plan.schema.metadata[b"about"]) | {"shards": 2**60}
    pq.write_table(
        plan.replace_schema_metadata({"about": json.dumps(about)}), copy / ".build" / "plan.parquet"
    )
    (problem,) = verify(copy).problems
    assert problem.file == ".build/plan.parquet"
    assert "has 1 shards, not 1152921504606846976" in problem.what


def test_no_memory_is_asked_for_a_hole_in_a_tar(copy: Path) -> None:
    hole = 2**40
    table = pq.read_table(copy / "index.parquet")
    places = zip(table["key"].to_pylist(), table["offset_84"].to_pylist(), strict=True)
    offsets = pa.array([offset + hole * (key > 3) for key, offset in places], pa.int64())
    data = _parquet_bytes(table.set_column(table.column_names.index("offset_84"), "offset_84", offsets))
    manifest = DatasetManifest.read(copy / "dataset.json")
    files = tuple(replace(file, bytes=file.bytes + hole) for file in manifest.shards[84])
    forged = replace(manifest, index_sha256=hashlib.sha256(data).hexdigest(), shards={84: files})
    shutil.rmtree(copy / ".build")
    (copy / "index.parquet").write_bytes(data)
    (copy / "dataset.json").write_text(forged.text(), encoding="utf-8")
    assert any("where none can lie" in problem.what for problem in verify(copy).problems)


def test_swapped_indexes_are_found_and_mended_without_the_source(copy: Path) -> None:
    before = tree_hashes(copy)
    one, two = (copy / "84" / f"shard-00000{n}.idx" for n in (0, 1))
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    assert [problem.remedy for problem in verify(copy).problems] == ["idx", "idx"]
    assert repair(copy).ok
    assert tree_hashes(copy) == before


def test_an_index_with_a_row_less_is_found_even_if_its_checksum_was_forged(copy: Path) -> None:
    layout = DatasetLayout(copy)
    data = _parquet_bytes(pq.read_table(layout.index).slice(1))
    layout.index.write_bytes(data)
    forged = replace(DatasetManifest.read(layout.manifest), index_sha256=hashlib.sha256(data).hexdigest())
    layout.manifest.write_text(forged.text(), encoding="utf-8")
    assert any("39 rows and dataset.json says 40" in problem.what for problem in verify(copy).problems)
    shutil.rmtree(layout.work)
    assert any("39 rows and dataset.json says 40" in problem.what for problem in verify(copy).problems)


def test_files_that_do_not_belong_are_warnings(copy: Path) -> None:
    (copy / "84" / "notes.txt").write_text("mine")
    (copy / f"{TEMPORARY_PREFIX}{HOST_NAME}-1-ab-index.parquet").write_text("")
    report = verify(copy)
    assert report.ok
    assert {(p.kind, p.file.split("/")[-1][:5]) for p in report.problems} == {
        ("warning", "notes"),
        ("warning", TEMPORARY_PREFIX),
    }
    assert main([str(copy)]) == 0


def test_a_leftover_tar_of_no_known_shard_is_a_warning(copy: Path) -> None:
    shutil.copy(copy / "84" / "shard-000000.tar", copy / "84" / "shard-000009.tar")
    assert [p.file for p in verify(copy).problems] == ["84/shard-000009.tar"]
    assert verify(copy).ok


def spoil_tar(root: Path) -> None:
    flip(root / "84" / "shard-000002.tar", 3000)


def spoil_first_tar_and_lose_the_last(root: Path) -> None:
    (root / "84" / "shard-000000.tar").write_bytes(b"")
    (root / "84" / "shard-000002.tar").unlink()


def spoil_record(root: Path) -> None:
    flip(root / ".build" / "shard-000001.parquet", -1)


def spoil_plan(root: Path) -> None:
    flip(root / ".build" / "plan.parquet", -1)


def lose_records(root: Path) -> None:
    shutil.rmtree(root / ".build")
    flip(root / "index.parquet", 100)


def spoil_everything(root: Path) -> None:
    for path in public_files(root):
        flip(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    "spoil",
    [spoil_tar, spoil_first_tar_and_lose_the_last, spoil_record, spoil_plan, lose_records, spoil_everything],
)
def test_repair_from_the_source_restores_every_byte(
    spoil: Callable[[Path], None], source: FolderSource, copy: Path
) -> None:
    before = tree_hashes(copy)
    spoil(copy)
    assert not verify(copy).ok
    with pytest.raises(SourceMissing, match="only from its source"):
        repair(copy)
    assert repair(copy, source, workers=1).ok
    assert tree_hashes(copy) == before


@pytest.mark.parametrize("name", ["dataset.json", "index.parquet", "84/wids.json", "84/shard-000001.idx"])
@pytest.mark.parametrize("how", ["lost", "flipped"])
def test_repair_of_the_small_files_needs_no_source(name: str, how: str, copy: Path) -> None:
    before = tree_hashes(copy)
    tars = {path: path.stat().st_mtime_ns for path in copy.rglob("*.tar")}
    if how == "lost":
        (copy / name).unlink()
    else:
        flip(copy / name, 40, 2)
    assert repair(copy).ok
    assert tree_hashes(copy) == before
    assert {path: path.stat().st_mtime_ns for path in tars} == tars


def test_repair_builds_only_the_damaged_shards(source: FolderSource, copy: Path) -> None:
    intact = [copy / "84" / f"shard-00000{n}.tar" for n in (0, 2)]
    before = [path.stat().st_mtime_ns for path in intact]
    flip(copy / "84" / "shard-000001.tar", 2000)
    assert repair(copy, source, workers=1).ok
    assert [path.stat().st_mtime_ns for path in intact] == before


def test_repair_mends_many_random_flips(source: FolderSource, copy: Path) -> None:
    before = tree_hashes(copy)
    for _, (path, choice) in zip(range(20), damages(copy, seed=7), strict=False):
        flip(path, choice.randrange(path.stat().st_size), choice.randrange(8))
        assert repair(copy, source, workers=1).ok
        assert tree_hashes(copy) == before, path


def test_repair_refuses_a_source_that_has_changed(source: FolderSource, copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.tar"
    with tarfile.open(source.root) as archive, tarfile.open(other, "w") as fewer:
        for member in archive.getmembers()[:-1]:
            fewer.addfile(member, archive.extractfile(member))
    spoil_tar(copy)
    damaged = tree_hashes(copy)
    with pytest.raises(IntegrityError, match="no longer holds what"):
        repair(copy, replace(source, root=other))
    assert tree_hashes(copy) == damaged


def test_repair_leaves_an_intact_set_alone(copy: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    assert repair(copy).ok
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def test_other_libraries_are_named_when_shards_are_built_again(
    source: FolderSource, copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spoil_tar(copy)
    newer = {"pillow": "99"}
    monkeypatch.setattr("pipeline.verify.repair.library_versions", lambda: newer)
    monkeypatch.setattr(pipeline.build.jobs, "library_versions", lambda: newer)
    assert repair(copy, source, workers=1).ok
    assert "pillow 99" in caplog.text
    assert "1 of 3" in caplog.text
    assert newer in [dict(entry) for entry in DatasetManifest.read(copy / "dataset.json").versions]


def test_an_unfinished_set_is_told_apart_from_a_damaged_one(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "dataset.json").unlink()
    (copy / ".build" / "shard-000001.parquet").unlink()
    report = verify(copy)
    assert report.exit_code == 3
    assert "has not finished" in report.problems[0].what
    assert main([str(copy)]) == 3
    assert "goes on where it stopped" in capsys.readouterr().out
    with pytest.raises(SourceMissing, match="has not finished"):
        repair(copy)


def test_one_damaged_dataset_in_a_folder_is_found_and_named(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("birds", "fish", "zoo"):
        shutil.copytree(whole, tmp_path / "set" / name)
    flip(tmp_path / "set" / "fish" / "84" / "shard-000000.tar", 5000)
    report = verify(tmp_path / "set")
    assert report.datasets == ("birds", "fish", "zoo")
    assert {problem.dataset for problem in report.problems} == {"fish"}
    shutil.rmtree(tmp_path / "set" / "birds" / ".build")
    (tmp_path / "set" / "birds" / "dataset.json").unlink()
    assert main([str(tmp_path / "set"), "--json", "--quiet"]) == 4
    report = json.loads(capsys.readouterr().out)
    assert report["datasets"] == ["fish", "zoo"]
    assert {p["dataset"] for p in report["problems"]} == {"fish", "birds"}


def read_report(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> Mapping[str, Any]:
    main([*arguments, "--json"])
    return dict(json.loads(capsys.readouterr().out))


def test_json_lists_every_problem_with_its_cure(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_report([str(copy)], capsys)["ok"] is True
    for place in range(0, 300_000, 2_000):
        if place < (copy / "84" / "shard-000000.tar").stat().st_size:
            flip(copy / "84" / "shard-000000.tar", place)
    report = read_report([str(copy)], capsys)
    assert report["ok"] is False
    assert len(report["problems"]) > 10
    assert all(p["kind"] == "damaged" and "--repair" in p["cure"] for p in report["problems"])


def test_the_command_repairs_from_the_source_it_is_given(
    source: FolderSource, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree_hashes(copy)
    spoil_tar(copy)
    assert run_command(main, [str(copy), "--repair", "--quiet"]) == 2
    assert "--dataset" in capsys.readouterr().err
    source_flags = ["--dataset", "folder", "--source", str(source.root)]
    assert run_command(main, [str(copy), "--repair", "--quiet", *source_flags, "--workers", "1"]) == 0
    assert "mended" in capsys.readouterr().out
    assert tree_hashes(copy) == before


def test_a_path_without_shards_is_an_error_and_not_a_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, [str(tmp_path / "nowhere")]) == 3
    assert run_command(main, [str(tmp_path)]) == 3
    assert "error: " in capsys.readouterr().err


class Annotated(Source):
    """Frames with quality flags, boxes and a hierarchy, as ORBIT and ImageNet have."""

    def survey(self) -> Survey:
        items: list[Item | Rejected] = [
            Item(
                f"{number}", number % 2, "train", f"a/{number:03d}.jpg", group=f"v{number // 4}",
                user="p1", kind="clean" if number < 6 else "clutter", frame=number,
                quality=(0, 1, 0, 0, 1, 0, -1), box=(10, 20, 300, 400) if number % 3 else None,
            )
            for number in range(12)
        ]  # fmt: skip
        return Survey(
            classes=(ClassRecord(name="mug", superclass="p1"), ClassRecord(name="key")),
            items=items,
            hierarchy={"train": {"n1": ("n2", "n3")}},
            ordered=True,
        )


def test_boxes_flags_and_hierarchies_are_checked_too(tmp_path: Path) -> None:
    fill_class_folders(tmp_path / "frames", {"a": 12})
    recipe = Recipe(sizes=(24, 16), shard_samples=8)
    frames = Annotated(name="frames", root=tmp_path / "frames")
    out = tmp_path / "out"
    build_shards(frames, out, recipe, Run(workers=1))
    before = tree_hashes(out)
    assert verify(out).problems == ()
    edit_json(out / "16" / "shard-000000.tar", 2, b'"blur_issue": 0', b'"blur_issue": 1')
    edit_json(out / "24" / "shard-000000.tar", 2, b'"box": [0, 0,', b'"box": [0, 1,')
    texts = [problem.what for problem in verify(out, workers=2).problems]
    assert sum("blur_issue" in text or "box" in text for text in texts) == 2
    path = out / "dataset.json"
    path.write_text(path.read_text().replace('"n3"', '"n4"'))
    assert any(problem.file == "dataset.json" for problem in verify(out).problems)
    assert repair(out, frames, workers=1).ok
    assert tree_hashes(out) == before


def test_reports_add_up() -> None:
    total = CheckReport(datasets=("a",), files=1, bytes=2, members=3) + CheckReport(datasets=("b",), files=4)
    assert (total.datasets, total.files, total.bytes, total.members) == (("a", "b"), 5, 2, 3)
