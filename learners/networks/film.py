"""FiLM: a scale and a shift per channel for one task, inside a network that all tasks share.

The network is not copied and its parameters keep their names. A norm that takes FiLM multiplies gamma into its
own scale and shift, which equals gamma * norm(x) + beta and keeps one activation less for the backward pass.
Decision 19 says why this is not `torch.func.functional_call`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError

FILM_NORMS: Final = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
EVERY_NORM: Final = "all"
SHORTCUTS: Final = frozenset({"downsample", "shortcut"})  # norms there belong to a change of size
REGULARISER_SCALE: Final = (
    0.001  # of initial regularisers, so that features start as the weights compute them
)
TENSORS_PER_PLACE: Final = 2  # gamma and beta
RULE_LETTERS: Final = 500  # of a regular expression of norms; the published ones have 60
RULE_REPEATS: Final = 5  # in one: each multiplies the time of a match by the letters of a name
REPEATS: Final = re.compile(r"(?<!\\)[*+?{]")
REPEATED_GROUP: Final = re.compile(r"\)[*+?{]")  # a repeat of repeats can take time without end


class _FilmCall(threading.local):
    """What this thread's current forward pass knows; a library that calls norms cannot pass it on."""

    scales: Sequence[Tensor] = ()
    """For each norm that takes FiLM, its own scale times gamma."""
    shifts: Sequence[Tensor] = ()


_FILM_CALL: Final = _FilmCall()


def film_places(net: nn.Module, rule: bool | str = True) -> dict[str, nn.Module]:  # noqa: FBT001, FBT002
    """The norms that take FiLM, by name, in the order of the network.

    rule: a regular expression that a norm's full name matches; "all" for every norm (LN-Tune of transformers, with
    their last norm, as ORBIT's code since 2022); True for the papers' choice: in networks with
    depthwise convolutions the norms after these, the stem's and the head's; in others all norms but the
    stem's and those of shortcuts.
    """
    norms = {name: norm for name, norm in net.named_modules() if _may_film(norm)}
    if rule == EVERY_NORM:
        chosen = [*norms]
    elif isinstance(rule, str):
        _check_rule(rule)
        try:
            chosen = [name for name in norms if re.fullmatch(rule, name)]
        except (re.error, OverflowError, RecursionError) as error:
            raise UsageError(
                f"{rule!r}, which should match names of norms, is no pattern: {error}"
            ) from error
    else:
        chosen = _default_places(net, norms) if rule else []
    if rule and not chosen:
        known = ", ".join(list(norms)[:5]) or "none"
        raise UsageError(f"FiLM needs norms that match {rule!r}; the network's norms are {known} …")
    return {name: norms[name] for name in chosen}


def _check_rule(rule: str) -> None:
    """Refuse a regular expression that can take long to match: it may come from a checkpoint."""
    repeats = len(REPEATS.findall(rule.replace("(?", "(")))
    if len(rule) > RULE_LETTERS or repeats > RULE_REPEATS or REPEATED_GROUP.search(rule):
        raise UsageError(
            f"a pattern of names of norms has at most {RULE_LETTERS} letters, {RULE_REPEATS} repeats (* + ? {{}}) "
            f"and none of a group; got {rule[:RULE_LETTERS]!r}"
        )


def install_film(norms: Sequence[nn.Module]) -> tuple[int, ...]:
    """Make norms of one network take the FiLM of `forward_with_film`; return the channels of each."""
    for place, norm in enumerate(norms):
        norm.forward = partial(_film_norm, norm, place)  # of the instance: others use the class too
    return tuple(norm.get_parameter("weight").numel() for norm in norms)


def forward_with_film(
    net: nn.Module, norms: Sequence[nn.Module], pixels: Tensor, film: Sequence[Tensor]
) -> Tensor:
    """Run `net(pixels)` with FiLM gamma_1, beta_1, gamma_2, ... of its norms; without FiLM if there are none.

    Safe in threads. Activation checkpointing must wrap this call, not lie within it.
    """
    _FILM_CALL.scales, _FILM_CALL.shifts = _scales_and_shifts(norms, film) if film else ((), ())
    try:
        features: Tensor = net(pixels)
        return features
    finally:
        _FILM_CALL.scales, _FILM_CALL.shifts = (), ()


def _scales_and_shifts(
    norms: Sequence[nn.Module], film: Sequence[Tensor]
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """The scale and shift of each norm; all are computed at once, for a GPU is asked as often for one as for all."""
    gammas, betas = torch.cat(tuple(film[::2])), torch.cat(tuple(film[1::2]))
    weights, biases = (torch.cat([norm.get_parameter(name) for norm in norms]) for name in ("weight", "bias"))
    sizes = [len(gamma) for gamma in film[::2]]
    return torch.split(gammas * weights, sizes), torch.split(gammas * biases + betas, sizes)


def identity_film(channels: Sequence[int], like: Tensor) -> tuple[Tensor, ...]:
    """FiLM that changes nothing, with the dtype and device of `like`."""
    pairs = ((like.new_ones(count), like.new_zeros(count)) for count in channels)
    return tuple(tensor for pair in pairs for tensor in pair)


class FilmGenerator(nn.Module):
    """A network from a task's embedding to its FiLM: a two-layer perceptron for each gamma and beta.

    gamma = 1 + r * perceptron and beta = r * perceptron, where r is learned, starts small, and is penalised:
    `penalty` is the sum of its squares. All layers are computed together: all first ones are one product, and each
    output takes the hidden layer of its own perceptron by a product with ones and zeros.
    """

    owners: Tensor
    """outputs x perceptrons: 1 where the output is the perceptron's."""
    identity: Tensor
    """The FiLM that changes nothing, as one vector."""

    def __init__(self, channels: Sequence[int], task_dim: int = 64) -> None:
        super().__init__()
        if not channels:
            raise UsageError("a FiLM generator needs places: make the backbone with film=True")
        self._sizes = [count for count in channels for _ in range(TENSORS_PER_PLACE)]
        outputs, hidden = sum(self._sizes), len(self._sizes)
        bound = task_dim**-0.5  # torch's for a linear layer
        self.first = nn.Parameter(torch.empty(hidden, task_dim, task_dim).uniform_(-bound, bound))
        self.first_bias = nn.Parameter(torch.empty(hidden, task_dim).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.ones(hidden, task_dim))
        self.shift = nn.Parameter(torch.zeros(hidden, task_dim))
        self.last = nn.Parameter(torch.empty(outputs, task_dim).uniform_(-bound, bound))
        self.last_bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.regularisers = nn.Parameter(torch.randn(outputs) * REGULARISER_SCALE)
        owner = np.repeat(np.arange(hidden), self._sizes)
        owners = torch.tensor(owner[:, None] == np.arange(hidden), dtype=self.last.dtype)
        gammas = owner % TENSORS_PER_PLACE == 0  # the others are betas
        identity = torch.tensor(gammas, dtype=self.last.dtype)
        self.register_buffer("owners", owners, persistent=False)
        self.register_buffer("identity", identity, persistent=False)

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        """Compute gamma_1, beta_1, gamma_2, beta_2, ... from an embedding of shape (task_dim,)."""
        hidden = torch.matmul(self.first, z) + self.first_bias
        hidden = functional.layer_norm(hidden, hidden.shape[-1:])
        hidden = functional.relu(hidden * self.scale + self.shift)
        values = (self.last * (self.owners @ hidden)).sum(1) + self.last_bias
        return torch.split(self.identity + values * self.regularisers, self._sizes)

    def penalty(self) -> Tensor:
        """The regulariser; the papers add 0.001 times it to the loss, once per task."""
        return self.regularisers.square().sum()


def _may_film(norm: nn.Module) -> bool:
    return isinstance(norm, FILM_NORMS) and norm.weight is not None and norm.bias is not None


def _default_places(net: nn.Module, norms: Mapping[str, nn.Module]) -> list[str]:
    depthwise = {name for name in norms if _follows_depthwise(net, name)}
    if depthwise:
        return [name for name in norms if name in depthwise or "." not in name]
    return [name for name in norms if "." in name and not SHORTCUTS & set(name.split("."))]


def _follows_depthwise(net: nn.Module, name: str) -> bool:
    """Whether the convolution before a norm, among its siblings, is depthwise."""
    parent, _, own = name.rpartition(".")
    before = None
    for sibling, module in net.get_submodule(parent).named_children():
        if sibling == own:
            break
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            before = module
    return isinstance(before, nn.Conv2d) and 1 < before.groups == before.in_channels


def _film_norm(norm: nn.Module, place: int, x: Tensor) -> Tensor:
    """A norm's forward pass with the FiLM of the current call."""
    if not _FILM_CALL.scales:
        plain: Tensor = type(norm).forward(norm, x)
        return plain
    y = _affine(norm, x, _FILM_CALL.scales[place], _FILM_CALL.shifts[place])
    if hasattr(norm, "act"):  # timm's norms include the activation
        y = norm.get_submodule("act")(norm.get_submodule("drop")(y))
    return y


def _affine(norm: nn.Module, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply the norm with the given scale and shift."""
    if isinstance(norm, nn.BatchNorm2d):
        mean, variance = norm.running_mean, norm.running_var
        return functional.batch_norm(x, mean, variance, weight, bias, eps=norm.eps)
    if isinstance(norm, nn.GroupNorm):
        return functional.group_norm(x, norm.num_groups, weight, bias, norm.eps)
    assert isinstance(norm, nn.LayerNorm)
    if "2d" in type(norm).__name__:  # timm's norm for N x C x H x W
        x = functional.layer_norm(x.permute(0, 2, 3, 1), norm.normalized_shape, weight, bias, norm.eps)
        return x.permute(0, 3, 1, 2)
    return functional.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)
