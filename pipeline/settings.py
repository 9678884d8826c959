"""Settings as frozen dataclasses: fields become command-line flags, and JSON is read with their types.

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
from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction, Namespace, _ArgumentGroup
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from pipeline.errors import IntegrityError, PipelineError, SourceMissing, UsageError, check_choice
from pipeline.foreign_files import UnfitFileError, read_regular

SettingsT = TypeVar("SettingsT")
YAML_SUFFIXES: Final = (".yaml", ".yml")
JSON_BYTES: Final = 2**28  # of a file; a manifest that lists a million pictures left out has half of it
JSON_DEPTH: Final = 64  # objects and arrays within one another; ours have up to six


def setting(default: Any = MISSING, text: str = "", *, metavar: str = "", choices: Sequence[str] = ()) -> Any:
    """A dataclass field with the `--help` text of its flag; required without a default.

    The help ends with the default in parentheses, or with the text's own where it says more.
    """
    given = {} if default is MISSING else {"default": default}
    return field(**given, metadata={"help": text, "metavar": metavar, "choices": choices})


def flag_name(name: str) -> str:
    """The flag of a field: `image_size` is `--image-size`."""
    return f"--{name.replace('_', '-')}"


def add_flags(parser: ArgumentParser | _ArgumentGroup, settings: type, names: Iterable[str] = ()) -> None:
    """Add a flag for each field that has help, or for those named.

    The default of every flag is None: `given_flags` then knows which ones the command line has.
    """
    hints = get_type_hints(settings)
    chosen = set(names) or {f.name for f in fields(settings) if "help" in f.metadata}
    for f in fields(settings):
        if f.name in chosen:
            choices = _choices(f, hints[f.name])
            options = {"choices": choices} if choices else _flag_options(hints[f.name])
            if f.metadata["metavar"]:
                options["metavar"] = f.metadata["metavar"]
            text = f.metadata["help"] + _default_text(f)
            parser.add_argument(flag_name(f.name), default=None, help=text, **options)


def _choices(f: Field[Any], kind: Any) -> Sequence[str]:
    return f.metadata.get("choices") or (get_args(kind) if get_origin(kind) is Literal else ())


def _flag_options(kind: Any) -> dict[str, Any]:
    """The arguments of `add_argument` that follow from a field's type."""
    if get_origin(kind) in (Union, types.UnionType):
        parts = [part for part in get_args(kind) if part is not type(None)]
        words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
        (kind,) = (part for part in parts if not words or get_origin(part) is not Literal)
        if words:
            return {"type": _word_or(kind, words), "metavar": "|".join((*words, kind.__name__.upper()))}
    if kind is bool:
        return {"action": BooleanOptionalAction}
    if get_origin(kind) is tuple:
        return {**_flag_options(get_args(kind)[0]), "nargs": "+"}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    return {"type": kind, "metavar": kind.__name__.upper()}


def _word_or(kind: type, words: Sequence[str]) -> Callable[[str], Any]:
    """A parser of one of the words, or of text that the type takes."""

    def parse(text: str) -> Any:
        try:
            return text if text in words else kind(text)
        except ValueError:
            raise ArgumentTypeError(f"{', '.join(words)} or {kind.__name__}, not {text!r}") from None

    return parse


def _default_text(f: Field[Any]) -> str:
    if f.metadata["help"].endswith(")") or f.default in (MISSING, (), None, ""):
        return ""
    values = f.default if isinstance(f.default, tuple) else (f.default,)
    return f" ({' '.join(map(str, values))})"


def given_flags(arguments: Namespace, settings: type | None = None) -> dict[str, Any]:
    """The flags that a command line gave, by field name; all, or those of one dataclass.

    Lists become tuples, like the fields'.
    """
    names = vars(arguments) if settings is None else {f.name for f in fields(settings)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in vars(arguments).items()
        if name in names and value is not None
    }


def check_choices(settings: object) -> None:
    """Refuse a value that is none of its field's choices; for `__post_init__`."""
    hints = get_type_hints(type(settings))
    for f in fields(settings):  # type: ignore[arg-type]
        if choices := _choices(f, hints[f.name]):
            check_choice(getattr(settings, f.name), choices, flag_name(f.name))


def typed(
    values: object, kind: type[SettingsT], where: str, error: type[PipelineError] = IntegrityError
) -> SettingsT:
    """`values` as a dataclass or another type; a wrong, missing or unknown field is an error with its name.

    where: what the values were read from, for the message.
    """
    if isinstance(values, Mapping) and is_dataclass(kind):
        known = [f.name for f in fields(kind)]
        if unknown := sorted(map(str, set(values) - set(known))):
            close = get_close_matches(unknown[0], known, 1)
            raise error(
                f"{where}: it has {', '.join(map(repr, unknown))}, which this version does not know"
                + (f"; {close[0]!r} may be meant" if close else "")
            )
    try:
        return msgspec.convert(values, kind, str_keys=True)
    except msgspec.ValidationError as problem:
        raise error(f"{where}: {_in_words(problem)}") from None
    except UnicodeError as problem:  # half of a character, which JSON can spell
        raise error(f"{where} holds what is no text: {problem}") from None
    except UsageError as problem:  # of a dataclass whose fields contradict each other
        raise error(str(problem) if error is UsageError else f"{where}: {problem}") from None


def read_json(path: Path, missing: str = "", cure: str = "") -> Any:
    """The contents of a JSON file; the texts say what to do where there is none, or a damaged one."""
    try:
        return parse_json(read_regular(path, JSON_BYTES), path, cure)
    except FileNotFoundError:
        raise SourceMissing(missing or f"{path} is not there") from None
    except UnfitFileError as error:
        raise IntegrityError(f"{path} {error.strerror}{cure and '; '}{cure}") from None


def parse_json(text: bytes, where: object, cure: str = "") -> Any:
    """The values in a JSON text; damage is an IntegrityError that says where."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{where} is damaged: {error}{cure and '; '}{cure}") from error
    if _is_deeper(values, JSON_DEPTH):
        raise IntegrityError(f"{where} is damaged: it nests more than {JSON_DEPTH} deep{cure and '; '}{cure}")
    return values


def _is_deeper(values: object, depth: int) -> bool:
    """Whether objects and arrays stand within one another more often than that."""
    level = [values]
    for _ in range(depth):
        inside = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list))
        level = [child for children in inside for child in children]
        if not level:
            return False
    return True


def read_config(path: Path) -> dict[str, Any]:
    """The settings in a YAML or JSON file, such as the `config.json` of a run."""
    try:
        text = path.read_text(encoding="utf-8")
        values = _parse_yaml(text) if path.suffix in YAML_SUFFIXES else json.loads(text)
    except (FileNotFoundError, IsADirectoryError):
        raise SourceMissing(f"--config {path}: there is no such file") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--config {path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(
            f"--config {path} should hold names and values, such as 'h: 40'; it holds {type(values).__name__}"
        )
    return {str(name).replace("-", "_"): value for name, value in values.items()}


def _parse_yaml(text: str) -> object:
    import yaml  # noqa: PLC0415 - comes with the extra `train`

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from error


def _in_words(problem: msgspec.ValidationError) -> str:
    """msgspec's message with the field in front: "h: Expected `int`, got `str`"."""
    message, _, place = str(problem).partition(" - at ")
    name = place.replace("`", "").replace("$.", "").replace("$", "") or "the whole"
    return f"{name}: {message}"
