"""What `--preset` does: fills in settings, lists what there is, and checks the shards that a preset needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from learners.runs import FAITHFUL
from learners.training.presets import PRESETS, PresetSetting, TrainingPreset
from pipeline.errors import UsageError, check_choice, first_few
from pipeline.settings import flag_name
from pipeline.shardset import ShardSet
from pipeline.sources.catalogue import ENTRIES

PRESET_LIST: Final = "list"
TABLE_WIDTH: Final = 118  # characters
FREE_SETTINGS: Final = frozenset(
    {
        "preset",
        "overridden",
        "shards",
        "out",
        "seed",
        "save_every",
        "device",
        "decoder",
        "threads",
        "ordered",
        "compile",
    }
)
"""What may differ within a faithful run: where and how it runs."""


def with_preset(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `given["preset"]` under the given ones, and which of these depart from the run.

    A setting that the preset does not have departs from its run where it is not the default.
    """
    check_choice(given["preset"], (*PRESETS, PRESET_LIST), "--preset")
    values = PRESETS[given["preset"]].values(given.get("learner", ""))
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    official = {**defaults, **values}
    overridden = sorted(
        name for name, value in plain.items()
        if name not in FREE_SETTINGS and value != official.get(name)
    )  # fmt: skip
    return {**values, **plain, "overridden": tuple(overridden)}


def list_presets(defaults: Mapping[str, Any]) -> str:
    """All presets as text: each setting beside the official value and the default."""
    text = StringIO()
    console = Console(file=text, width=TABLE_WIDTH, highlight=False)
    for name, preset in PRESETS.items():
        console.print(_preset_table(name, preset, defaults))
        if preset.differences:
            console.print(
                "what remains different (docs/reproduce-the-paper.md says why, and what it changes):"
            )
        for difference in preset.differences:
            console.print(escape(f"  {difference.topic}: {difference.text}"))
        console.print()
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n"


def _preset_table(name: str, preset: TrainingPreset, defaults: Mapping[str, Any]) -> Table:
    title = f"{name} ({FAITHFUL}): {preset.summary}\n{preset.code}\nlearners: {', '.join(preset.by_learner)}"
    table = Table(title=escape(title), title_justify="left", title_style="", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("setting", "here", "official code", "without a preset"):
        table.add_column(heading, overflow="fold")
    for label, key, setting in _rows(preset):
        cells = (label, _in_words(setting.value), setting.official, _in_words(defaults[key]))
        table.add_row(*map(escape, cells))
    return table


def _rows(preset: TrainingPreset) -> Iterator[tuple[str, str, PresetSetting]]:
    for key, setting in preset.settings.items():
        yield flag_name(key), key, setting
    for learner, own in preset.by_learner.items():
        for key, setting in own.items():
            yield f"{learner}: {flag_name(key)}", key, setting


def _in_words(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "all"
    if value == "":
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def check_preset_data(shards: ShardSet, preset: str, names: Sequence[str]) -> None:
    """Refuse a shard set without the datasets of a preset; the error has the command that builds them."""
    missing = [name for name in dict.fromkeys(names) if name not in shards.datasets]
    if not missing:
        return
    families = dict.fromkeys(ENTRIES[name].family or name for name in missing if name in ENTRIES)
    root = shards.root.split(", ")[0]
    commands = [
        f"python -m pipeline.build --dataset {name} --source DOWNLOADS --out {root}"
        + ("" if name not in ENTRIES or ENTRIES[name].family else f"/{name}")
        for name in families
    ]
    raise UsageError(
        f"--preset {preset} needs {', '.join(missing)}, and {shards.root} has only "
        f"{first_few([*shards.datasets]) or 'nothing'}. Build {'them' if len(missing) > 1 else 'it'}"
        f"{': ' + '; '.join(commands) if commands else ''}"
    )


def data_warnings(shards: ShardSet, preset: str, names: Sequence[str]) -> Iterator[str]:
    """Warnings of datasets that were built with fewer images than the preset's run had."""
    for name in dict.fromkeys(names):
        if (limit := shards[name].class_limit) is not None:
            yield (
                f"warning: {name} was built with --limit-per-class {limit}; the run of --preset {preset} had all "
                "of its images"
            )
