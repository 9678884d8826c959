"""Settings as frozen dataclasses: their fields become command-line flags, and JSON is read with their types.

@dataclass(frozen=True, kw_only=True)
class Settings:
    way: int = setting(5, "classes of an episode")

add_flags(parser, Settings)                  # --way INT
values = given_flags(parser.parse_args())    # {"way": 7}: only what the command line says
settings = typed(values, Settings, "flags")  # "way": "7" is an error that names the field
"""

from __future__ import annotations

import json
import types
from argparse import ArgumentParser, BooleanOptionalAction, Namespace, _ArgumentGroup
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from pipeline.errors import IntegrityError, PipelineError, SourceMissing, UsageError

T = TypeVar("T")
YAML_SUFFIXES: Final = (".yaml", ".yml")


def setting(default: Any = MISSING, text: str = "", *, metavar: str = "") -> Any:
    """A dataclass field with the `--help` text of its flag; required without a default."""
    metadata = {"help": text, "metavar": metavar}
    return (
        field(metadata=metadata)
        if default is MISSING
        else field(default=default, metadata=metadata)
    )


def flag_name(name: str) -> str:
    """The flag of a field: `image_size` is `--image-size`."""
    return f"--{name.replace('_', '-')}"


def add_flags(
    parser: ArgumentParser | _ArgumentGroup, settings: type, names: Iterable[str] = ()
) -> None:
    """Add one flag for each field that has help, or for those named.

    Flags have no default, so that what was given can be told from what was not.
    """
    hints = get_type_hints(settings)
    chosen = set(names) or {f.name for f in fields(settings) if "help" in f.metadata}
    for f in fields(settings):
        if f.name in chosen:
            default = "" if f.default in (MISSING, (), None, "") else f" ({f.default})"
            options = _flag_options(hints[f.name])
            if f.metadata["metavar"]:
                options["metavar"] = f.metadata["metavar"]
            text = f.metadata["help"] + default
            parser.add_argument(flag_name(f.name), default=None, help=text, **options)


def given_flags(arguments: Namespace) -> dict[str, Any]:
    """The flags that a command line gave, by field name; lists as tuples, like the fields'."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(arguments).items()
        if value is not None
    }


def typed(
    values: object, kind: type[T], where: str, error: type[PipelineError] = IntegrityError
) -> T:
    """`values` as a dataclass; a wrong type, a missing or an unknown field is an error that names it."""
    if isinstance(values, Mapping):
        known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
        if unknown := sorted(set(values) - set(known)):
            close = get_close_matches(unknown[0], known, 1)
            raise error(
                f"{where} has {', '.join(map(repr, unknown))}, which this version does not know"
                + (f"; {close[0]!r} may be meant" if close else "")
            )
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as problem:
        raise error(f"{where}: {_in_words(problem)}") from None


def read_json(path: Path, missing: str = "") -> Any:
    """The contents of a JSON file; `missing` says what to do where there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourceMissing(missing or f"{path} is not there") from None
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{path} is damaged: {error}") from error


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a YAML or JSON file, such as the `config.json` of a run."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError):
        raise SourceMissing(f"--config {path}: there is no such file") from None
    try:
        values = _parse_yaml(text) if path.suffix in YAML_SUFFIXES else json.loads(text)
    except ValueError as error:
        raise UsageError(f"--config {path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(
            f"--config {path} should hold names and values, such as 'h: 40'; it holds "
            f"{type(values).__name__}"
        )
    return {str(name).replace("-", "_"): value for name, value in values.items()}


def _parse_yaml(text: str) -> object:
    import yaml  # noqa: PLC0415 - comes with the extra `train`

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from error


def _flag_options(kind: Any) -> dict[str, Any]:
    """What argparse needs to know of a field's type."""
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    if kind is bool:
        return {"action": BooleanOptionalAction}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    if get_origin(kind) is tuple:
        inner = _flag_options(get_args(kind)[0])
        return {**inner, "nargs": "+", **({} if "choices" in inner else {"metavar": "NAME"})}
    return {"type": kind, "metavar": kind.__name__.upper()}


def _in_words(problem: msgspec.ValidationError) -> str:
    """msgspec's message with the field in front: "h: Expected `int`, got `str`"."""
    message, _, place = str(problem).partition(" - at `$")
    name = place.strip("`.") or "the whole"
    return f"{name}: {message}"
