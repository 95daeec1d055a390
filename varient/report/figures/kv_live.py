"""Size of the KV cache during the generation of an image, with the reference and the lean cache, at the paper's size.

`KVSize` also gives other figures the size of the cache of a plan in an experiment.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varient.config import CachePolicy, ExperimentConfig
from varient.cost.kv_accounting import cache_steps, passes
from varient.cost.paper_systems import BRIDGE, released_shape
from varient.cost.quantities import PRECISIONS, NumberFormats
from varient.cost.roofline import PAPER_BATCH_SIZE, PAPER_PRECISION, ROWS_PER_IMAGE
from varient.cost.sizes import MIB
from varient.paper import DEPTH, PAPER_DEPTHS
from varient.plan import DepthPlan
from varient.pyramid import VAR_256, Pyramid
from varient.report.needs import nothing
from varient.report.style import (
    LIGHT_GREY,
    PAGE_IN,
    SMALL_PT,
    colour_of_depth,
    new_figure,
    note_below,
)
from varient.results import Results


@dataclass(frozen=True)
class KVSize:
    """Sizes that convert token-layers of a plan to MiB.

    Attributes:
        pyramid: the scales.
        width: channels of a key.
        rows: images, doubled under guidance.
        precision: number formats.
        l2_norm: whether keys are normalised, which the reference cache keeps in float32.
    """

    pyramid: Pyramid
    width: int
    rows: int
    precision: NumberFormats
    l2_norm: bool = True

    @classmethod
    def of(cls, config: ExperimentConfig) -> KVSize:
        """The sizes of an experiment, at the batch and in the precision of its profiles."""
        spec, profiling = config.transformer, config.profiling
        return cls(config.pyramid, spec.embed_dim, ROWS_PER_IMAGE * profiling.batch_size,
                   PRECISIONS[profiling.precision], spec.attn_l2_norm)

    def in_flight_mib(self, plan: DepthPlan, policy: CachePolicy) -> tuple[list[float], list[float]]:
        """Times of the attentions, and the size of the cache in MiB at each.

        The unit of time is a scale, from 0; the layers of a scale are equally spaced in it.
        """
        steps = cache_steps(passes(plan, self.pyramid), policy)
        unit = self.rows * self.width * (self.precision.key_bytes(policy, self.l2_norm) + self.precision.value_bytes())
        layers = Counter(step.index for step in steps)
        done: Counter[int] = Counter()
        times = []
        for step in steps:
            times.append(step.index + (done[step.index] + 0.5) / layers[step.index])
            done[step.index] += 1
        return times, [step.in_flight * unit / MIB for step in steps]

    def peak_mib(self, plan: DepthPlan, policy: CachePolicy) -> float:
        """Peak size of the cache in MiB, new entries of the running layer included."""
        return max(self.in_flight_mib(plan, policy)[1])


PAPER_SIZE = KVSize(VAR_256, released_shape(DEPTH).spec.embed_dim, ROWS_PER_IMAGE * PAPER_BATCH_SIZE,
                    PRECISIONS[PAPER_PRECISION])
"""VAR-d30 as in the paper's Tables 2 and 3: batch 64 under guidance, 16-bit values."""


def paper_plan(depth: int, bridge: int = BRIDGE) -> DepthPlan:
    """The paper's plan of a subnet depth and N; 30 is the full network."""
    if depth == DEPTH:
        return DepthPlan.full(DEPTH, VAR_256.num_scales)
    return DepthPlan.bridge(DEPTH, depth, bridge, VAR_256.num_scales)


def draw_kv_live(_config: ExperimentConfig, _results: Results, _run_dir: Path) -> Figure:
    """Size of the cache over the scales for each depth, at the paper's size whatever the experiment."""
    figure = new_figure(PAGE_IN, 3.2)
    reference, lean = figure.subplots(1, 2, sharey=True)
    _draw_policy(reference, "reference", "--")
    _draw_policy(lean, "lean", "-")
    reference.set_title("(a) reference cache: keeps every entry")
    lean.set_title("(b) lean cache: keeps what a later scale reads")
    reference.set_ylabel("live keys and values (MiB)")
    note_below(figure, f"arithmetic: VAR-d30 at the paper's size, batch {PAPER_BATCH_SIZE} with guidance, "
                       f"N = {BRIDGE}; keys of 4 bytes (reference) or 2 (lean), values of 2")
    return figure


needs_of_kv_live = nothing


def _draw_policy(axis: Axes, policy: CachePolicy, line: str) -> None:
    """One line for each depth, with a dot at its peak; the legend has the peaks."""
    axis.axvspan(0, BRIDGE, color=LIGHT_GREY, alpha=0.4, linewidth=0)
    for depth in (DEPTH, *PAPER_DEPTHS):
        times, mib = PAPER_SIZE.in_flight_mib(paper_plan(depth), policy)
        peak = mib.index(max(mib))
        axis.plot(times, mib, line, color=colour_of_depth(depth), marker="o", markevery=[peak], markersize=3.5,
                  clip_on=False, label=f"$d$ = {depth}: {mib[peak]:.1f}".removesuffix(".0"))
    axis.legend(title="peak (MiB)", loc="upper left", bbox_to_anchor=(0.01, 0.93), alignment="left")
    axis.text(BRIDGE / 2, 0.98, "bridge zone", ha="center", va="top", fontsize=SMALL_PT,
              transform=axis.get_xaxis_transform())
    axis.set_xticks([k - 0.5 for k in VAR_256.scales], [f"{k}\n{VAR_256.side(k)}²" for k in VAR_256.scales])
    axis.tick_params(axis="x", length=0)
    axis.set_xlim(0, VAR_256.num_scales)
    axis.set_ylim(0, None)
    axis.set_xlabel("scale and its tokens; within a scale, the layers in order")
