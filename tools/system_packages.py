"""The system packages that set-up compiles against, and the one command that installs them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

OS_RELEASE: Final = Path("/etc/os-release")
DNF_FAMILIES: Final = {"fedora", "rhel", "centos"}  # of ID and ID_LIKE in /etc/os-release
PACKAGES: Final = {  # what for: names for apt-get, names for dnf
    "compiler": ("gcc libc6-dev", "gcc"),
    "python": ("python3-dev", "python3-devel"),
    "jpeg": ("libjpeg-dev", "libjpeg-turbo-devel"),
    "zlib": ("zlib1g-dev", "zlib-devel"),
    "webp": ("libwebp-dev", "libwebp-devel"),
    "tiff": ("libtiff-dev", "libtiff-devel"),
    "freetype": ("libfreetype-dev", "freetype-devel"),
    "isal": ("libisal-dev", "isa-l-devel"),
}


def install_command(parts: Iterable[str] = PACKAGES) -> str:
    """One line that installs what the parts need: `dnf install` on Fedora and Red Hat, else `apt-get install`."""
    text = OS_RELEASE.read_text(encoding="utf-8") if OS_RELEASE.exists() else ""
    families = re.findall(r"\w+", " ".join(re.findall(r"^ID(?:_LIKE)?=(.*)", text, re.MULTILINE)))
    dnf = not DNF_FAMILIES.isdisjoint(families)
    packages = [PACKAGES[part][dnf] for part in parts]
    return " ".join(["dnf install" if dnf else "apt-get install", *packages])
