"""Depth plans, which layers run at which scale: Eq. 2, Eq. 3, Table 1's windows and Table 5's skip-all design; layers
chosen otherwise; and what the layers see of earlier scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from random import Random
from typing import Literal

from varient.kv_scheme import PLAIN, KVScheme

Selection = Literal["equidistant", "nested"]


def equidistant_layers(depth: int, subnet_depth: int) -> tuple[int, ...]:
    """The layers I_d = { floor(i (D-1) / (d-1)) : i = 0..d-1 } of a subnet, with the first and the last layer (Eq. 2).

    The sets are not nested, contrary to what the paper says: for D = 30, I_8 contains layer 4 and I_16 does not.

    Raises:
        ValueError: ``subnet_depth`` below 2 (Eq. 2 divides by d - 1) or above ``depth``.
    """
    _check_depths(depth, subnet_depth)
    return tuple(i * (depth - 1) // (subnet_depth - 1) for i in range(subnet_depth))


def nested_layers(depth: int, subnet_depth: int, ladder: Sequence[int] = ()) -> tuple[int, ...]:
    """Nested alternative to Eq. 2: each subnet takes equidistant layers of the next deeper subnet.

    Args:
        depth: D of the full network.
        subnet_depth: d.
        ladder: depths of all subnets; layers are selected in turn for each depth between D and d.

    Raises:
        ValueError: as `equidistant_layers`.
    """
    _check_depths(depth, subnet_depth)
    rungs = sorted({r for r in ladder if subnet_depth < r < depth}, reverse=True)
    layers = tuple(range(depth))
    for rung in (*rungs, subnet_depth):
        layers = tuple(layers[i] for i in equidistant_layers(len(layers), rung))
    return layers


def prefix_layers(depth: int, subnet_depth: int) -> tuple[int, ...]:
    """The first d layers, as in early exit.

    Raises:
        ValueError: ``subnet_depth`` above ``depth``.
    """
    _check_depth(depth, subnet_depth)
    return tuple(range(subnet_depth))


def random_layers(depth: int, subnet_depth: int, seed: int) -> tuple[int, ...]:
    """d of the D layers, all sets equally likely; the same for the same seed on every machine.

    Raises:
        ValueError: as `prefix_layers`.
    """
    _check_depth(depth, subnet_depth)
    draw = Random(seed).random  # whose sequence Python guarantees, unlike that of `sample`
    return tuple(sorted(sorted(range(depth), key=lambda layer: draw())[:subnet_depth]))


@dataclass(frozen=True)
class DepthPlan:
    """The layers of a D-layer network that run at each of K scales.

    Forward pass, training, cache and profiler take a plan as an argument.  No module stores an "active depth": to
    switch depth, pass another plan.

    Attributes:
        depth: D, the layers of the full network.
        layers_per_scale: for scale k = 1..K, at index k-1: ascending indices of the layers that run.
        kv: which earlier scales a scale sees in its layers, in what form, and what guidance needs of them; by default
            all as they were computed, for both halves.

    Raises:
        ValueError: no scale, a scale without a layer, indices that are unsorted, repeated or outside 0..D-1, or a
            window or guided scales that do not fit the scales.
    """

    depth: int
    layers_per_scale: tuple[tuple[int, ...], ...]
    kv: KVScheme = PLAIN

    def __post_init__(self) -> None:
        if not self.layers_per_scale:
            raise ValueError("a plan needs at least one scale")
        for k, layers in enumerate(self.layers_per_scale, start=1):
            if not layers:
                raise ValueError(f"scale {k} has no layer")
            if list(layers) != sorted(set(layers)) or layers[0] < 0 or layers[-1] >= self.depth:
                raise ValueError(f"scale {k}: layers {layers} are not ascending indices below {self.depth}")
        self.kv.check_fits(self.num_scales)

    @classmethod
    def full(cls, depth: int, num_scales: int) -> DepthPlan:
        """Every layer at every scale: plain VAR."""
        return cls(depth, (tuple(range(depth)),) * num_scales)

    @classmethod
    def bridge(cls, depth: int, subnet_depth: int, bridge: int, num_scales: int,
               layers: tuple[int, ...] | None = None) -> DepthPlan:
        """All D layers in the bridge zone r_1..r_N, the layers I_d in the flexible zone r_(N+1)..r_K (Eq. 3).

        ``bridge`` is N: K gives the full network, 0 the skip-all design of Table 5.  ``layers`` replaces Eq. 2's
        layers.

        Raises:
            ValueError: N outside 0..K or d outside 2..D.
        """
        if not 0 <= bridge <= num_scales:
            raise ValueError(f"bridge size N = {bridge} is outside 0..{num_scales}, the number of scales K")
        return cls.window(depth, subnet_depth, bridge + 1, num_scales, num_scales, layers)

    @classmethod
    def window(cls, depth: int, subnet_depth: int, first: int, last: int, num_scales: int,
               layers: tuple[int, ...] | None = None) -> DepthPlan:
        """The layers I_d at the scales first..last, all D layers elsewhere (Table 1).  first > last: an empty window.

        Raises:
            ValueError: a window outside 1..K, or d outside 2..D.
        """
        if first < 1 or last > num_scales:
            raise ValueError(f"scale window r{first}-r{last} is not within r1-r{num_scales}")
        subnet = layers or equidistant_layers(depth, subnet_depth)
        everything = tuple(range(depth))
        return cls(depth, tuple(subnet if first <= k <= last else everything for k in range(1, num_scales + 1)))

    @property
    def num_scales(self) -> int:
        """K."""
        return len(self.layers_per_scale)

    @property
    def is_full(self) -> bool:
        """Whether every layer runs at every scale."""
        return all(len(layers) == self.depth for layers in self.layers_per_scale)

    @property
    def steps(self) -> str:
        """Number of passes through the network as the paper prints it: "10", or "6+4" for bridge and flexible zone."""
        full_scales = sum(len(layers) == self.depth for layers in self.layers_per_scale)
        rest = self.num_scales - full_scales
        return f"{full_scales}+{rest}" if rest else str(full_scales)

    def layers(self, k: int) -> tuple[int, ...]:
        """Layers that run at scale k = 1..K."""
        return self.layers_per_scale[k - 1]

    def scales_of(self, layer: int) -> tuple[int, ...]:
        """Scales at which ``layer`` runs, ascending; its KV cache holds only tokens of these scales."""
        return tuple(k for k, layers in enumerate(self.layers_per_scale, start=1) if layer in layers)

    def stretches(self) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
        """The layers in order, grouped into stretches of layers that run at the same scales: ((layers, scales), ...).

        Layers that run at no scale are omitted.
        """
        runs = groupby(range(self.depth), key=self.scales_of)
        return tuple((tuple(layers), scales) for scales, layers in runs if scales)

    def check_fits(self, depth: int, num_scales: int) -> None:
        """Raise ValueError unless the plan is for a network of ``depth`` layers and ``num_scales`` scales."""
        if (self.depth, self.num_scales) != (depth, num_scales):
            raise ValueError(f"the plan is for {self.depth} layers and {self.num_scales} scales, "
                             f"the network has {depth} layers and {num_scales} scales")


def check_guidance(plan: DepthPlan, cfg: float) -> None:
    """Check that a plan which says how guidance runs has some.

    Args:
        cfg: guidance scale; 0: no guidance.

    Raises:
        ValueError: it has none.
    """
    if plan.kv.changes_guidance and cfg == 0:
        raise ValueError("it says how guidance runs, and there is none (cfg = 0)")


def _check_depth(depth: int, subnet_depth: int) -> None:
    if subnet_depth > depth:
        raise ValueError(f"subnet depth d = {subnet_depth} is above the full depth D = {depth}")


def _check_depths(depth: int, subnet_depth: int) -> None:
    _check_depth(depth, subnet_depth)
    if subnet_depth < 2:
        raise ValueError(f"subnet depth d = {subnet_depth}: Eq. 2 keeps the first and the last layer, so d >= 2")
