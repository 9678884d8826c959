"""The tables of pipeline/README.md and learners/README.md: who may import whom, and which module imports a library."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^\| `(\w+)/?` \| (?:(both|offline|online|tools) \| )?[^|]+ \|$", re.MULTILINE)
PACKAGES = ("pipeline", "learners")
ROOMS = {  # package: its rooms (modules and folders), each with its half if it has one
    name: dict(ROW.findall((ROOT / name / "README.md").read_text(encoding="utf-8"))) for name in PACKAGES
}
PIPELINE_FILES = sorted((ROOT / "pipeline").rglob("*.py"))
FILES = [*PIPELINE_FILES, *sorted((ROOT / "learners").rglob("*.py"))]
CODE = [*FILES, ROOT / "train.py"]

DOORS = {  # library: the one module that may import it
    "tensorflow": "pipeline/sources/vtab/tfds_prepare.py",
    "tensorflow_datasets": "pipeline/sources/vtab/tfds_prepare.py",
    "ray": "pipeline/build/engines.py",
    "av": "pipeline/sources/orbit/video_child.py",
    "decord": "pipeline/sources/orbit/video_child.py",
    "nvidia": "pipeline/decoders/dali.py",
    "fsspec": "pipeline/store/remote_index.py",
    "aiohttp": "pipeline/store/http_answers.py",
    "timm": "learners/networks/backbones.py",
    "pynvml": "learners/training/nvml.py",
}
TORCH_ROOMS = {"decoders", "loader", "torch_datasets", "pixels"}  # of pipeline, that may import it
HEAVY = ("torch", "nvidia", "tensorflow", "tensorflow_datasets", "ray", "av", "decord", "cv2")
LIGHT = {  # all that a shared room of pipeline may ask of an installation
    "settings": {"msgspec", "yaml"},
    "index": {"numpy", "pyarrow"},
    "command": {"tqdm"},
}


def imports(file: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever in the file it stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative imports hide the arrows"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(name: str) -> str:
    """The room that a module stands in: `pipeline.sources.orbit.source` stands in `sources`."""
    return name.split(".")[1]


def rooms_imported(file: Path) -> set[str]:
    """The rooms of its own package that a file imports from."""
    package = module(file).split(".")[0]
    return {room(name) for name in imports(file) if name.startswith(f"{package}.")}


def may_import(package: str, importer: str, other: str) -> bool:
    """Whether the table allows it: a room above, of the same half or of both."""
    rooms = ROOMS[package]
    names = list(rooms)
    halves = {rooms[importer], "both"} if rooms[importer] != "tools" else set(rooms.values())
    return names.index(other) <= names.index(importer) and rooms[other] in halves


@pytest.mark.parametrize("package", PACKAGES)
def test_the_table_has_a_row_for_every_room_and_a_room_for_every_row(package: str) -> None:
    modules = {file.stem for file in (ROOT / package).glob("[!_]*.py")}
    folders = {file.parent.name for file in (ROOT / package).glob("[!_]*/__init__.py")}
    assert set(ROOMS[package]) == modules | folders


@pytest.mark.parametrize("file", FILES, ids=module)
def test_a_room_imports_only_rooms_above_it(file: Path) -> None:
    package, *inner = module(file).split(".")
    if not inner:
        return  # a package's door may open on everything
    barred = {r for r in rooms_imported(file) if not may_import(package, inner[0], r)}
    assert barred == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    known = {module(file) for file in FILES}
    graph = {module(file): {name for name in imports(file) if name in known} for file in FILES}
    for name, targets in graph.items():  # `from package import part` needs the part, not the door
        parts = {target for target in targets if any(t.startswith(f"{target}.") for t in targets)}
        graph[name] = targets - parts - {name}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("file", CODE, ids=module)
def test_a_heavy_library_is_imported_through_its_door_alone(file: Path) -> None:
    found = {name.split(".")[0] for name in imports(file)} & set(DOORS)
    place = file.relative_to(ROOT).as_posix()
    assert {library for library in found if place != DOORS[library]} == set()


@pytest.mark.parametrize("file", PIPELINE_FILES, ids=module)
def test_torch_is_imported_where_pixels_are_and_nowhere_else(file: Path) -> None:
    if module(file) == "pipeline":
        return
    tops = {name.split(".")[0] for name in imports(file)}
    assert room(module(file)) in TORCH_ROOMS or "torch" not in tops


@pytest.mark.parametrize("name", [r for r, half in ROOMS["pipeline"].items() if half == "both"])
def test_what_both_halves_share_needs_little_to_be_installed(name: str) -> None:
    files = [file for file in PIPELINE_FILES if module(file) != "pipeline" and room(module(file)) == name]
    tops = {found.split(".")[0] for file in files for found in imports(file)}
    foreign = tops - set(sys.stdlib_module_names) - {"pipeline"}
    assert foreign <= LIGHT.get(name, {"numpy"})


def test_building_the_demo_imports_nothing_heavy_in_any_process(tmp_path: Path) -> None:
    traps, sprung = tmp_path / "traps", tmp_path / "sprung.txt"
    traps.mkdir()
    for library in HEAVY:
        text = f"open({str(sprung)!r}, 'a').write('{library} ')\nraise ImportError('a trap')\n"
        (traps / f"{library}.py").write_text(text)
    path = os.pathsep.join([str(traps), str(ROOT)])
    options = ["--dataset", "demo", "--out", str(tmp_path / "demo"), "--limit-per-class", "4"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.build", *options, "--workers", "2"],
        env=os.environ | {"PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not sprung.exists(), f"imported: {sprung.read_text()}"
    assert list((tmp_path / "demo").rglob("dataset.json"))
