"""The environment that set-up made, and set-up's own decisions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import PIL
import pillow_race
import pillow_simd
import pytest
import setup_env
import system_packages
from PIL import Image

NOTE = Path(sys.prefix) / "pillow.json"
made_by_set_up = pytest.mark.skipif(
    not NOTE.exists(), reason="this environment was not made by tools/setup_env.py"
)
# Made by Pillow 12.3.0. Pillow 13 resizes the tall picture's height first and differs by 33 levels.
GOLDENS = {
    ((48, 40), "LANCZOS"): (
        "455c7e877c80887d7f967f7f6b857f7986808c987f92968159648096837f599580599d7f6e9f7f8e8f7f9c748069"
        "4e7f748b7fa3787f5a657f44727f88797f8a717fab8a7f698e7f788b7f6b9780766a7f544e7f87737f9b9180a78a"
        "7f7d9180849081719d7f6e8580724c7f93667f84777f9f7b8089937e"
    ),
    ((48, 40), "BICUBIC"): (
        "475c7e877a80847f7f92817f72857f78867f8c967f9294815b658091827f5d907f589a7f6e9e7f8d907f9a77806c"
        "517f758b809a7a8061687f48727f83777f8c727fa98a806c8d8079897f689280766c7f56537f87757f98907fa588"
        "7f7f91808493816f9d7f70827f724b7f92637f82767f9d7c808d947e"
    ),
    ((48, 40), "BILINEAR"): (
        "4c607e857b808182808b83807688807986808c91809090815e68808b7f80638b805a9680719b808b9080997c8070"
        "5c80748780917c80666d804f75808079808b7780a58880718a807888806b8e80746f805b5a80877680938c80a587"
        "808190808394816f9c80728180704f809063808476809c7e808d937e"
    ),
    ((20, 60), "LANCZOS"): (
        "8f5f399034345f346f6f614633634938494d5750805738813b37593d6766ab6833aa252b66227c7e654a35674839"
        "4c4c5a54624b39644a3d4e4f5954"
    ),
}
LEVELS = 2  # pillow-simd counts with 16-bit weights: 1 on pictures, 2 on such patterns
STAND_IN = """
import time
class Resampling: LANCZOS, BILINEAR = 1, 2
effect_noise = lambda *_: None
class Frame:
    def resize(self, *_):
        end = time.process_time() + {seconds}
        while time.process_time() < end: pass
merge = lambda *_: Frame()
"""


def test_one_distribution_alone_provides_pillow() -> None:
    names = [(distribution.metadata["Name"] or "").lower() for distribution in metadata.distributions()]
    assert [name for name in names if name in ("pillow", "pillow-simd", "pillow_simd")] == ["pillow"]


@made_by_set_up
def test_no_requirement_is_broken() -> None:
    command = [sys.executable, "-m", "pip", "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@made_by_set_up
def test_the_pillow_that_runs_is_the_one_that_set_up_chose() -> None:
    note = json.loads(NOTE.read_text())
    assert ("post" in PIL.__version__) == (note["flavour"] != "stock")
    assert note["flavour"] in (*pillow_simd.FLAVOURS, "stock")
    assert "pillow-simd" in note["why"] or "LITE_SHARDS_PILLOW=stock" in note["why"]


@made_by_set_up
def test_later_installs_keep_this_pillow() -> None:
    command = [sys.executable, "-m", "pip", "config", "get", "install.constraint"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    constraints = Path(sys.prefix) / "constraints.txt"
    assert done.stdout.strip() == constraints.as_uri()
    pinned = f"pillow=={PIL.__version__}\n" if "post" in PIL.__version__ else ""
    assert constraints.read_text() == pinned


@pytest.mark.parametrize(("size", "name"), GOLDENS)
def test_resizing_is_within_two_levels_of_plain_pillow(size: tuple[int, int], name: str) -> None:
    width, height = size
    places = [(x, y) for y in range(height) for x in range(width)]
    if width < height:
        levels = [255 * ((x * x * 7 // 16 + y * y * 3 // 64) % 3 == 0) for x, y in places]
        picture, target = _picture("L", size, levels), (10, 6)
    else:
        colours = [
            ((x * x * 7 + y * 3) % 256, (x * 5 + y * y * 11) % 256, 255 * ((x // 3 + y // 2) % 2))
            for x, y in places
        ]
        picture, target = _picture("RGB", size, [level for rgb in colours for level in rgb]), (8, 5)
    small = picture.convert("RGB").resize(target, Image.Resampling[name]).tobytes()
    small = small[::3] if picture.mode == "L" else small
    expected = bytes.fromhex(GOLDENS[size, name])
    assert len(small) == len(expected)
    assert max(abs(a - b) for a, b in zip(small, expected, strict=True)) <= LEVELS


def _picture(mode: str, size: tuple[int, int], levels: list[int]) -> Image.Image:
    return Image.frombytes(mode, size, bytes(levels))


def test_without_a_compiler_plain_pillow_is_taken_and_the_line_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    chosen, line = setup_env.choose(Path(sys.executable), "auto")
    assert chosen is None
    assert "plain Pillow" in line
    assert "no C compiler ('no-such-compiler' is not on the path)" in line
    assert f"`{system_packages.install_command()}`" in line


@pytest.mark.parametrize(
    ("os_release", "command"),
    [
        ("ID=debian\n", "apt-get install libwebp-dev libisal-dev"),
        ('NAME="Fedora Linux"\nID=fedora\n', "dnf install libwebp-devel isa-l-devel"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf install libwebp-devel isa-l-devel"),
        (None, "apt-get install libwebp-dev libisal-dev"),
    ],
)
def test_one_line_installs_what_is_missing_on_debian_and_on_red_hat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, os_release: str | None, command: str
) -> None:
    monkeypatch.setattr(system_packages, "OS_RELEASE", tmp_path / "os-release")
    if os_release is not None:
        (tmp_path / "os-release").write_text(os_release)
    assert system_packages.install_command(["webp", "isal"]) == command


@pytest.mark.parametrize("page", [".ci/run", "CONTRIBUTING.md"])
def test_every_debian_package_is_named_where_packages_are_listed(page: str) -> None:
    text = (setup_env.ROOT / page).read_text(encoding="utf-8")
    packages = " ".join(debian for debian, _ in system_packages.PACKAGES.values()).split()
    assert [package for package in packages if package not in text] == []


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_format_without_headers_is_left_out_of_a_build_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITE_SHARDS_CACHE", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(pillow_simd, "OPTIONAL_HEADERS", {"webp": "stdio.h", "tiff": "stdio.h"})
    complete = pillow_simd.build_folder("sse4")
    assert pillow_simd.missing_formats() == []
    monkeypatch.setitem(pillow_simd.OPTIONAL_HEADERS, "webp", "no/such/header.h")
    assert pillow_simd.missing_formats() == ["webp"]
    options = ["--config-settings=webp=disable", "--config-settings=tiff=enable"]
    assert pillow_simd.format_options() == options
    assert pillow_simd.build_folder("sse4") != complete


def test_set_up_says_which_formats_were_left_out_and_what_brings_them_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wheel = pillow_race.TimedWheel("sse4", Path("pillow.whl"), 1.0, 0.5)
    monkeypatch.setattr(pillow_simd, "wheels", lambda _: {"sse4": wheel.wheel})
    monkeypatch.setattr(pillow_simd, "plain_wheel", lambda _: None)
    monkeypatch.setattr(pillow_simd, "missing_formats", lambda: ["webp", "freetype"])
    monkeypatch.setattr(setup_env, "fastest", lambda *_: [wheel])
    chosen, line = setup_env.choose(Path(sys.executable), "auto")
    assert chosen == wheel
    assert "left out, as their headers are missing: webp, freetype" in line
    assert f"`{system_packages.install_command(['webp', 'freetype'])}`" in line


def test_insisting_on_simd_where_there_is_none_ends_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    with pytest.raises(SystemExit, match=r"LITE_SHARDS_PILLOW=simd.*x86-64 processor.*aarch64"):
        setup_env.choose(Path(sys.executable), "simd")


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (
            "\nThe headers or library files could not be found for jpeg,\na required dependency",
            "the development files of jpeg are missing",
        ),
        ("src/a.c:1:10: fatal error: Python.h: No such file or directory\n", "Python.h: No such"),
        ("  error: Command '['cc', '-O3']' returned 1\n  error: subprocess\n", "Command '['cc'"),
    ],
)
def test_a_failed_build_is_explained_in_one_line(tmp_path: Path, log: str, reason: str) -> None:
    (tmp_path / "build.log").write_text(log)
    assert pillow_simd.reason(tmp_path / "build.log").startswith(reason)


def test_the_faster_wheel_wins_and_one_that_does_not_run_is_forgotten(tmp_path: Path) -> None:
    code = {
        "slow": STAND_IN.format(seconds=0.004),
        "fast": STAND_IN.format(seconds=0.001),
        "broken": "raise ImportError('libjpeg.so.62 has gone')",
    }
    candidates = {name: tmp_path / name / "pillow.whl" for name in code}
    for name, text in code.items():
        candidates[name].parent.mkdir()
        with zipfile.ZipFile(candidates[name], "w") as wheel:
            wheel.writestr("PIL/__init__.py", "")
            wheel.writestr("PIL/Image.py", text)
    timed = pillow_race.fastest(Path(sys.executable), candidates)
    assert [one.flavour for one in timed] == ["fast", "slow"]
    assert not candidates["broken"].exists()


def test_a_cpu_torch_is_preferred_where_it_and_its_torchvision_are_on_offer() -> None:
    torch, torchvision = "2.99.0+cpu, 2.14.1, 2.13.0+cpu, 2.12.0+cpu", "0.29.2, 0.28.0+cpu"
    assert setup_env.cpu_build(torch, torchvision) == "torch==2.13.0+cpu"
    assert setup_env.cpu_build("2.15.0, 2.14.1, 2.13.0", torchvision) == ""
    assert setup_env.cpu_build(torch, "0.29.2, 0.28.0") == ""


def test_torch_spec_is_taken_at_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_SPEC", "torch==2.12.0")
    assert setup_env.torch_spec(Path(sys.executable)) == "torch==2.12.0"


def test_set_up_says_whether_decoding_was_compiled() -> None:
    compiled = find_spec("pipeline.decoders.native") is not None
    words = setup_env.decoding(Path(sys.executable))
    command = system_packages.install_command(setup_env.COMPILED_LOOP)
    assert words == "compiled" if compiled else f"`{command}`" in words


def test_set_up_and_pyproject_agree_on_the_versions() -> None:
    project = (setup_env.ROOT / "pyproject.toml").read_text()
    assert f'"{pillow_simd.PLAIN}"' in project
    assert f'"{setup_env.TORCH}"' in project
