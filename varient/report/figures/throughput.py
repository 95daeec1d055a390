"""Throughput against the batch size, up to the batch that does not fit: measured by sweeps, and predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from varient.config import ExperimentConfig
from varient.cost.gpus import device, key_of
from varient.cost.roofline import PAPER_DEVICE, PAPER_POLICY, PAPER_PRECISION, peak_mib, system_cost
from varient.disturbance import disturbances
from varient.profile_records import ProfileRecord
from varient.report.needs import Needs, needs, shown_depths
from varient.report.style import PAGE_IN, colour_of, log_scale, missing_records, new_figure, note_below
from varient.results import Results
from varient.systems.ids import VarId, base_system
from varient.systems.registry import resolve_system

PREDICTED_BATCHES = tuple(2 ** power for power in range(11))


@dataclass(frozen=True)
class Setting:
    """What the cost model predicts for: that of the paper's Table 2, or that of sweeps on a GPU that it knows."""

    device_key: str = PAPER_DEVICE
    precision: str = PAPER_PRECISION
    policy: str = PAPER_POLICY

    @classmethod
    def of(cls, sweeps: Sequence[ProfileRecord]) -> Setting:
        """The setting of sweeps, which are on one device in one precision; without a known GPU, Table 2's."""
        key = key_of(sweeps[0].provenance.device) if sweeps else None
        return cls(key, sweeps[0].precision, sweeps[0].cache_policy) if key else cls()


def draw_throughput(config: ExperimentConfig, results: Results, _run_dir: Path) -> Figure:
    """Images per second over the batch size, of each sweep, and of the same systems at the paper's size."""
    figure = new_figure(PAGE_IN, 3.4)
    left, right = figure.subplots(1, 2)
    wanted = needs_of_throughput(config).sweep
    there = {name: list(records) for name, records in groupby(results.sweeps, lambda record: record.system)}
    names = list(there) or list(wanted)
    published_as = {name: resolve_system(name, config).published_as for name in names}
    setting = Setting.of(results.sweeps)
    if there:
        _draw(left, {name: _measured(records) for name, records in there.items()}, published_as)
    else:
        missing_records(left, "sweeps", wanted)
    at_once = config.sampling.decoded_at_once
    curves = {name: predicted(published_as[name], setting, at_once) for name in names}
    _draw(right, {name: points for name, points in curves.items() if points}, published_as)
    left.set_title(f"(a) measured ({config.name})" if there else f"(a) {config.name}")
    right.set_title("(b) predicted, at the paper's size")
    note_below(figure, f"{_measured_note(there, wanted)}(b): the cost model at the paper's size, "
                       f"{setting.device_key.upper()}, {setting.precision}, {setting.policy} cache; a line ends at the "
                       "largest batch that is predicted to fit.  Neither has the image decoder in its time", results)
    return figure


def needs_of_throughput(config: ExperimentConfig) -> Needs:
    """Sweeps of the full network, and of its deepest and its shallowest subnet."""
    depths = shown_depths(config)
    return needs(sweep=[base_system(config), *(VarId("variant", depth) for depth in (depths[0], depths[-1]))])


def predicted(published_as: str, setting: Setting, decoded_at_once: int) -> list[tuple[int, float]]:
    """(batch size, images per second) of a system at the paper's size, while its predicted memory fits.

    Empty for a system that the cost model does not know.  Where it predicts no memory, every batch is taken to fit.
    """
    points = []
    for batch_size in PREDICTED_BATCHES:
        try:
            cost = system_cost(published_as, batch_size=batch_size, policy=setting.policy, precision=setting.precision,
                               device_key=setting.device_key)
        except ValueError:
            return []
        if cost.peak_memory and peak_mib(cost, decoded_at_once) > device(setting.device_key).memory_mib:
            break
        points.append((batch_size, batch_size / cost.latency_s))
    return points


def _measured(records: Sequence[ProfileRecord]) -> list[tuple[int, float]]:
    return [(record.batch_size, record.images_per_s) for record in records if record.images_per_s]


def _measured_note(there: Mapping[str, Sequence[ProfileRecord]], wanted: Sequence[str]) -> str:
    """A note on the measured panel; empty where it shows nothing."""
    if not there:
        return ""
    first = next(iter(there.values()))[0]
    said = [f"{first.provenance.device}, {first.precision}, {first.cache_policy} cache"]
    said += [f"batch {record.batch_size} of {name} does not fit into memory"
             for name, records in there.items() for record in records if record.status == "out_of_memory"]
    absent = [name for name in wanted if name not in there]
    said += [f"no sweep of {', '.join(absent)}"] if absent else []
    disturbed = [name for name, records in there.items() if any(map(disturbances, records))]
    said += [f"other work disturbed times of {', '.join(disturbed)}"] if disturbed else []
    return f"(a): {'; '.join(said)}.\n"


def _draw(axis: Axes, curves: Mapping[str, Sequence[tuple[int, float]]], published_as: Mapping[str, str]) -> None:
    """A line for each system, with a mark at its highest throughput."""
    for name, points in curves.items():
        rates = [rate for _, rate in points]
        axis.plot([batch_size for batch_size, _ in points], rates, marker="o",
                  markevery=[rates.index(max(rates))] if rates else None, color=colour_of(published_as[name]),
                  label=name)
    if any(curves.values()):
        log_scale(axis, "x")
        axis.set_ylim(0, None)
        axis.legend(loc="best")
    axis.set_xlabel("batch (images)")
    axis.set_ylabel("images/s")
