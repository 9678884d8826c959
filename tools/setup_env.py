"""Makes the virtual environment: `python3 tools/setup_env.py [--venv .venv] [--extra test]`.

Pillow comes first, in the fastest build that runs on this machine (LITE_SHARDS_PILLOW=simd insists
on pillow-simd, =stock does without it; default: simd where it can be built). Everything else is
installed under a constraint that keeps this Pillow; the constraint is also written into the
environment's pip.conf, so that later `pip install`s keep it too. TORCH_SPEC chooses the torch.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Final

import pillow_simd
from pillow_race import TimedWheel, fastest
from system_packages import install_command

ROOT: Final = Path(__file__).resolve().parent.parent
TORCH: Final = "torch>=2.10,<2.15"  # as in pyproject.toml's extra
TORCH_MINORS: Final = range(10, 15)
EXTRAS_WITH_TORCH: Final = ("train", "test", "dev", "fuzz", "bench")
OLDEST_PYTHON: Final = (3, 10)
PILLOW_CHOICES: Final = ("simd", "stock", "auto")
COMPILED_LOOP: Final = ("compiler", "python", "jpeg", "isal")  # what pipeline/decoders/native.c needs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv")
    parser.add_argument("--extra", default="", help="one of pyproject.toml's extras")
    request = parser.parse_args()
    if sys.version_info < OLDEST_PYTHON:
        sys.exit(f"Python 3.10 or later is needed, this is {sys.version.split()[0]}; set PYTHON=")
    begin = time.monotonic()
    folder: Path = request.venv.absolute()
    python = environment(folder)
    install_pillow(python, folder)
    install_project(python, request.extra)
    print(f"JPEG decoding: {decoding(python)}")
    print(f"set-up of {folder.name} took {time.monotonic() - begin:.0f} s")


def environment(folder: Path) -> Path:
    """The environment's interpreter; the environment is made if it is missing or has no pip."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if python.exists() and pip(python, "--version", must=False):
        return python
    print(f"virtual environment: {folder} (Python {sys.version.split()[0]})")
    broken = (folder / "pyvenv.cfg").exists()  # empty only what was an environment
    try:
        venv.create(folder, with_pip=True, clear=broken)
    except subprocess.CalledProcessError:
        sys.exit("this Python cannot make environments with pip; Debian: apt install python3-venv")
    return python


def install_pillow(python: Path, folder: Path) -> None:
    """Install one Pillow, pin it, and write down which one and why."""
    note, constraints = folder / "pillow.json", folder / "constraints.txt"
    wish = os.environ.get("LITE_SHARDS_PILLOW", "auto") or "auto"
    if wish not in PILLOW_CHOICES:
        sys.exit(f"LITE_SHARDS_PILLOW must be one of {', '.join(PILLOW_CHOICES)}; it is {wish!r}")
    if note.exists() and json.loads(note.read_text())["wish"] == wish:
        return
    note.unlink(missing_ok=True)  # written last: a set-up that was interrupted starts here again
    chosen, why = choose(python, wish)
    constraints.write_text(f"pillow=={pillow_simd.VERSION}\n" if chosen else "")
    pip_conf = folder / ("pip.ini" if os.name == "nt" else "pip.conf")
    pip_conf.write_text(f"[install]\nconstraint = {constraints.as_uri()}\n")
    pip(python, "uninstall", "--yes", "pillow", "pillow-simd")
    pip(python, "install", "--no-deps", str(chosen.wheel if chosen else pillow_simd.PLAIN))
    flavour = chosen.flavour if chosen else "stock"
    note.write_text(json.dumps({"wish": wish, "flavour": flavour, "why": why}, indent=1) + "\n")
    print(f"Pillow: {why}")


def choose(python: Path, wish: str) -> tuple[TimedWheel | None, str]:
    """The build to install (None: Pillow from the index), and the reason in one line."""
    if wish == "stock":
        return None, "plain, as LITE_SHARDS_PILLOW=stock asks"
    try:
        candidates = pillow_simd.wheels(python)
        plain = pillow_simd.plain_wheel(python)
        timed = fastest(python, candidates | ({"plain": plain} if plain else {}))
    except pillow_simd.Unavailable as error:
        return _without(wish, str(error))
    simd = [candidate for candidate in timed if candidate.flavour != "plain"]
    if not simd:
        return _without(wish, "the builds do not run here")
    if wish == "auto" and timed[0].flavour == "plain":
        return _without(wish, f"its builds are slower here: {_figures(timed)}")
    line = f"pillow-simd {pillow_simd.VERSION}, {simd[0].flavour} build ({_figures(timed)})"
    if missing := pillow_simd.missing_formats():
        names = ", ".join(missing)
        line += f"; left out, as their headers are missing: {names} (`{install_command(missing)}`, then"
        line += " `make clean`)"
    return simd[0], line


def _without(wish: str, reason: str) -> tuple[None, str]:
    if wish == "simd":
        sys.exit(f"LITE_SHARDS_PILLOW=simd, but there is no pillow-simd: {reason}")
    return None, f"plain Pillow, the build will be slower; no pillow-simd because {reason}"


def _figures(timed: list[TimedWheel]) -> str:
    parts = [f"{one.flavour} {one.lanczos_ms:.2f}" for one in timed]
    return f"LANCZOS 1080 to 224 in ms of CPU: {', '.join(parts)}"


def install_project(python: Path, extra: str) -> None:
    """The project itself, editable, with its dependencies."""
    target = f"{ROOT}[{extra}]" if extra else str(ROOT)
    torch = [torch_spec(python)] if extra in EXTRAS_WITH_TORCH else []
    print(f"installing lite-shards{f'[{extra}]' if extra else ''} {' '.join(torch)}")
    pip(python, "install", "--editable", target, *torch)


def decoding(python: Path) -> str:
    """One line: whether pipeline/decoders/native.c was compiled. pip hides why it was not."""
    command = [str(python), "-c", "import pipeline.decoders.native"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not done.returncode:
        return "compiled"
    return (
        "sample by sample, which is slower; to compile the loop: "
        f"`{install_command(COMPILED_LOOP)}`, then `{python} -m pip install -e .`"
    )


def torch_spec(python: Path) -> str:
    """TORCH_SPEC; else without a GPU a CPU build, where the configured indexes offer one.

    `torch` alone may be gigabytes of CUDA libraries that a machine without a GPU cannot use. timm needs
    torchvision, which loads only beside the build of torch that it was made for: so both or neither.
    """
    if spec := os.environ.get("TORCH_SPEC"):
        return spec
    if shutil.which("nvidia-smi"):
        return TORCH
    offers = [pip(python, "index", "versions", name, must=False) for name in ("torch", "torchvision")]
    return cpu_build(*offers) or TORCH


def cpu_build(torch: str, torchvision: str) -> str:
    """The newest CPU build that fits, from the output of `pip index versions`; "" if there is none."""
    builds = re.findall(r"\b(2\.(\d+)\.\d+\+cpu)", torch)
    fitting = [version for version, minor in builds if int(minor) in TORCH_MINORS]
    return f"torch=={fitting[0]}" if fitting and "+cpu" in torchvision else ""


def pip(python: Path, *arguments: str, must: bool = True) -> str:
    """Run pip; its output is shown only if it fails."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and must:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
