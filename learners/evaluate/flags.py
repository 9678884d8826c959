"""The flags of `python -m learners.evaluate`, from its command line and from a file."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal

from learners.evaluate.protocols import PROTOCOLS, ProtocolOptions
from learners.methods.catalogue import LEARNERS
from learners.methods.options import OPTION_NAMES, LearnerOptions
from learners.networks.arithmetic import DETERMINISTIC_HELP, PRECISION_HELP, Precision
from pipeline.command import command_parser
from pipeline.decoders.choose import DecoderName
from pipeline.errors import UsageError, check_choice
from pipeline.settings import add_flags, flag_name, given_flags, read_config, setting, typed

EVALUATE_EXAMPLES: Final = """\
  python -m learners.evaluate --shards shards/md --checkpoint runs/md --protocol md
  python -m learners.evaluate --shards shards/vtab --checkpoint runs/md --protocol vtab --splits lite
  python -m learners.evaluate --shards shards/orbit --checkpoint runs/orbit --protocol orbit --mode clu-ve
  python -m learners.evaluate --shards shards/omniglot --checkpoint runs/omniglot --protocol fixed \\
      --way 20 --within                                          characters of one alphabet
  python -m learners.evaluate --shards shards/caltech --learner protonets --backbone mobilenetv1_075 \\
      --weights mobilenet.safetensors --image-size 84 --protocol fixed --way 20 --shot 5
  python -m learners.evaluate --shards shards/orbit --learner finetuner --backbone efficientnet_b0 \\
      --inner-optimizer adam --inner-lr 0.001 --protocol orbit --orbit 2022    ORBIT 2022's baseline
  python -m learners.evaluate --config evaluate.yaml --name again     all other flags from the file
  torchrun --nproc-per-node 4 -m learners.evaluate --shards shards/md --checkpoint runs/md --protocol md
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationFlags(LearnerOptions):
    """The flags that all protocols have."""

    shards: tuple[str, ...] = setting(text="shard set: a folder or a URL; or several", metavar="SET")
    protocol: str = setting(text="what is asked", choices=tuple(PROTOCOLS))
    checkpoint: str = setting("", "a run of train.py, or one of its checkpoints", metavar="RUN")
    learner: str | None = setting(
        None, "without a run: an untrained one, of a backbone", choices=(*LEARNERS,)
    )
    backbone: str = setting("", "as train.py's", metavar="NAME")
    weights: str = setting(
        "", "the backbone's: a file, 'pretrained' (the default), or 'random'", metavar="FILE"
    )
    image_size: int | None = setting(None, "(the run's; 224 without one)", metavar="PX")
    name: str = setting("", "of the row in tables (the run's folder)", metavar="NAME")
    out: str = setting("", "where answers and figures go (results/NAME-PROTOCOL)", metavar="DIR")
    calibration_tasks: int = setting(
        20,
        "tasks of each dataset's validation classes that a temperature is fitted to, if it has any",
        metavar="N",
    )
    json: bool = setting(False, "print the figures as JSON")
    device: str = setting("auto", "cpu, cuda, or auto", metavar="DEVICE")
    chunk: int | Literal["auto"] = setting(
        "auto", "images in memory at a time; auto: on a GPU as many as fit, else 40"
    )
    chunk_memory: float = setting(0.0, "with --chunk auto: GB for passes (what a GPU has free)", metavar="GB")
    precision: Precision = setting("tf32", PRECISION_HELP)
    deterministic: bool = setting(False, DETERMINISTIC_HELP)
    decoder: DecoderName = setting("auto", "of JPEG")
    threads: int | None = setting(None, "that decode (one for each core)", metavar="N")
    share: bool = setting(True, "pass an image once for all tasks where that is exact")

    def __post_init__(self) -> None:
        check_choice(self.protocol, tuple(PROTOCOLS), "--protocol")
        if self.chunk_memory < 0 or (self.chunk_memory and self.chunk != "auto"):
            raise UsageError(
                f"--chunk-memory is GB for --chunk auto, got {self.chunk_memory} with --chunk {self.chunk}"
            )
        if self.calibration_tasks < 0:
            raise UsageError(f"--calibration-tasks starts at 0, got {self.calibration_tasks}")


LEARNER_FLAGS: Final = ("checkpoint", "learner", "backbone", "weights", "image_size", "name")
RUN_FLAGS: Final = (
    "out", "calibration_tasks", "json", "device", "chunk", "chunk_memory", "precision", "deterministic", "decoder",
    "threads", "share",
)  # fmt: skip


def parse_flags(argv: Sequence[str] | None) -> tuple[EvaluationFlags, ProtocolOptions]:
    """The flags of a command line, over those of its `--config` file, and the options of the protocol."""
    values = given_flags(_flag_parser().parse_args(argv))
    where = "the command line"
    if file := values.pop("config", None):
        where = f"--config {file}"
        values = {**read_config(file), **values}
    for name, what in (("shards", "the shard set to evaluate on"), ("protocol", "what is asked")):
        if name not in values:
            raise UsageError(f"{flag_name(name)} is needed: {what}")
    options = {name: values.pop(name) for name in _protocols_by_option() if name in values}
    flags = typed(values, EvaluationFlags, where, UsageError)
    return flags, _protocol_options(flags.protocol, options, where)


def _protocol_options(name: str, options: dict[str, object], where: str) -> ProtocolOptions:
    """The options of a protocol; an option of another one is an error."""
    for option, owners in _protocols_by_option().items():
        if option in options and name not in owners:
            raise UsageError(f"{flag_name(option)} is of --protocol {' and '.join(owners)}, not of {name}")
    return typed(options, PROTOCOLS[name], where, UsageError)


def _protocols_by_option() -> dict[str, list[str]]:
    """The names of the protocols that have each option."""
    protocols: dict[str, list[str]] = {}
    for kind in PROTOCOLS.values():
        for f in fields(kind):
            protocols.setdefault(f.name, []).append(kind.name)
    return protocols


def _flag_parser() -> ArgumentParser:
    parser = command_parser(
        "learners.evaluate", "Evaluate a learner as the benchmarks do.", EVALUATE_EXAMPLES
    )
    parser.add_argument("--config", type=Path, metavar="FILE",
                        help="flags from a YAML or JSON file, by their names; those given here win")  # fmt: skip
    add_flags(parser, EvaluationFlags, ("shards", "protocol"))
    group = parser.add_argument_group("learner")
    for names in (LEARNER_FLAGS, OPTION_NAMES):  # what it is, then what its name leaves open
        add_flags(group, EvaluationFlags, names)
    group = parser.add_argument_group("options of the protocol")
    owners = _protocols_by_option()
    for kind in PROTOCOLS.values():  # a shared option is added once, by the first protocol that has it
        add_flags(group, kind, [name for name, of in owners.items() if of[0] == kind.name])
    add_flags(parser.add_argument_group("run"), EvaluationFlags, RUN_FLAGS)
    return parser
