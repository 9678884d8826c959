"""Builds pillow-simd under the name `pillow`, each flavour once, and keeps the wheels.

pillow-simd is Pillow with SSE4 or AVX2 resizing. Its distribution has another name but the same
files, so the two overwrite each other when both are installed; a wheel named `pillow` avoids that.
Reasons and figures: docs/decisions/0003-pillow-simd.md. Standard library only: this runs before
anything is installed.
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

from system_packages import install_command

VERSION: Final = "12.1.1.post0"
SDIST: Final = f"pillow_simd-{VERSION}.tar.gz"
SHA256: Final = "8e9694ec94c59d12f16753cbf48a3080266bdd704b0c51a630318c7a325625b1"
PLAIN: Final = "pillow>=11,<13"  # as in pyproject.toml: 13 resizes tall images in another order
# -O3 is explicit: a CFLAGS in the environment replaces Python's own flags, and SIMD intrinsics
# without optimisation are slower than plain Pillow.
FLAVOURS: Final = {"sse4": "-O3 -fwrapv", "avx2": "-O3 -fwrapv -mavx2"}
NEEDS: Final = {"sse4": "sse4_1", "avx2": "avx2"}  # names in /proc/cpuinfo
MACHINES: Final = ("x86_64", "AMD64", "amd64")
BUILD_SECONDS: Final = 1200  # 40 s on two idle cores; far above, so that only a hang ends here
OPTIONAL_HEADERS: Final = {  # of the parts of Pillow that a build can do without
    "webp": "webp/decode.h",
    "tiff": "tiff.h",
    "freetype": "freetype2/ft2build.h",
}


class Unavailable(Exception):
    """Why there is no pillow-simd on this machine, in one line."""


def cache_folder() -> Path:
    """The folder of built wheels: LITE_SHARDS_CACHE, or lite-shards in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("LITE_SHARDS_CACHE") or Path(base) / "lite-shards")


def possible_flavours() -> list[str]:
    """The flavours that this machine can compile and run. Raises Unavailable if there is none."""
    if platform.machine() not in MACHINES:
        raise Unavailable(f"it needs an x86-64 processor, this is {platform.machine()}")
    if shutil.which(compiler()[0]) is None:
        missing = f"no C compiler ({compiler()[0]!r} is not on the path)"
        raise Unavailable(f"{missing}; {remedy()}")
    cpuinfo = Path("/proc/cpuinfo")
    features = cpuinfo.read_text().split() if cpuinfo.exists() else [NEEDS["sse4"]]
    flavours = [flavour for flavour in FLAVOURS if NEEDS[flavour] in features]
    if not flavours:
        raise Unavailable("the processor has no SSE4")
    return flavours


def compiler() -> list[str]:
    """The compiler's command: CC, or cc."""
    return os.environ.get("CC", "cc").split()


def missing_formats() -> list[str]:
    """The optional parts of Pillow whose headers the compiler does not find."""
    source = "".join(
        f"#if __has_include(<{header}>)\n{name}\n#endif\n" for name, header in OPTIONAL_HEADERS.items()
    )
    flags = f"{os.environ.get('CPPFLAGS', '')} {os.environ.get('CFLAGS', '')}".split()
    command = [*compiler(), *flags, "-E", "-P", "-x", "c", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    return [name for name in OPTIONAL_HEADERS if name not in done.stdout.split()]


def remedy() -> str:
    """What to do where packages are missing."""
    return f"`{install_command()}`, then `make clean` and the same command, gives the fast build"


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
    built = {flavour: _cached(flavour) for flavour in flavours}
    return {flavour: wheel for flavour, wheel in built.items() if wheel is not None}


def plain_wheel(python: Path) -> Path | None:
    """Pillow's own wheel, to compare with; None if pip cannot download it."""
    folder = cache_folder() / f"plain-{_tag()}"
    if not any(folder.glob("*.whl")):
        options = ["-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
        command = [str(python), "-m", "pip", "download", *options, PLAIN]
        subprocess.run(command, capture_output=True, check=False)
    return next(folder.glob("*.whl"), None)


def _tag() -> str:
    version = f"{sys.implementation.cache_tag}-{sysconfig.get_platform()}"
    return version.replace("/", "_")


def build_folder(flavour: str) -> Path:
    """The cache's folder for one build; its name changes with the compiler, the flags and the formats."""
    about = subprocess.run([*compiler(), "--version"], capture_output=True, check=False).stdout
    flags = FLAVOURS[flavour] + os.environ.get("CFLAGS", "") + os.environ.get("CPPFLAGS", "")
    flags += " ".join(format_options())
    key = hashlib.sha256(about + flags.encode()).hexdigest()[:12]
    return cache_folder() / f"pillow-{VERSION}-{_tag()}-{flavour}-{key}"


def _cached(flavour: str) -> Path | None:
    return next(build_folder(flavour).glob("*.whl"), None)


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
    if (digest := hashlib.sha256(archive.read_bytes()).hexdigest()) != SHA256:
        archive.unlink()
        raise Unavailable(f"{SDIST} has sha256 {digest}, not {SHA256}; it was deleted")
    return archive


def format_options() -> list[str]:
    """Options of Pillow's build: the optional formats are required or left out, never guessed."""
    missing = missing_formats()
    return [
        f"--config-settings={name}={'disable' if name in missing else 'enable'}" for name in OPTIONAL_HEADERS
    ]


def _build(python: Path, flavour: str, archive: Path) -> str | None:
    """Put the wheel into the cache; on failure return the reason and where the log is."""
    log = cache_folder() / f"build-{flavour}.log"
    with tempfile.TemporaryDirectory() as temporary, log.open("w") as output:
        with tarfile.open(archive) as tar:  # its sha256 was checked, so its paths are safe
            tar.extractall(temporary)
        tree = Path(temporary) / SDIST.removesuffix(".tar.gz")
        project = tree / "pyproject.toml"
        project.write_text(project.read_text().replace('name = "pillow-simd"', 'name = "pillow"'))
        command = [str(python), "-m", "pip", "wheel", "-v", "--no-deps", "-w", "out"]
        command += [*format_options(), "."]
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
        _keep(built, build_folder(flavour))
    return None


def _keep(wheel: Path, folder: Path) -> None:
    """Copy, then rename, so that the cache never holds half a wheel, even if two set-ups run at once."""
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / f"{wheel.name}.{os.getpid()}"
    shutil.copyfile(wheel, half)
    half.replace(folder / wheel.name)


def reason(log: Path) -> str:
    """The line of a build log that says why the build failed."""
    text = log.read_text(errors="replace")
    if missing := re.search(r"headers or library files could not be found for (\w+)", text):
        return f"the development files of {missing[1]} are missing; {remedy()}"
    if fatal := re.search(r"fatal error: (.+)", text):  # a header, nearly always
        return f"{fatal[1]}; {remedy()}"
    errors = re.findall(r"^\s*(?:\w+)?[Ee]rror: (.+)", text, re.MULTILINE)
    return errors[0][:200] if errors else "no reason found"
