"""The versions that pyproject.toml allows are without the known holes that our inputs could reach."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version

PROJECT = (Path(__file__).resolve().parent.parent / "pyproject.toml").read_text(encoding="utf-8")
ADVISORIES = {  # package: the first version without the hole, and which hole it is
    "pyarrow": ("14.0.1", "CVE-2023-47248: a Parquet file could run code"),
    "pillow": (
        "10.3.0",
        "CVE-2024-28219, CVE-2023-50447; those of 10.3 to 13 are closed in front of it: decision 3",
    ),
    "tqdm": ("4.66.3", "CVE-2024-34062: evaluates options of its command line"),
    "torch": ("2.10", "CVE-2026-24747, CVE-2025-32434: weights_only=True could run code"),
    "aiohttp": ("3.13.4", "CVE-2026-22815: trailers of an answer without limit"),
    "pyyaml": ("5.4", "CVE-2020-14343: a YAML file could run code"),
    "opencv-python-headless": ("4.8.1.78", "CVE-2023-4863: WebP, before tfds prepares images"),
    "setuptools": ("78.1.1", "CVE-2025-47273: a package index could write anywhere"),
}


@pytest.mark.parametrize("package", ADVISORIES)
def test_no_version_with_a_known_hole_is_allowed(package: str) -> None:
    fixed, hole = ADVISORIES[package]
    bounds = re.findall(rf'"{package}(?:\[\w+\])?>=([\d.]*\d)', PROJECT)
    assert bounds, f"pyproject.toml gives no lower bound for {package}"
    assert all(Version(bound) >= Version(fixed) for bound in bounds), hole


@pytest.mark.parametrize("package", ADVISORIES)
def test_no_version_with_a_known_hole_is_installed(package: str) -> None:
    fixed, hole = ADVISORIES[package]
    try:
        installed = metadata.version(package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed here")
    assert Version(installed) >= Version(fixed), hole
