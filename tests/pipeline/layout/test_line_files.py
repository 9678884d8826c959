from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.layout import LineWriter


def test_a_line_is_in_the_file_before_the_next_one_comes(tmp_path: Path) -> None:
    file = tmp_path / "lines"
    for part in ("one", "two"):
        lines = LineWriter(file)
        lines.write(part)
        assert file.read_text().endswith(f"{part}\n")
        lines.close()
    assert file.read_text() == "one\ntwo\n"


def test_an_error_names_the_file_and_closing_does_not_raise_it_again() -> None:
    lines = LineWriter(Path("/dev/full"))
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"):
        lines.write("one")
    lines.close()
