"""Convert a checkpoint that LITE's or ORBIT's authors published: `python -m learners.convert --help`.

The file is read as tensors and names; nothing in it is executed. Our learner then computes what theirs does, and
`learners.evaluate --checkpoint` and `Learner.load` take the folder that is written.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from learners import checkpoint
from learners.convert.formats import FORMATS
from learners.convert.identify import AUTO, GivenFlags, OfficialLearner, identify
from learners.convert.official_tensors import OfficialTensors
from learners.convert.translate import translate
from learners.learner import MetaLearner
from learners.methods.catalogue import LEARNERS, describe_learner, make_learner
from learners.networks.weights import read_weight_file
from learners.runs import LAST_CHECKPOINT, SETTINGS_FILE, RunState
from pipeline.command import command_parser, run_command
from pipeline.constants import READ_BLOCK
from pipeline.errors import UsageError, first_few
from pipeline.layout import write_atomically

CONVERT_EXAMPLES: Final = """\
  python -m learners.convert meta-trained_lite_224.pt                 into runs/meta-trained_lite_224
  python -m learners.convert orbit_cluve_protonets_resnet18_84.pth --out runs/authors-protonets
  python -m learners.convert model.pth --learner maml                 where its name does not say
  python -m learners.convert own_84.pt --format lite --image-size 84
"""
ORIGIN_FILE: Final = "converted.json"
"""Beside the checkpoint: the file that it was made of."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertedLearner:
    """A learner made of a published checkpoint."""

    net: MetaLearner
    found: OfficialLearner
    left_out: list[str]
    """Names in the file that the learner has no use for."""


def main(argv: Sequence[str] | None = None) -> int:
    """Read the file, write a run's folder with one checkpoint, print what it is."""
    flags = _parser().parse_args(argv)
    file: Path = flags.file
    given = GivenFlags(
        format=flags.format, learner=flags.learner, backbone=flags.backbone, image_size=flags.image_size
    )
    out: Path = flags.out or Path("runs") / file.stem
    _check_out(out)
    converted = convert(file, given)
    write_run(out, file, converted)
    found = converted.found
    size = f"{found.image_size} px"
    left = f"; left out, as nothing uses it: {first_few(converted.left_out)}" if converted.left_out else ""
    sys.stdout.write(
        f"wrote {out / LAST_CHECKPOINT}: {found.learner} with {found.backbone} at {size}, of {found.format.name}"
        f"{left}\n"
    )
    return 0


def convert(file: Path, given: GivenFlags) -> ConvertedLearner:
    """Make our learner of a published checkpoint."""
    if file.is_dir():
        raise UsageError(f"{file} is a folder; name a file that the authors published, such as a .pt or .pth")
    tensors, header = read_weight_file(file)
    if header.get("format") == checkpoint.FORMAT:
        raise UsageError(
            f"{file} is a checkpoint of this project already; learners.evaluate takes it as it is"
        )
    found = identify(tensors, file, given)
    net = make_learner(
        found.learner, found.backbone, normalisation=found.official.normalisation, options=found.options
    )
    left = translate(OfficialTensors(tensors, file), found, net)
    return ConvertedLearner(net=net, found=found, left_out=left)


def write_run(out: Path, file: Path, converted: ConvertedLearner) -> None:
    """Write the checkpoint, and beside it a note of the file that it was made of."""
    found = converted.found
    tensors, state = checkpoint.flatten({"learner": converted.net.state_dict()})
    about = describe_learner(converted.net, found.learner, found.image_size, options=found.options)
    out.mkdir(parents=True, exist_ok=True)
    digest = sha256()
    with file.open("rb") as read:
        while block := read.read(READ_BLOCK):
            digest.update(block)
    origin = {
        "file": file.name,
        "sha256": digest.hexdigest(),
        "format": found.format.name,
        "left_out": converted.left_out,
    }
    write_atomically(out / ORIGIN_FILE, json.dumps(origin, indent=2).encode() + b"\n")
    checkpoint.save(out / LAST_CHECKPOINT, tensors, asdict(RunState(about=about.described(), state=state)))


def _check_out(out: Path) -> None:
    """Refuse a folder in which there is a run of train.py."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; name a folder")
    if (out / SETTINGS_FILE).exists() or (
        (out / LAST_CHECKPOINT).exists() and not (out / ORIGIN_FILE).exists()
    ):
        raise UsageError(f"--out {out} holds a run of train.py; name another folder")


def _parser() -> ArgumentParser:
    parser = command_parser(
        "learners.convert", "Convert a checkpoint that LITE's or ORBIT's authors published.", CONVERT_EXAMPLES
    )
    backbones = sorted({name for form in FORMATS.values() for name in form.backbones})
    parser.add_argument("file", type=Path, metavar="FILE", help="their .pt or .pth")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of the run (runs/ and the file's name)"
    )
    parser.add_argument("--format", default=AUTO, choices=(AUTO, *FORMATS), help="whose code it is of (auto)")
    parser.add_argument("--learner", default="", choices=tuple(LEARNERS), help="if the file does not say")
    parser.add_argument("--backbone", default="", choices=backbones, help="if the file does not say")
    parser.add_argument("--image-size", type=int, metavar="PX", help="of LITE's learners; 224 or 84")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main))
