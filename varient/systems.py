"""Names of the VAR-like systems of an experiment, and what each stands for: whose weights, which plan.

| id | weights | plan |
|---|---|---|
| `var-d30` | base | full |
| `variant-d16`, `variant-d16-n7` | supernet trained with d = 16 | bridge zone N (the config's, or as said), then I_16 |
| `variant-d16-full` | supernet trained with d = 16 | full |
| `free-d16`, `free-d16-n7` | base, no further training | as `variant-d16` |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from varient.config import ExperimentConfig
from varient.plan import DepthPlan

_ID = re.compile(r"(?P<family>var|variant|free)-d(?P<depth>\d+)(-n(?P<bridge>\d+)|-(?P<full>full))?")


@dataclass(frozen=True)
class System:
    """A VAR-like row of a table.

    Attributes:
        name: the id it was asked by.
        weights: stem of its weight file below the experiment's run folder, `base` or `supernet-d<d>`.
        plan: layers per scale.
    """

    name: str
    weights: str
    plan: DepthPlan

    @property
    def steps(self) -> str:
        """Passes through the transformer as the paper prints them: "10", or "6+4" for bridge and flexible zone."""
        full_scales = sum(len(layers) == self.plan.depth for layers in self.plan.layers_per_scale)
        rest = self.plan.num_scales - full_scales
        return f"{full_scales}+{rest}" if rest else str(full_scales)

    def weights_path(self, run_dir: Path) -> Path:
        """The weight file of the system."""
        return run_dir / f"{self.weights}.safetensors"


def resolve_system(name: str, config: ExperimentConfig) -> System:
    """The system of that id in the experiment.

    Raises:
        ValueError: an id that is not of the table above, or that asks for a depth the experiment does not have.
    """
    match = _ID.fullmatch(name)
    depth = config.transformer.depth
    if not match:
        raise ValueError(f"system {name!r} is unknown; known forms: var-d{depth}, variant-d<d>, variant-d<d>-n<N>, "
                         f"variant-d<d>-full, free-d<d>, free-d<d>-n<N>")
    family, subnet_depth = match["family"], int(match["depth"])
    if family == "var":
        if subnet_depth != depth or match["bridge"] or match["full"]:
            raise ValueError(f"system {name!r}: the base network of {config.name} is var-d{depth}")
        return System(name, "base", config.plan())
    if family == "variant" and subnet_depth not in config.supernet.depths:
        raise ValueError(f"system {name!r}: {config.name} trains supernets for d = "
                         f"{', '.join(map(str, config.supernet.depths))}")
    bridge = int(match["bridge"]) if match["bridge"] else None
    if match["full"]:
        if family == "free":
            raise ValueError(f"system {name!r}: the untrained full network is var-d{depth}")
        return System(name, f"supernet-d{subnet_depth}", config.plan())
    weights = f"supernet-d{subnet_depth}" if family == "variant" else "base"
    return System(name, weights, config.plan(subnet_depth, bridge))
