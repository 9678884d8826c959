"""The settings of a training run: a frozen record, which is checked as a whole and saved with the run."""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Literal

from learners.lite.draws import QueryScheme
from learners.lite.engine import PENALTY, SamplerName
from learners.methods.catalogue import LEARNERS, TRAINABLE, WITH_TEMPERATURE
from learners.methods.options import LearnerOptions
from learners.networks.arithmetic import DETERMINISTIC_HELP, PRECISION_HELP, Precision
from learners.networks.backbones import RANDOM
from learners.networks.chunk_sizes import ChunkSizes
from learners.runs import SETTINGS_FILE, read_settings
from learners.training.step_profile import WARM_UP_STEPS
from pipeline.decoders.choose import DecoderName, resolved_decoder
from pipeline.errors import UsageError
from pipeline.layout import write_atomically
from pipeline.settings import check_choices, flag_name, setting, typed


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig(LearnerOptions):
    """Defaults are the paper's sizes (Simple CNAPs, EfficientNet-B0, 224 pixels, |H| = 40), with our gradient and encoder.

    `learners.training.presets` has the published runs.
    """

    preset: str = setting("", "settings of a published run, which other flags override; 'list' shows them")
    overridden: tuple[str, ...] = ()
    """The settings that differ from the preset's."""
    shards: str = setting(text="shard set: a folder or a URL")
    out: str = setting("", "folder of the run (runs/<shard set>-<learner>)")
    learner: str = setting("simple_cnaps", "what is trained", choices=TRAINABLE)
    backbone: str = setting("efficientnet_b0", "conv4, resnet18, ..., or any model of timm")
    weights: str = setting(
        "",
        "the backbone's: a file, 'pretrained' from timm's hub, or 'random' (pretrained where the backbone "
        "is frozen, else random)",
    )
    pixels: Literal["weights", "symmetric", "imagenet"] = setting(
        "weights",
        "that the backbone sees: as its weights want them, or -1 to 1, as LITE's code feeds them, or by "
        "ImageNet's statistics",
    )
    temperature: float = setting(0.0, "divides protonets' logits; 0 is the papers' 1, or 0.1 of cosines")
    fit_temperature: bool = setting(False, "take the one that fits the first episodes")
    image_size: int = setting(224, "pixels; a size that the shards hold")
    h: int = setting(40, "support images that carry gradient")
    penalty: float = setting(PENALTY, "weight of FiLM's regulariser in the loss of a task")
    sampler: SamplerName = setting("neyman", "how they are drawn, see learners/lite/engine.py")
    query_h: int = setting(0, "queries that carry gradient through the backbone; 0 is all of them")
    query_sampler: QueryScheme = setting("neyman", "how they are drawn, with --query-h")
    chunk: int | Literal["auto"] = setting(
        "auto", "images in memory with their graph at a time; auto: on a GPU as many as fit, else 40"
    )
    forward_chunk: int = setting(0, "with a number of --chunk: images at a time without a graph (the same)")
    chunk_memory: float = setting(0.0, "with --chunk auto: GB for passes (what a GPU has free)")
    precision: Precision = setting("tf32", PRECISION_HELP)
    compile: bool = setting(False, "networks by torch.compile: minutes once, less per step")
    datasets: tuple[str, ...] = setting(
        (), "datasets to train on (all that have training classes)", metavar="NAME"
    )
    way: int = setting(0, "classes of an episode; 0 varies way, shots and queries as Meta-Dataset does")
    shot: int = setting(5, "support images per class, with --way")
    query: int = setting(10, "query images per class, with --way; else at most")
    orbit: Literal["", "2021", "2022"] = setting(
        "", "ORBIT's tasks, as in the paper or as its code has them since"
    )
    orbit_caps: bool = setting(False, "with --orbit: train on the smaller tasks of the paper's 84-pixel rows")
    mode: Literal["clu-ve", "cle-ve"] = setting("clu-ve", "with --orbit: clutter or clean videos as query")
    hierarchy: Literal["auto", "superclass", "flat"] = setting(
        "auto",
        "without --way: draw classes by WordNet and by superclasses such as alphabets, as Meta-Dataset does; by "
        "superclasses alone, as LITE's code; or all classes alike",
    )
    max_way: int = setting(50, "without --way")
    max_support: int = setting(500, "without --way")
    rotate: bool = setting(False, "turn each class of an episode by a random quarter turn")
    flip: bool = setting(False, "mirror random images")
    tasks: int = setting(10_000, "episodes to train on")
    tasks_per_step: int = setting(16, "episodes of an optimiser step")
    tasks_per_epoch: int = setting(0, "episodes after which a step ends, short or not; 0: all steps alike")
    lr: float = setting(1e-3, "Adam's")
    backbone_lr_scale: float = setting(1.0, "of the backbone's learning rate, where it learns")
    lr_halve_every: int = setting(0, "episodes after which the learning rate is halved; 0 never")
    lr_factors: tuple[str, ...] = setting(
        (), "factors of the learning rates, each from an episode on: 0:0.2 2200:1", metavar="EPISODE:FACTOR"
    )
    weight_decay: float = setting(0.0, "Adam's, added to the gradient")
    adam_betas: tuple[float, ...] = setting((0.9, 0.999), "decay of Adam's two means")
    adam_epsilon: float = setting(1e-8, "Adam's")
    validate_every: int = setting(5_000, "episodes; 0 at the end only")
    validate_from: int = setting(0, "episodes before the first validation")
    validate_at_end: bool = setting(True, "validate after the last episode as well")
    validation_tasks: int = setting(200, "episodes of each validation dataset")
    validation_datasets: tuple[str, ...] = setting(
        (), "datasets to validate on (all that have validation classes)", metavar="NAME"
    )
    validation_max_way: int = setting(0, "as --max-way, in validation; 0 is the same")
    validation_max_support: int = setting(0, "as --max-support, in validation; 0 is the same")
    save_every: int = setting(1_000, "episodes between checkpoints")
    seed: int = setting(0, "of episodes, H and first weights")
    device: str = setting("auto", "cpu, cuda, or auto")
    decoder: DecoderName = setting("auto", "of JPEG; auto is turbo")
    threads: int = setting(0, "that decode; 0 as many as there are cores")
    ordered: bool = setting(False, "several GPUs: the same bits for any number of them, slower")
    deterministic: bool = setting(False, DETERMINISTIC_HELP)
    profile: int | None = setting(
        None,
        f"steps to record by torch.profiler, after {WARM_UP_STEPS} others: a table and a trace in the run's folder",
        metavar="STEPS",
    )

    def __post_init__(self) -> None:
        check_choices(self)
        _check_ranges(self)
        _check_chunks(self)
        _check_rates(self)
        self.options.check_for(self.learner, LEARNERS[self.learner].options)
        if self.orbit and self.way:
            raise UsageError("--orbit has a way and shots of its own; leave --way out")
        if self.query_h and (self.sampler.startswith("paper") or self.learner == "maml"):
            raise UsageError(
                "--query-h is for our gradient of learners with LITE; the papers' samplers and maml back-propagate all queries"
            )
        if self.precision == "float16" and self.learner == "maml":
            raise UsageError(
                "--precision float16 scales losses against underflow, and nothing scales those of maml's inner steps; take "
                "tf32, float32 or bfloat16"
            )
        if self.compile and self.learner == "maml":
            raise UsageError("--compile is for learners with LITE; maml runs as it is")
        if self.temperature < 0:
            raise UsageError(f"--temperature is not negative, got {self.temperature}")
        if self.fit_temperature and (self.temperature or self.learner not in WITH_TEMPERATURE):
            raise UsageError(
                f"--fit-temperature is for {' and '.join(WITH_TEMPERATURE)} without a --temperature of their own"
            )
        if self.orbit_caps and not self.orbit:
            raise UsageError("--orbit-caps is for --orbit 2021 and 2022; leave it out")
        self.check_profile(0)

    def step_size(self, tasks: int) -> int:
        """The episodes of the step after so many: fewer at the end of the run and of an epoch."""
        epoch = self.tasks_per_epoch or self.tasks
        return min(self.tasks_per_step, self.tasks - tasks, epoch - tasks % epoch)

    def check_profile(self, tasks: int) -> None:
        """Refuse to profile more steps than are left after so many episodes."""
        if self.profile is None:
            return
        if self.profile < 1:
            raise UsageError(f"--profile records at least one step, got {self.profile}")
        done = tasks
        for step in range(WARM_UP_STEPS + self.profile):
            if done >= self.tasks:
                raise UsageError(
                    f"--profile {self.profile} records the steps after the first {WARM_UP_STEPS}, and there are {step} "
                    f"from episode {tasks:,} to {self.tasks:,}; raise --tasks, or lower it"
                )
            done += self.step_size(done)

    def rate_factor(self, tasks: int) -> float:
        """The factor of the learning rates after so many episodes."""
        factor = 1.0
        for text in self.lr_factors:
            match = re.fullmatch(r"(\d{1,18}):(\d{0,18}\.?\d{1,18})", text)
            if match is None:
                raise UsageError(
                    f"--lr-factors takes an episode and the factor from it on, such as 2200:0.5; got {text!r}"
                )
            factor = float(match[2]) if tasks >= int(match[1]) else factor
        return math.ldexp(factor, -(tasks // self.lr_halve_every)) if self.lr_halve_every else factor

    @property
    def chunks(self) -> ChunkSizes:
        """The images at a time; 40 for `auto`, until a run has chosen."""
        if self.chunk == "auto":
            return ChunkSizes()
        return ChunkSizes(self.chunk, self.forward_chunk or self.chunk)

    def with_chunks(self, sizes: ChunkSizes) -> TrainingConfig:
        """The same settings with these chunks."""
        if sizes == self.chunks and self.chunk != "auto":
            return self
        graph, forward = sizes
        return replace(self, chunk=graph, forward_chunk=0 if forward == graph else forward, chunk_memory=0.0)

    @property
    def first_weights(self) -> str:
        """The weights that the backbone starts with: a file, `pretrained`, or `random`."""
        return self.weights or LEARNERS[self.learner].first_weights

    @property
    def frozen_random(self) -> bool:
        """Whether the backbone is frozen and begins with random weights, so that its features mean nothing."""
        return LEARNERS[self.learner].frozen_at_random(self.first_weights)

    @property
    def preset_datasets(self) -> tuple[str, ...]:
        """The datasets that the run trains and validates on, as far as the settings name them."""
        return (*self.datasets, *self.validation_datasets)

    def check_processes(self, size: int) -> None:
        """Refuse what several processes cannot share."""
        if self.tasks_per_step % size or self.tasks % size or self.tasks_per_epoch % size:
            raise UsageError(
                f"--tasks {self.tasks} in steps of {self.tasks_per_step} cannot be shared by {size} processes; "
                "both must be multiples of it, and --tasks-per-epoch too"
            )
        if self.backbone_norm == "batch" and size > 1:
            raise UsageError(
                f"--backbone-norm batch has statistics of its own in each of {size} processes; train it with one"
            )

    @property
    def folder(self) -> Path:
        """Of the run."""
        name = Path(self.shards.rstrip("/")).name or "shards"
        return Path(self.out or f"runs/{name}-{self.learner}")

    def save(self, folder: Path) -> None:
        """Write `config.json`, with the first weights and the decoder spelled out."""
        settled = {"weights": self.first_weights, "decoder": resolved_decoder(self.decoder)}
        values = {**asdict(self), **settled, "profile": None}  # a run that goes on is not profiled again
        write_atomically(folder / SETTINGS_FILE, (json.dumps(values, indent=1) + "\n").encode())

    @classmethod
    def read(cls, folder: Path) -> TrainingConfig:
        """The settings of a run; one that does not say its weights began with random ones."""
        values = read_settings(folder)
        return typed({**values, "weights": values.get("weights") or RANDOM}, cls, str(folder / SETTINGS_FILE))


def _check_ranges(config: TrainingConfig) -> None:
    for f in fields(config):
        value = getattr(config, f.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"{flag_name(f.name)} is a finite number, got {value}")
    positive = ("image_size", "shot", "query", "max_way", "tasks", "tasks_per_step",
                "validation_tasks", "save_every")  # fmt: skip
    for name in positive:
        if getattr(config, name) < 1:
            raise UsageError(f"{flag_name(name)} starts at 1, got {getattr(config, name)}")
    for name in (
        "h",
        "query_h",
        "way",
        "validate_every",
        "seed",
        "threads",
        "lr_halve_every",
        "tasks_per_epoch",
    ):
        if getattr(config, name) < 0:
            raise UsageError(f"{flag_name(name)} starts at 0, got {getattr(config, name)}")


def _check_chunks(config: TrainingConfig) -> None:
    if config.chunks.graph < 1 or min(config.forward_chunk, config.chunk_memory) < 0:
        raise UsageError(
            f"--chunk starts at 1, --forward-chunk and --chunk-memory at 0; got {config.chunk}, "
            f"{config.forward_chunk} and {config.chunk_memory}"
        )
    if config.forward_chunk and (config.chunk == "auto" or config.sampler.startswith("paper")):
        raise UsageError(
            "--forward-chunk goes with a number of --chunk and our gradient; the papers' samplers have one size of batches"
        )
    if config.chunk_memory and config.chunk != "auto":
        raise UsageError(f"--chunk-memory is for --chunk auto; leave it out, or --chunk {config.chunk}")


def _check_rates(config: TrainingConfig) -> None:
    if config.lr <= 0 or config.backbone_lr_scale < 0:
        raise UsageError(f"learning rates are positive, got {config.lr}, {config.backbone_lr_scale}")
    if len(config.adam_betas) != 2 or not all(0 <= beta < 1 for beta in config.adam_betas):  # noqa: PLR2004
        raise UsageError(f"--adam-betas takes two numbers from 0 on, below 1; got {config.adam_betas}")
    if config.adam_epsilon <= 0 or config.weight_decay < 0:
        raise UsageError(
            f"--adam-epsilon is positive and --weight-decay not negative, got {config.adam_epsilon} and "
            f"{config.weight_decay}"
        )
    config.rate_factor(0)  # refuses bad factors now
