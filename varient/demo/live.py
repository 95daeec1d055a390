"""What the live page shows of a state: both plans' pictures, their caches, and numbers that are measured and predicted.

It knows no web server; `varient.demo.app` puts it onto a page.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from matplotlib.figure import Figure

from varient.config import ExperimentConfig, SamplingConfig
from varient.cost.gpus import known_devices
from varient.cost.planner import PLANNED_PRECISIONS
from varient.cost.roofline import PAPER_BATCH_SIZE, peak_mib, system_cost
from varient.cost.sizes import MIB
from varient.demo.costs import network_kv, share_of_work
from varient.demo.engine import Drawn, Engine
from varient.demo.state import Side, State
from varient.paper import DEPTH
from varient.pyramid import VAR_256
from varient.report.style import BLUE, LIGHT_GREY, PAGE_IN, VERMILLION

COLOURS = (BLUE, VERMILLION)
"""Of the first and the second plan."""
LINES = ("-", "--")

_KEPT_RUNS = 9
_GAP = 2
"""Pixels of an enlarged picture's frame."""


@dataclass(frozen=True)
class Shown:
    """A state as pictures and numbers.

    Attributes:
        grids: the images of each plan, uint8 (H, W, 3); those that differ are framed in the plan's colour.
        grown: the first image of each plan after each scale; grey frames mark scales with all layers.
        caches: largest live bytes within each scale for each plan, for all images.
        rows: name, first plan, second plan.
        differing: how many images differ.
    """

    grids: tuple[np.ndarray, ...]
    grown: tuple[np.ndarray, ...]
    caches: tuple[tuple[int, ...], ...]
    rows: tuple[tuple[str, ...], ...]
    differing: int


class Live:
    """Shows states of one engine and remembers how long its last runs took."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._seconds: dict[tuple[Side, int], deque[float]] = defaultdict(lambda: deque(maxlen=_KEPT_RUNS))

    def show(self, state: State, gpu: str) -> Shown:
        """Draw the images of both plans with the same seeds.

        Args:
            gpu: id of the GPU of the predictions.

        Raises:
            NotFiniteError: the network computes NaN or infinity.
        """
        engine, config = self.engine, self.engine.config
        drawn = [self._draw(side, state) for side in state.sides]
        plans = [engine.plan(side.system) for side in state.sides]
        differs = [not np.array_equal(*pair) for pair in zip(*(one.images_B3SS for one in drawn), strict=True)]
        zones = [[len(layers) == plan.depth for layers in plan.layers_per_scale] for plan in plans]
        return Shown(
            grids=tuple(framed(one.images_B3SS, differs, colour) for one, colour in zip(drawn, COLOURS, strict=True)),
            grown=tuple(framed(engine.grow(one.tokens_BL[:1])[:, 0], zone, LIGHT_GREY)
                        for one, zone in zip(drawn, zones, strict=True)),
            caches=tuple(network_kv(config, plan, state.count, side.policy, guided=state.guidance.cfg > 0).peak
                         for plan, side in zip(plans, state.sides, strict=True)),
            rows=tuple((name, *cells) for name, cells in self._numbers(state, drawn, gpu).items()),
            differing=sum(differs))

    def _draw(self, side: Side, state: State) -> Drawn:
        drawn = self.engine.draw(side.system, [state.label] * state.count, range(state.count), state.seed,
                                 guidance=state.guidance, policy=side.policy)
        self._seconds[side, state.count].append(drawn.seconds)
        return drawn

    def _numbers(self, state: State, drawn: Sequence[Drawn], gpu: str) -> dict[str, list[str]]:
        engine, config = self.engine, self.engine.config
        sides = state.sides
        seconds = [self._seconds[side, state.count] for side in sides]
        rows = {
            "Layers x scales": [engine.plan(side.system).steps for side in sides],
            "Token-layers over the full network's":
                [f"{share_of_work(config, engine.plan(side.system)):.3g}" for side in sides],
            "Parameters that run at the last scale": [f"{engine.parameters(side.system)[-1]:,}" for side in sides],
            "Peak of the KV cache here, KiB, counted": [f"{one.kv_peak_bytes / 1024:,.1f}" for one in drawn],
            "Time here, s, measured (median; runs)": [f"{median(runs):.3f} ({len(runs)})" for runs in seconds],
        }
        return rows | _predicted(config, sides, gpu)


def _predicted(config: ExperimentConfig, sides: Sequence[Side], gpu: str) -> dict[str, list[str]]:
    """The same plans at the paper's size, where the network has its number of layers and of scales."""
    if (config.transformer.depth, config.pyramid.num_scales) != (DEPTH, VAR_256.num_scales):
        return {}
    costs = [system_cost(str(side.system), policy=side.policy, precision=PLANNED_PRECISIONS[0], device_key=gpu)
             for side in sides]
    at_once, device = SamplingConfig.model_fields["decoded_at_once"].default, known_devices()[gpu].name
    return {
        f"VAR-d30, {PAPER_BATCH_SIZE} images: KV cache, MiB": [f"{cost.kv_cache_bytes / MIB:,.0f}" for cost in costs],
        f"... peak memory on {device}, MiB, predicted": [f"{peak_mib(cost, at_once):,.0f}" for cost in costs],
        f"... time on {device}, s, predicted": [f"{cost.latency_s:.3g}" for cost in costs],
    }


def framed(images_B3SS: np.ndarray, marks: Sequence[bool], colour: str, columns: int = 10) -> np.ndarray:
    """Images beside each other in rows, uint8 (H, W, 3), enlarged a whole number of times; marked ones have a frame."""
    count, _, side, _ = images_B3SS.shape
    factor = max(1, round(48 / side))
    cell = side * factor + 2 * _GAP
    columns = min(columns, count)
    page = np.full((-(-count // columns) * cell, columns * cell, 3), 255, np.uint8)
    frame = np.array([int(colour[at:at + 2], 16) for at in (1, 3, 5)], np.uint8)
    for at, (image, marked) in enumerate(zip(images_B3SS, marks, strict=True)):
        top, left = (cell * place for place in divmod(at, columns))
        if marked:
            page[top:top + cell, left:left + cell] = frame
        inner = image.transpose(1, 2, 0).repeat(factor, 0).repeat(factor, 1)
        page[top + _GAP:top + cell - _GAP, left + _GAP:left + cell - _GAP] = inner
    return page


def draw_caches(caches: Sequence[Sequence[int]], names: Sequence[str]) -> Figure:
    """The largest size of both caches within each scale; call it inside `varient.report.style.styled`."""
    figure = Figure(figsize=(PAGE_IN, 2.4), layout="constrained")  # none that pyplot would keep
    axis = figure.subplots()
    for sizes, name, colour, line in zip(caches, names, COLOURS, LINES, strict=True):
        axis.plot(range(1, len(sizes) + 1), [size / 1024 for size in sizes], line, color=colour, marker="o", label=name)
    axis.set_xlabel("scale")
    axis.set_ylabel("live keys and values (KiB)")
    axis.set_ylim(0, None)
    axis.legend()
    return figure
