"""Quality against cost: FID over peak memory and over latency, ours and the paper's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varient.config import ExperimentConfig
from varient.cost.quantities import PRECISIONS
from varient.cost.roofline import PAPER_BATCH_SIZE, ROWS_PER_IMAGE
from varient.disturbance import disturbances
from varient.paper import paper_table, system_id
from varient.profile_records import ProfileRecord
from varient.report.figures.kv_live import KVSize
from varient.report.needs import Needs, needs
from varient.report.style import (
    BETTER,
    GREY,
    PAGE_IN,
    colour_of,
    corner_note,
    label_points,
    log_scale,
    missing_records,
    new_figure,
    note_below,
)
from varient.report.table2 import needs_of_table2
from varient.results import Results
from varient.spread import half_width
from varient.systems.ids import VarId, parse
from varient.systems.protocol import System
from varient.systems.registry import resolve_system


class Mark(NamedTuple):
    """A system in the plane; unknown values are None.

    Attributes:
        published_as: its id at the size of its authors; decides colour and shape.
        latency_quartiles_s: lower and upper, of the repeats.
        reference_mib: estimate of the peak memory with the released code's KV cache.
    """

    name: str
    published_as: str
    fid: float
    fid_pm: float | None
    memory_mib: float | None
    latency_s: float | None
    latency_quartiles_s: tuple[float, float] | None = None
    reference_mib: float | None = None


AXES: tuple[tuple[str, Callable[[Mark], float | None]], ...] = (
    ("peak memory (MiB)", lambda mark: mark.memory_mib), ("latency (s)", lambda mark: mark.latency_s))

_SHAPES = {"code": "s", "dit": "^", "llamagen": "D"}
"""Markers of the families other than VAR."""


def draw_frontier(config: ExperimentConfig, results: Results, _run_dir: Path) -> Figure:
    """FID over memory and latency of all systems of Table 2: measured above, as the paper prints them below."""
    figure = new_figure(PAGE_IN, 5.0)
    rows = figure.subplots(2, 2)
    ours = measured_marks(config, results)
    absent = [name for name in needs_of_frontier(config).profile
              if name not in {mark.name for mark in ours}]
    sources = (f"measured ({config.name})", ours), ("paper, Table 2", paper_marks())
    panels = [(axis, label, x_of, source, marks) for line, (source, marks) in zip(rows, sources, strict=True)
              for axis, (label, x_of) in zip(line, AXES, strict=True)]
    for letter, (axis, label, x_of, source, marks) in zip("abcd", panels, strict=True):
        axis.set_title(f"({letter}) {source}")
        if any(x_of(mark) for mark in marks):
            _draw_marks(axis, marks, x_of)
            axis.set_xlabel(f"{label} {BETTER}")
            axis.set_ylabel(f"FID {BETTER}")
        else:
            missing_records(axis, "scores and profiles", absent)
    if ours:
        _draw_reference(rows[0][0], ours)
        _draw_quartiles(rows[0][1], ours)
        if config.data.in_memory:
            corner_note(rows[0][1], f"DiT and LlamaGen on {config.data.source} say\nnothing about ImageNet", right=True,
                        top=True)
    note_below(figure, f"{_measured_note(config, results, ours)}(c), (d): paper, ImageNet, batch {PAPER_BATCH_SIZE}, "
                       "L20.  d2 to d16: VARiant", results)
    label_points({axis: [(x, mark.fid, _label(mark)) for mark in marks if (x := x_of(mark))]
                  for axis, _, x_of, _, marks in panels})
    return figure


def needs_of_frontier(config: ExperimentConfig) -> Needs:
    """The systems of Table 2, without the real images."""
    profiled = needs_of_table2(config).profile
    return needs(score=profiled, profile=profiled)


def _measured_note(config: ExperimentConfig, results: Results, marks: Sequence[Mark]) -> str:
    """A note on the upper panels; empty where they show nothing."""
    if not marks:
        return ""
    profiles = {mark.name: results.profiles[mark.name] for mark in marks}
    batch_sizes = sorted({profile.batch_size for profile in profiles.values()})
    disturbed = [name for name, profile in profiles.items() if disturbances(profile)]
    said = [f"measured ({config.name}), batch {' or '.join(map(str, batch_sizes))}",
            "bars: FID, 95 % over redraws of the images; latency, quartiles of the repeats"]
    said += [f"other work disturbed the latencies of {', '.join(disturbed)}"] if disturbed else []
    return f"(a), (b): {'; '.join(said)}.\n"


def measured_marks(config: ExperimentConfig, results: Results) -> list[Mark]:
    """Systems with a score and a profile record, without those that ran out of memory."""
    marks = []
    for name in needs_of_frontier(config).profile:
        score, profile = results.scores.get(name), results.profiles.get(name)
        if score and score.fid is not None and score.fid_sd is not None and profile and profile.latency:
            system = resolve_system(name, config)
            marks.append(Mark(name, system.published_as, score.fid, half_width(score.fid_sd), profile.memory.peak_mib,
                              profile.latency.median_s, _quartiles(profile.latency.repeats_s),
                              _with_reference_cache(config, system, profile)))
    return marks


def paper_marks() -> list[Mark]:
    """The rows of Table 2, which has no memory of DiT and LlamaGen."""
    return [Mark(row["method"], system_id(row["method"]), float(row["fid"]), None, float(row["memory_mb"] or 0) or None,
                 float(row["latency_s"])) for _, row in paper_table(2).iterrows()]


def _quartiles(values: Sequence[float]) -> tuple[float, float] | None:
    """The lower and the upper quartile; None for a single value."""
    if len(values) < 2:
        return None
    lower, _, upper = quantiles(values, n=4)
    return lower, upper


def _with_reference_cache(config: ExperimentConfig, system: System, profile: ProfileRecord) -> float | None:
    """Estimated peak memory (MiB) of a system with the lean cache, if it kept all entries as the reference cache does.

    The cache is computed, the other parts are as measured.  It is rather an overestimate, because the parts of
    `MemoryUse` have their peaks at different times.  None for systems without a plan or with another cache, and where a
    part was not measured.
    """
    plan, memory = getattr(system, "plan", None), profile.memory
    if plan is None or profile.cache_policy != "lean":
        return None
    if (memory.peak_mib is None or memory.parameters_mib is None or memory.activations_mib is None
            or memory.decoder_mib is None):
        return None
    size = replace(KVSize.of(config), rows=ROWS_PER_IMAGE * profile.batch_size,
                   precision=PRECISIONS[profile.precision])
    kv_mib = size.peak_mib(plan, "reference")
    return max(memory.peak_mib, memory.parameters_mib + max(kv_mib + memory.activations_mib, memory.decoder_mib))


def _draw_marks(axis: Axes, marks: Sequence[Mark], x_of: Callable[[Mark], float | None]) -> None:
    """Points on logarithmic axes; a line joins VAR and its subnets."""
    known = [(x, mark) for mark in marks if (x := x_of(mark))]
    family = [(x, mark.fid) for x, mark in known if _is_var(mark)]
    axis.plot([x for x, _ in family], [fid for _, fid in family], color=GREY, linewidth=0.8, zorder=1)
    for x, mark in known:
        colour = colour_of(mark.published_as)
        system = parse(mark.published_as)
        free = system is not None and system.free
        shape = _SHAPES.get(system.family, "o") if system else "o"
        axis.errorbar(x, mark.fid, yerr=mark.fid_pm, fmt=shape, color=colour, elinewidth=0.8,
                      markerfacecolor="white" if free else colour)
    log_scale(axis, "x")
    log_scale(axis, "y")
    axis.margins(0.12)


def _draw_reference(axis: Axes, marks: Sequence[Mark]) -> None:
    """The saving of the lean cache: an arrow from the memory with the reference cache to the measured one."""
    estimated = [(mark, reference_mib, memory_mib) for mark in marks
                 if (reference_mib := mark.reference_mib) and (memory_mib := mark.memory_mib)]
    for mark, reference_mib, memory_mib in estimated:
        axis.annotate("", (memory_mib, mark.fid), (reference_mib, mark.fid), annotation_clip=False,
                      arrowprops={"arrowstyle": "-|>", "color": colour_of(mark.published_as), "linewidth": 0.7,
                                  "shrinkA": 0, "shrinkB": 3, "mutation_scale": 6})
        axis.plot(reference_mib, mark.fid, "|", color=colour_of(mark.published_as), markersize=5)
    if estimated:
        corner_note(axis, "tail of an arrow: estimate\nwith the reference cache", right=True, top=True)


def _draw_quartiles(axis: Axes, marks: Sequence[Mark]) -> None:
    """Quartiles of the repeats of a latency."""
    for mark in marks:
        if mark.latency_quartiles_s and mark.latency_s:
            axis.plot(mark.latency_quartiles_s, [mark.fid] * 2, color=colour_of(mark.published_as), linewidth=0.8)


def _label(mark: Mark) -> str:
    """The label of a system; of a subnet its depth."""
    system = parse(mark.published_as)
    return f"d{system.depth}" if isinstance(system, VarId) and system.of_supernet else mark.name


def _is_var(mark: Mark) -> bool:
    system = parse(mark.published_as)
    return isinstance(system, VarId) and not system.free
