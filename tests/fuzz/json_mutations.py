"""Changes of JSON values, for formats whose checksum keeps changed bytes away from the parser behind it."""

from __future__ import annotations

import json
import random
from typing import Any, Final

from tests.fuzz.mutations import mutate_bytes

BYTES_SHARE: Final = 0.4

ODD_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, 10**400, 0.5, float("nan"), float("inf"),
    "", "a", "../..", "/etc/passwd", "x" * 10_000, "a\nb\x1b[2J\x00", "[/red]", "\ud800", "\u202e", "7",
    [], {}, [[]], [None], {"": 0}, ["a", "a"], {"a": {"a": {}}},
)  # fmt: skip


def mutate_json_text(data: bytes, generator: random.Random) -> bytes:
    """JSON with one place changed, now and then its bytes."""
    if generator.random() < BYTES_SHARE:
        return mutate_bytes(data, generator)
    try:
        return json.dumps(mutate_json(json.loads(data), generator)).encode()
    except (ValueError, RecursionError):
        return mutate_bytes(data, generator)


def mutate_json(values: Any, generator: random.Random) -> Any:
    """The values with one place changed: of the same kind, of another kind, gone, doubled or renamed."""
    if isinstance(values, dict) and values and generator.random() < 0.9:
        return _mutate_object(dict(values), generator)
    if isinstance(values, list) and values and generator.random() < 0.9:
        return _mutate_array(list(values), generator)
    if isinstance(values, int) and generator.random() < 0.5:
        return values + generator.choice((-1, 1, 2, -values, 1 << 16, 1 << 40))
    if isinstance(values, str) and values and generator.random() < 0.5:
        place = generator.randrange(len(values))
        return (
            values[:place]
            + generator.choice(("", "9", "-", "/", "\n", "\u00e9", values))
            + values[place + 1 :]
        )
    return generator.choice(ODD_VALUES)


def _mutate_object(values: dict[str, Any], generator: random.Random) -> dict[str, Any]:
    name = generator.choice(list(values))
    chance = generator.random()
    if chance < 0.08:
        del values[name]
    elif chance < 0.16:
        values[generator.choice(("", "a", "-1", "0", f"0{name}", f"{name}9", *values))] = values[name]
    else:
        values[name] = mutate_json(values[name], generator)
    return values


def _mutate_array(values: list[Any], generator: random.Random) -> list[Any]:
    place = generator.randrange(len(values))
    chance = generator.random()
    if chance < 0.08:
        del values[place]
    elif chance < 0.16:
        values.insert(place, generator.choice(values))
    elif chance < 0.2:
        values *= generator.choice((0, 2, 100))
    else:
        values[place] = mutate_json(values[place], generator)
    return values
