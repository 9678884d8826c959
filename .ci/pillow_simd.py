"""Builds pillow-simd under the name `pillow`, each flavour once, and keeps the wheels.

pillow-simd is Pillow with SSE4 or AVX2 resizing. Its distribution has another name but the same
files, so the two installed side by side overwrite each other; a wheel that calls itself `pillow`
cannot. Why, and the figures: docs/decisions/0003-pillow-simd.md. Standard library only: this runs
before anything is installed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

VERSION: Final = "12.1.1.post0"
SDIST: Final = f"pillow_simd-{VERSION}.tar.gz"
SHA256: Final = "8e9694ec94c59d12f16753cbf48a3080266bdd704b0c51a630318c7a325625b1"
PLAIN: Final = "pillow>=11,<13"  # as in pyproject.toml: 13 resizes tall pictures in another order
# -O3 is said aloud: a CFLAGS in the environment replaces Python's own flags, and SIMD intrinsics
# without optimisation are slower than plain Pillow.
FLAVOURS: Final = {"sse4": "-O3 -fwrapv", "avx2": "-O3 -fwrapv -mavx2"}
NEEDS: Final = {"sse4": "sse4_1", "avx2": "avx2"}  # names in /proc/cpuinfo
MACHINES: Final = ("x86_64", "AMD64", "amd64")
BUILD_SECONDS: Final = 1200  # 40 s on two idle cores; far above, so that only a hang ends here
FORMATS: Final = ("webp", "tiff")  # a build without their headers would reject good pictures


class Unavailable(Exception):
    """Why there is no pillow-simd on this machine, in one line."""


def cache_folder() -> Path:
    """LITE_SHARDS_CACHE, or the usual place."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LITE_SHARDS_CACHE") or Path(base) / "lite-shards")


def possible_flavours() -> list[str]:
    """The flavours that this machine can compile and run. Raises Unavailable if there is none."""
    if platform.machine() not in MACHINES:
        raise Unavailable(f"it needs an x86-64 processor, this is {platform.machine()}")
    if shutil.which(compiler()[0]) is None:
        raise Unavailable(f"no C compiler ({compiler()[0]!r} is not on the path)")
    cpuinfo = Path("/proc/cpuinfo")
    known = cpuinfo.read_text().split() if cpuinfo.exists() else [NEEDS["sse4"]]
    flavours = [flavour for flavour in FLAVOURS if NEEDS[flavour] in known]
    if not flavours:
        raise Unavailable("the processor has no SSE4")
    return flavours


def compiler() -> list[str]:
    return os.environ.get("CC", "cc").split()


def wheels(python: Path) -> dict[str, Path]:
    """A wheel of each possible flavour, from the cache or built now, all at once."""
    flavours = possible_flavours()
    missing = [flavour for flavour in flavours if _cached(flavour) is None]
    if missing:
        print(f"pillow-simd {VERSION}: building {' and '.join(missing)} (a minute or two, once)")
        source = _source(python)
        with ThreadPoolExecutor(len(missing)) as pool:
            failures = list(filter(None, pool.map(lambda f: _build(python, f, source), missing)))
        if len(failures) == len(flavours):
            raise Unavailable(failures[0])
        for failure in failures:
            print(f"pillow-simd {VERSION}: {failure}")
    found = {flavour: _cached(flavour) for flavour in flavours}
    return {flavour: wheel for flavour, wheel in found.items() if wheel is not None}


def plain_wheel(python: Path) -> Path | None:
    """Pillow's own wheel, to compare with; None if it cannot be had."""
    folder = cache_folder() / f"plain-{_tag()}"
    if not any(folder.glob("*.whl")):
        options = ["-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
        command = [str(python), "-m", "pip", "download", *options, PLAIN]
        subprocess.run(command, capture_output=True, check=False)
    return next(folder.glob("*.whl"), None)


def _tag() -> str:
    version = f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    return version.replace("/", "_")


def _folder(flavour: str) -> Path:
    """Everything that decides the build is in the name, so that another compiler builds anew."""
    about = subprocess.run([*compiler(), "--version"], capture_output=True, check=False).stdout
    flags = FLAVOURS[flavour] + os.environ.get("CFLAGS", "") + os.environ.get("CPPFLAGS", "")
    key = hashlib.sha256(about + flags.encode()).hexdigest()[:12]
    return cache_folder() / f"pillow-{VERSION}-{_tag()}-{flavour}-{key}"


def _cached(flavour: str) -> Path | None:
    return next(_folder(flavour).glob("*.whl"), None)


def _source(python: Path) -> Path:
    """The verified source archive. Raises Unavailable."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    archive = cache_folder() / SDIST
    if not archive.exists():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as temporary:
            options = ["-q", "--no-deps", "--no-binary=pillow-simd", "-d", temporary]
            command = [str(python), "-m", "pip", "download", *options, f"pillow-simd=={VERSION}"]
            if subprocess.run(command, capture_output=True, check=False).returncode:
                raise Unavailable(f"pip could not download pillow-simd {VERSION}")
            (Path(temporary) / SDIST).replace(archive)
    if (found := hashlib.sha256(archive.read_bytes()).hexdigest()) != SHA256:
        archive.unlink()
        raise Unavailable(f"{SDIST} has sha256 {found}, not {SHA256}; it was deleted")
    return archive


def _build(python: Path, flavour: str, archive: Path) -> str | None:
    """Put the wheel into the cache; on failure the reason and where the log is."""
    log = cache_folder() / f"build-{flavour}.log"
    with tempfile.TemporaryDirectory() as temporary, log.open("w") as output:
        with tarfile.open(archive) as tar:  # its sha256 is ours, so its paths are known to be good
            tar.extractall(temporary)
        tree = Path(temporary) / SDIST.removesuffix(".tar.gz")
        project = tree / "pyproject.toml"
        project.write_text(project.read_text().replace('name = "pillow-simd"', 'name = "pillow"'))
        options = [f"--config-settings={name}=enable" for name in FORMATS]
        command = [str(python), "-m", "pip", "wheel", "-v", "--no-deps", *options, "-w", "out", "."]
        environment = os.environ | {"CC": " ".join([*compiler(), FLAVOURS[flavour]])}
        try:
            done = subprocess.run(
                command,
                cwd=tree,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                timeout=BUILD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"the {flavour} build took over {BUILD_SECONDS} s (log: {log})"
        built = next((tree / "out").glob("pillow-*.whl"), None)
        if done.returncode or built is None:
            return f"the {flavour} build failed: {reason(log)} (log: {log})"
        _keep(built, _folder(flavour))
    return None


def _keep(wheel: Path, folder: Path) -> None:
    """Copy, then rename: a wheel in the cache is whole, also if two set-ups run at once."""
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / f"{wheel.name}.{os.getpid()}"
    shutil.copyfile(wheel, half)
    half.replace(folder / wheel.name)


def reason(log: Path) -> str:
    """The line of the build log that a person would look for."""
    text = log.read_text(errors="replace")
    if missing := re.search(r"headers or library files could not be found for (\w+)", text):
        return f"the development files of {missing[1]} are missing"
    if fatal := re.search(r"fatal error: (.+)", text):
        return fatal[1]
    errors = re.findall(r"^\s*(?:\w+)?[Ee]rror: (.+)", text, re.MULTILINE)
    return errors[0][:200] if errors else "no reason found"
