"""One HTML page with everything in it: the pictures of one network under many plans, their caches and their costs.

The page computes nothing: it looks up what is written into it, so that it needs no server and asks for no other file.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from varient.cost.gpus import known_devices
from varient.cost.kv_accounting import POLICIES
from varient.cost.planner import PLANNED_PRECISIONS
from varient.demo.costs import BATCHES, network_kv, paper_costs, share_of_work
from varient.demo.engine import Engine
from varient.files import write_text
from varient.paper import DEPTH, TITLE
from varient.pyramid import VAR_256
from varient.report.style import BLUE, LIGHT_GREY, ORANGE, SKY, VERMILLION
from varient.systems.ids import VarId

IMAGES = 4
"""Images of each class."""

_COLOURS = {"light": (BLUE, VERMILLION, LIGHT_GREY), "dark": (SKY, ORANGE, "#444444")}
"""Of the first and the second plan and of the bridge zone, for both colour schemes."""


@dataclass(frozen=True)
class _Entry:
    """What the page knows of one plan.

    Attributes:
        layers: number of layers at each scale.
        work: token-layers over those of the full network.
        parameters: of the transformer, that run at the last scale.
        kv_bytes: largest size of the cache within each scale by policy, for one image of this network.
        paper: cost of the same plan at the paper's size, by policy and precision.
        sprite: PNG as a data address.  A row for each class: its images, then the first of them after each scale.
    """

    layers: tuple[int, ...]
    work: float
    parameters: int
    kv_bytes: dict[str, tuple[int, ...]]
    paper: dict[str, Any]
    sprite: str


def write_page(engine: Engine, output: Path, depths: Sequence[int], gpus: Sequence[str] | None = None) -> None:
    """Write the page.

    Args:
        engine: of a network with the paper's number of layers and of scales, so that each of its plans exists at the
            paper's size.
        depths: d of the plans; each with every N.
        gpus: ids of the GPUs of the calculator; None: all that the cost model knows.

    Raises:
        ValueError: a network of another shape or without a subnet, or a depth that it does not have.
    """
    config = engine.config
    if (config.transformer.depth, config.pyramid.num_scales) != (DEPTH, VAR_256.num_scales):
        raise ValueError(f"{config.name}: its plans have no counterpart at the paper's size, which has {DEPTH} layers "
                         f"and {VAR_256.num_scales} scales")
    if engine.trained_depth not in depths:
        raise ValueError(f"{engine.name}: it is no supernet of a depth among {', '.join(map(str, depths))}, which the "
                         "page begins with")
    environment = Environment(loader=PackageLoader("varient.demo"), undefined=StrictUndefined, autoescape=True,
                              trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # lists of choices begin with the paper's
    data = _data(engine, sorted(depths), gpus or tuple(known_devices()))
    write_text(output, environment.get_template("page.html").render(
        data=data, paper=TITLE, network=engine.name, experiment=config.name, colours=_COLOURS))


def _data(engine: Engine, depths: Sequence[int], gpus: Sequence[str]) -> dict[str, Any]:
    config = engine.config
    bridges = range(config.pyramid.num_scales + 1)
    index_of: dict[Any, int] = {}
    entries: list[_Entry] = []
    table = []
    for depth in depths:
        row = []
        for bridge in bridges:
            system = VarId("free", depth, bridge=bridge)
            plan = engine.plan(system)
            if plan not in index_of:
                index_of[plan] = len(entries)
                entries.append(_entry(engine, system, gpus))
            row.append(index_of[plan])
        table.append(row)
    return {
        "depths": list(depths), "plans": table, "entries": [asdict(entry) for entry in entries],
        "full": index_of[engine.plan(VarId("free", config.transformer.depth))],
        "trained": engine.trained_depth, "bridge": config.supernet.bridge,
        "sides": list(config.patch_nums), "paper_sides": list(VAR_256.patch_nums),
        "classes": config.data.num_classes, "images": IMAGES, "side": config.data.image_size,
        "batches": BATCHES, "policies": POLICIES, "precisions": PLANNED_PRECISIONS,
        "gpus": {key: {"name": gpu.name, "memory_mib": gpu.memory_mib}
                 for key, gpu in known_devices().items() if key in gpus},
    }


def _entry(engine: Engine, system: VarId, gpus: Sequence[str]) -> _Entry:
    config, plan = engine.config, engine.plan(system)
    return _Entry(tuple(map(len, plan.layers_per_scale)), share_of_work(config, plan), engine.parameters(system)[-1],
                  {policy: network_kv(config, plan, 1, policy).peak for policy in POLICIES},
                  {policy: {precision: asdict(cost) for precision, cost in found.items()}
                   for policy, found in paper_costs(str(system), gpus).items()},
                  _sprite(engine, system))


def _sprite(engine: Engine, system: VarId) -> str:
    """Images and growth of all classes; the images are the first of the experiment's seed, as in its samples."""
    classes = engine.config.data.num_classes
    labels = [label for _ in range(IMAGES) for label in range(classes)]  # classes alternate, as in samples
    drawn = engine.draw(system, labels, range(len(labels)), engine.config.seed)
    growth_KB3SS = engine.grow(drawn.tokens_BL[:classes])
    columns = np.concatenate([drawn.images_B3SS.reshape(IMAGES, classes, *drawn.images_B3SS.shape[1:]), growth_KB3SS])
    count, _, channels, side, _ = columns.shape
    page = columns.transpose(1, 3, 0, 4, 2).reshape(classes * side, count * side, channels)
    buffer = io.BytesIO()
    Image.fromarray(page).save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
