"""Every row of the fault matrix in its short form; `make faults` runs the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.rows import MATRIX, load_row, row_names


def test_every_row_of_the_matrix_has_a_module() -> None:
    assert tuple(row_names()) == MATRIX


@pytest.mark.parametrize("name", row_names())
def test_a_row_meets_its_figure(name: str, tmp_path: Path) -> None:
    script = load_row(name)
    assert script.title
    assert 0 < script.short <= script.long
    row = script.run(script.short, tmp_path)
    assert row.tried > 0
    assert row.failed == 0, row.figure
