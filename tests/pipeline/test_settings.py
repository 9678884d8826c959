"""Dataclasses become flags, and values from files become dataclasses, with errors that name a field."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.settings import (
    add_flags,
    check_choices,
    given_flags,
    parse_json,
    read_config,
    read_json,
    setting,
    typed,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    folder: str = setting(text="where it lies")
    image_size: int = setting(84, "pixels", metavar="PX")
    sizes: tuple[int, ...] = setting((84, 224), "sides")
    names: tuple[str, ...] = setting((), "datasets (all)", metavar="NAME")
    mode: Literal["fast", "slow"] = setting("fast", "how")
    rate: float = setting(0.5, "of learning (as in the paper)")
    most: int | None = setting(None, "at most")
    chunk: int | Literal["auto"] = setting("auto", "images")
    flip: bool = setting(False, "mirror")
    device: str = setting("cpu", "where", choices=("cpu", "cuda"))
    hidden: int = 3

    def __post_init__(self) -> None:
        check_choices(self)
        if self.image_size < 1:
            raise UsageError(f"--image-size starts at 1, got {self.image_size}")


def flags(*names: str) -> ArgumentParser:
    parser = ArgumentParser(prog="settings")
    add_flags(parser, Settings, names)
    return parser


def test_each_field_with_help_is_a_flag_with_its_type_choices_and_default() -> None:
    shown = " ".join(flags().format_help().split())
    for text in (
        "--folder STR where it lies --image-size PX pixels (84)",
        "--sizes INT [INT ...] sides (84 224)",
        "--names NAME [NAME ...] datasets (all)",
        "--mode {fast,slow} how (fast)",
        "--rate FLOAT of learning (as in the paper)",
        "--most INT at most",
        "--chunk auto|INT images (auto)",
        "--device {cpu,cuda} where (cpu)",
    ):
        assert text in shown
    assert "--flip, --no-flip" in shown
    assert "hidden" not in shown


def test_only_the_flags_that_were_given_have_values() -> None:
    arguments = flags().parse_args(["--image-size", "42", "--no-flip", "--sizes", "1", "2"])
    assert given_flags(arguments) == {"image_size": 42, "flip": False, "sizes": (1, 2)}
    arguments.other = 5
    assert "other" in given_flags(arguments)
    assert "other" not in given_flags(arguments, Settings)


@pytest.mark.parametrize(("word", "value"), [("auto", "auto"), ("40", 40)])
def test_a_field_that_is_a_number_or_a_word_takes_either(word: str, value: object) -> None:
    given = given_flags(flags().parse_args(["--chunk", word]))
    assert given == {"chunk": value}
    assert typed({"folder": "x", **given}, Settings, "flags").chunk == value


def test_what_is_neither_the_number_nor_the_word_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        flags().parse_args(["--chunk", "many"])
    assert "argument --chunk: auto or int, not 'many'" in capsys.readouterr().err


def test_fields_can_be_chosen_by_name() -> None:
    assert vars(flags("mode", "most").parse_args([])) == {"mode": None, "most": None}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"folder": "x", "image_size": "84"}, "image_size: Expected `int`, got `str`"),
        ({"folder": "x", "flip": "no"}, "flip: Expected `bool`, got `str`"),
        ({"folder": "x", "mode": "medium"}, "mode: Invalid enum value 'medium'"),
        ({"folder": "x", "sizes": [84, "224"]}, r"sizes\[1\]: Expected `int`, got `str`"),
        ({"folder": "x", "device": "tpu"}, "--device is one of cpu, cuda; got 'tpu'"),
        ({"folder": "x", "image_size": 0}, "--image-size starts at 1, got 0"),
        ({"folder": "x", "image_sise": 5}, "'image_sise', which .*; 'image_size' may be meant"),
        ({}, "missing required field `folder`"),
        ([1], "Expected `object`, got `array`"),
        (None, "Expected `object`, got `null`"),
    ],
)
def test_a_wrong_value_is_an_error_with_the_name_of_its_field(values: Any, problem: str) -> None:
    for error in (IntegrityError, UsageError):
        with pytest.raises(error, match=problem):
            typed(values, Settings, "settings.json", error)


def test_right_values_become_the_dataclass_and_other_types() -> None:
    values = {"folder": "x", "sizes": [1, 2], "rate": 1}
    assert typed(values, Settings, "") == Settings(folder="x", sizes=(1, 2), rate=1.0)
    assert typed({"84": [1]}, dict[int, tuple[int, ...]], "") == {84: (1,)}


def test_a_json_file_that_is_missing_or_damaged_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    with pytest.raises(SourceMissing, match=r"values\.json is not there"):
        read_json(file)
    with pytest.raises(SourceMissing, match="make it first"):
        read_json(file, "make it first")
    for text in (b"{", b"\xff\xfe\xff", b"[" * 100_000 + b"]" * 100_000):
        file.write_bytes(text)
        with pytest.raises(IntegrityError, match=r"values\.json is damaged: .*; make it again"):
            read_json(file, cure="make it again")
        with pytest.raises(IntegrityError, match="a record is damaged"):
            parse_json(text, "a record")


def test_a_json_file_without_end_or_bottom_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "values.json"
    file.write_text("[" * 65 + "]" * 65)
    with pytest.raises(IntegrityError, match=r"values\.json is damaged: it nests more than 64 deep; make it"):
        read_json(file, cure="make it again")
    file.write_text("[" * 64 + "]" * 64)
    assert read_json(file) != []
    monkeypatch.setattr("pipeline.settings.JSON_BYTES", 100)
    with pytest.raises(IntegrityError, match=r"values\.json has 128 bytes, and 100 are the limit"):
        read_json(file)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(IntegrityError, match=r"values\.json is no regular file"):
        read_json(file)


def test_half_a_character_is_no_text() -> None:
    with pytest.raises(IntegrityError, match=r"settings\.json holds what is no text"):
        typed([{"\ud800": 1}], tuple[Settings, ...], "settings.json")


def test_a_config_is_yaml_or_json_with_names_as_flags_or_fields_have_them(tmp_path: Path) -> None:
    for name, text in (("a.yaml", "image-size: 42\nflip: true"), ("a.json", '{"image-size": 42}')):
        (tmp_path / name).write_text(text)
        assert read_config(tmp_path / name)["image_size"] == 42
    (tmp_path / "b.yaml").write_text("- 1\n- 2")
    with pytest.raises(UsageError, match="should hold names and values"):
        read_config(tmp_path / "b.yaml")
    for name, text in (("c.yaml", "a: ["), ("c.json", "{"), ("d.json", "[" * 100_000)):
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match="cannot be read"):
            read_config(tmp_path / name)
    for name in ("e.yaml", "e.json"):
        (tmp_path / name).write_bytes(b"\xff\xfe\xfa")
        with pytest.raises(UsageError, match="cannot be read"):
            read_config(tmp_path / name)
    with pytest.raises(SourceMissing, match="there is no such file"):
        read_config(tmp_path)
