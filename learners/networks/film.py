"""FiLM: a scale and a shift per channel, made for one task, inside a network that belongs to all tasks.

The network is not copied and its parameters keep their names. A norm where FiLM applies multiplies gamma
into its own scale and shift, which is the same function as gamma * norm(x) + beta and keeps one activation
less for the backward pass.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import UsageError

NORMS: Final = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
SHORTCUTS: Final = frozenset({"downsample", "shortcut"})  # norms there change size, not features
SPREAD: Final = (
    0.001  # a generator's first regularisers: features start where the weights left them
)
PER_PLACE: Final = 2  # gamma and beta


class _Call(threading.local):
    """What a forward pass of this thread was given; norms that a library calls cannot be told."""

    film: Sequence[Tensor] = ()


_CALL: Final = _Call()


def places(net: nn.Module, rule: bool | str = True) -> dict[str, nn.Module]:  # noqa: FBT001, FBT002
    """The norms where FiLM applies, by name, in the order of the network.

    rule: a regular expression that a norm's name matches; True for the papers' places: with depthwise
    convolutions the norms after them, the stem's and the head's, otherwise all norms but the stem's and
    those of shortcuts.
    """
    norms = {name: norm for name, norm in net.named_modules() if _may_film(norm)}
    if isinstance(rule, str):
        chosen = [name for name in norms if re.fullmatch(rule, name)]
    else:
        chosen = _usual(net, norms) if rule else []
    if rule and not chosen:
        known = ", ".join(list(norms)[:5]) or "none"
        raise UsageError(f"FiLM needs norms that match {rule!r}; the network's norms are {known} …")
    return {name: norms[name] for name in chosen}


def install(norms: Sequence[nn.Module]) -> tuple[int, ...]:
    """Make norms of one network listen to `filmed`; the channels of each."""
    for place, norm in enumerate(norms):
        norm.forward = partial(_norm, norm, place)  # kept out of the class: others use it too
    return tuple(norm.get_parameter("weight").numel() for norm in norms)


def filmed(net: nn.Module, pixels: Tensor, film: Sequence[Tensor]) -> Tensor:
    """`net(pixels)` with gamma_1, beta_1, gamma_2, ... at its places; without FiLM if there are none.

    Safe in threads. A checkpointed part of a network must hold this call, not lie within it.
    """
    _CALL.film = film
    try:
        features: Tensor = net(pixels)
        return features
    finally:
        _CALL.film = ()


def identity(channels: Sequence[int], like: Tensor) -> tuple[Tensor, ...]:
    """FiLM that changes nothing, in the type and on the device of a tensor."""
    pairs = ((like.new_ones(count), like.new_zeros(count)) for count in channels)
    return tuple(tensor for pair in pairs for tensor in pair)


class FilmGenerator(nn.Module):
    """A task's embedding becomes its FiLM: a perceptron of two layers for each gamma and each beta.

    gamma = 1 + r * perceptron and beta = r * perceptron, where r is learned, small at first, and
    penalised: `penalty` is the sum of its squares. All first layers are one product.
    """

    def __init__(self, channels: Sequence[int], task_dim: int = 64) -> None:
        super().__init__()
        if not channels:
            raise UsageError("a FiLM generator needs places: make the backbone with film=True")
        self._sizes = [count for count in channels for _ in range(PER_PLACE)]
        outputs, hidden = sum(self._sizes), len(self._sizes)
        bound = task_dim**-0.5  # torch's for a linear layer
        self.first = nn.Parameter(torch.empty(hidden, task_dim, task_dim).uniform_(-bound, bound))
        self.first_bias = nn.Parameter(torch.empty(hidden, task_dim).uniform_(-bound, bound))
        self.scale = nn.Parameter(torch.ones(hidden, task_dim))
        self.shift = nn.Parameter(torch.zeros(hidden, task_dim))
        self.last = nn.Parameter(torch.empty(outputs, task_dim).uniform_(-bound, bound))
        self.last_bias = nn.Parameter(torch.empty(outputs).uniform_(-bound, bound))
        self.regularisers = nn.Parameter(torch.randn(outputs) * SPREAD)

    def forward(self, z: Tensor) -> tuple[Tensor, ...]:
        """gamma_1, beta_1, gamma_2, beta_2, ... from an embedding of shape (task_dim,)."""
        hidden = torch.matmul(self.first, z) + self.first_bias
        hidden = functional.layer_norm(hidden, hidden.shape[-1:])
        hidden = functional.relu(hidden * self.scale + self.shift)
        rows = zip(torch.split(self.last, self._sizes), hidden.unbind(), strict=True)
        values = torch.cat([weight @ vector for weight, vector in rows]) + self.last_bias
        changes = torch.split(values * self.regularisers, self._sizes)
        return tuple(
            change + 1 if at % PER_PLACE == 0 else change for at, change in enumerate(changes)
        )

    def penalty(self) -> Tensor:
        """What the papers add to the loss, a thousandth of it, once per task."""
        return self.regularisers.square().sum()


def _may_film(norm: nn.Module) -> bool:
    return isinstance(norm, NORMS) and norm.weight is not None and norm.bias is not None


def _usual(net: nn.Module, norms: Mapping[str, nn.Module]) -> list[str]:
    depthwise = {name for name in norms if _follows_depthwise(net, name)}
    if depthwise:
        return [name for name in norms if name in depthwise or "." not in name]
    return [name for name in norms if "." in name and not SHORTCUTS & set(name.split("."))]


def _follows_depthwise(net: nn.Module, name: str) -> bool:
    """Whether the convolution before a norm, among its siblings, keeps channels apart."""
    parent, _, own = name.rpartition(".")
    before = None
    for sibling, module in net.get_submodule(parent).named_children():
        if sibling == own:
            break
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            before = module
    return isinstance(before, nn.Conv2d) and 1 < before.groups == before.in_channels


def _norm(norm: nn.Module, place: int, x: Tensor) -> Tensor:
    """A norm's forward pass, with the FiLM of the call."""
    film = _CALL.film
    if not film:
        plain: Tensor = type(norm).forward(norm, x)
        return plain
    gamma, beta = film[PER_PLACE * place], film[PER_PLACE * place + 1]
    weight, bias = norm.get_parameter("weight"), norm.get_parameter("bias")
    y = _affine(norm, x, gamma * weight, gamma * bias + beta)
    if hasattr(norm, "act"):  # timm's norms hold what follows them
        y = norm.get_submodule("act")(norm.get_submodule("drop")(y))
    return y


def _affine(norm: nn.Module, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What the norm does, with another scale and shift."""
    if isinstance(norm, nn.BatchNorm2d):
        mean, variance = norm.running_mean, norm.running_var
        return functional.batch_norm(x, mean, variance, weight, bias, eps=norm.eps)
    if isinstance(norm, nn.GroupNorm):
        return functional.group_norm(x, norm.num_groups, weight, bias, norm.eps)
    assert isinstance(norm, nn.LayerNorm)
    if "2d" in type(norm).__name__:  # timm's for N x C x H x W
        x = functional.layer_norm(
            x.permute(0, 2, 3, 1), norm.normalized_shape, weight, bias, norm.eps
        )
        return x.permute(0, 3, 1, 2)
    return functional.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)
