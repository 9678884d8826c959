"""Manifest of a shard set: `dataset.json` with a right checksum, opened, shown and verified."""

from __future__ import annotations

import json
import random
from hashlib import sha256

from tests.fuzz.json_mutations import mutate_json
from tests.fuzz.mutations import mutate_bytes
from tests.fuzz.tiny_set import changed_set, look_at_set, whole_set

PLAIN_SHARE = 0.1  # of inputs, whose bytes are changed and not their values


def seeds() -> list[bytes]:
    return [(whole_set() / "dataset.json").read_bytes()]


def mutate(data: bytes, generator: random.Random) -> bytes:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict) or generator.random() < PLAIN_SHARE:
        return mutate_bytes(data, generator)
    values.pop("sha256", None)
    for _ in range(generator.randint(1, 3)):
        values = mutate_json(values, generator)
    if isinstance(values, dict):
        text = json.dumps(values, sort_keys=True, ensure_ascii=False)
        values["sha256"] = sha256(text.encode(errors="replace")).hexdigest()
    return json.dumps(values).encode()


def check(data: bytes) -> None:
    root = changed_set("dataset_json")
    (root / "dataset.json").write_bytes(data)
    look_at_set(root)
