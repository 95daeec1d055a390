"""What is left of the flexible zone's gradient in full-only layers, from the curves of trainings (Sec. 3.3.2).

That some is left follows from the architecture (`varient.claims.arithmetic.reached_layers`).  How much is a
measurement, which stands beside the verdict and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from varient.claims.claims import Claim
from varient.claims.judgement import Evidence
from varient.claims.records import Records
from varient.config import ExperimentConfig
from varient.results import curves_of
from varient.systems.names import SupernetId
from varient.targets import make_command

_NORM = "gradient_norm/{zone}/full_only"


@dataclass(frozen=True)
class Support:
    """Norm of the gradient of each zone's loss in the full-only layers of a supernet, mean over a phase's epochs.

    Attributes:
        flexible, bridge: of each zone, in phase 1 and in phase 3.
    """

    network: str
    flexible: tuple[float, float]
    bridge: tuple[float, float]

    @property
    def fall(self) -> float:
        """How many times less of the flexible zone's gradient there is in phase 3 than in phase 1."""
        before, after = self.flexible
        return before / after if after else float("inf")

    def __str__(self) -> str:
        sides = "; ".join(f"{zone} zone {before:.2g} to {after:.2g}" for zone, (before, after) in
                          (("flexible", self.flexible), ("bridge", self.bridge)))
        return f"{self.network} ({sides})"


def gradient_support(claim: Claim, records: Records, run_dir: Path | None) -> Evidence | None:
    """What the curves in a run folder say about the claim; None for other claims, and without curves."""
    if claim.quantity.name != "gradient_support" or run_dir is None:
        return None
    found = list(supports(records.config, run_dir))
    if not found:
        return None
    folds = dict.fromkeys(f"{end(support.fall for support in found):.1f}" for end in (min, max))
    return Evidence(None, f"its norm falls {' to '.join(folds)} times",
                    "Measured norms of the gradient in full-only layers, from phase 1 to phase 3: "
                    f"{', '.join(map(str, found))}.", f"measured ({records.config.name})",
                    figure_command(records.config.name))


def supports(config: ExperimentConfig, run_dir: Path) -> Iterator[Support]:
    """Of each supernet of the three phases that has curves of all of them."""
    for depth in config.supernet.depths:
        network = str(SupernetId(depth))
        first, second, third = config.supernet.phases_of(depth, config.recipe(None))
        curves = curves_of(run_dir, network)
        norms = [curves.get(_NORM.format(zone=zone), ((), ()))[1] for zone in ("flexible", "bridge")]
        # One probe an epoch, so a value's place in its curve is its epoch.
        if first and third and all(len(values) == first + second + third for values in norms):
            yield Support(network, *((float(np.mean(values[:first])), float(np.mean(values[first + second:])))
                                     for values in norms))


def figure_command(experiment: str) -> str:
    """Trains the supernet of Fig. 3 where there is none, and draws these norms."""
    return make_command("figures", "fig3.png", experiment)
