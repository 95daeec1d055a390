"""A sentence of Sec. 3.3.2, judged from the curves of trainings: full-only layers and the flexible zone in phase 3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from varient.claims.claims import Claim
from varient.claims.judgement import Evidence
from varient.claims.records import Records
from varient.config import ExperimentConfig
from varient.report.inputs import DEFAULT_EXPERIMENT
from varient.report.results import curves_of

_NORM = "gradient_norm/{zone}/full_only"
_WHY = ("Flexible tokens attend to keys and values of bridge tokens, which went through those layers, so a gradient "
        "reaches them.")


@dataclass(frozen=True)
class Support:
    """Norm of the gradient of each zone's loss in the full-only layers of a supernet, mean over a phase's epochs.

    Attributes:
        first, last: of the flexible zone, in phase 1 and in phase 3.
        most: of the flexible zone, in any epoch of phase 3.
        bridge: of the bridge zone, in phase 3.
    """

    network: str
    first: float
    last: float
    most: float
    bridge: float

    @property
    def is_lost(self) -> bool:
        """Whether it is zero in all of phase 3, but for rounding of the numbers that the curves are kept in."""
        return self.most <= np.finfo(np.float32).eps * self.bridge

    def __str__(self) -> str:
        return (f"{self.network} {self.last:.2g} in phase 3 against {self.first:.2g} in phase 1 (bridge zone: "
                f"{self.bridge:.2g} in phase 3)")


def gradient_support(claim: Claim, records: Records, run_dir: Path | None) -> Evidence | None:
    """What the curves in a run folder say about the claim; None for other claims, and without curves."""
    if claim.quantity.name != "gradient_support" or run_dir is None:
        return None
    found = list(supports(records.config, run_dir))
    if not found:
        return None
    lost = all(support.is_lost for support in found)
    # Under fp16 the probes are not scaled (`varient.training.curves.Curves`): what is zero may have been lost.
    agrees = None if lost and records.config.supernet.training.precision == "fp16" else lost
    sentence = f"Norm of the flexible zone's gradient in full-only layers: {'; '.join(map(str, found))}."
    return Evidence(agrees, " to ".join(dict.fromkeys(f"{end([s.last for s in found]):.2g}" for end in (min, max))),
                   sentence if lost else f"{sentence} {_WHY}", f"measured ({records.config.name})",
                   figure_command(records.config.name))


def supports(config: ExperimentConfig, run_dir: Path) -> Iterator[Support]:
    """Of each supernet of the three phases that has curves of all of them."""
    for depth in config.supernet.depths:
        network = f"supernet-d{depth}"
        first, second, third = config.supernet.phases_of(depth, config.recipe(None))
        curves = curves_of(run_dir, network)
        norms = {zone: curves.get(_NORM.format(zone=zone), ((), ()))[1] for zone in ("flexible", "bridge")}
        # One probe an epoch, so a value's place in its curve is its epoch.
        if first and third and all(len(values) == first + second + third for values in norms.values()):
            flexible, bridge = norms["flexible"], norms["bridge"][first + second:]
            in_third = flexible[first + second:]
            yield Support(network, float(np.mean(flexible[:first])), float(np.mean(in_third)), float(np.max(in_third)),
                          float(np.mean(bridge)))


def figure_command(experiment: str) -> str:
    """Trains the supernet of Fig. 3 where there is none, and draws these norms."""
    if experiment == DEFAULT_EXPERIMENT:
        return "snakemake --cores all figures/fig3.png"
    return f"snakemake --cores all figures/{experiment}/fig3.png --configfile workflow/config/{experiment}.yaml"
