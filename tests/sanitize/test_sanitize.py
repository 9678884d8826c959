"""Both native.c under sanitizers, with a few hundred mutated images; `python -m tests.sanitize` tries 10,000."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sanitize.build import SanitizersMissing, compile_sanitized, run_trials

IMAGES = 400


def test_no_mutated_image_makes_native_code_read_or_write_elsewhere_or_differ_from_python(
    tmp_path: Path,
) -> None:
    try:
        compile_sanitized(tmp_path)
    except SanitizersMissing as missing:
        pytest.skip(str(missing))
    done = run_trials(tmp_path, IMAGES, seed=0)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "damaged" in done.stdout
    assert "sound" in done.stdout
