"""Table 3: memory by batch size and depth, computed and predicted, with the reference and the lean KV cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from varient.config import SamplingConfig
from varient.cost.gpus import device
from varient.cost.paper_systems import paper_system
from varient.cost.roofline import (
    PAPER_DEVICE,
    PAPER_POLICY,
    PAPER_PRECISION,
    SystemCost,
    known_peak_memory,
    peak_mib,
    system_cost,
)
from varient.cost.simulated_memory import simulated_memory
from varient.cost.sizes import MIB
from varient.paper import paper_table
from varient.paper_size import on_cpu
from varient.profile_records import ProfileRecord
from varient.records import RecordError

TABLE3_NOTE = (
    f"KV and parameters are exact; totals are predicted for an {PAPER_DEVICE.upper()} "
    f"({device(PAPER_DEVICE).memory_mib} MiB), and 'OOM' is a predicted total that does not fit it. Two constants of "
    "the prediction, the memory per image in the transformer and in the image decoder, are fitted to totals of this "
    "very table: VAR-d30 and d = 8 at batch 64, and d = 2 at batch 64 and 128. That these agree proves nothing. The "
    "prediction is tested by the other totals (d = 16, d = 8 at batch 128, d = 2 at batch 256), by which rows run out "
    "of memory, and by CoDe, d = 16 and d = 4 in Table 2. The simulated allocator is torch's own, over a GPU that does "
    "nothing: no constant is fitted to it, and cuDNN's workspaces are not in it. Blocks after the first have no "
    "counterpart in the paper.")
PAPER_PARAMETERS = paper_system("var-d30").transformer_parameters[0]
MISSING_MB = 1000
"""MB by which two KV cells of the paper are below the formula that matches all others; see `_note`."""


@dataclass(frozen=True)
class Section:
    """A section of the table: all rows of the paper under one cache policy, precision and batch of the image decoder.

    Attributes:
        decoded_at_once: images that are decoded together; None is the whole batch, as in the paper's totals.
    """

    title: str
    policy: str
    precision: str
    decoded_at_once: int | None

    def cost(self, system: str, batch_size: int) -> SystemCost:
        """The predicted cost of a row."""
        return system_cost(system, batch_size=batch_size, policy=self.policy, precision=self.precision,
                           device_key=PAPER_DEVICE)

    def total_mib(self, system: str, batch_size: int) -> float:
        """Predicted peak: the larger of the transformer's and the decoder's phase."""
        return peak_mib(self.cost(system, batch_size), self.decoded_at_once)

    def simulated_total(self, system: str, batch_size: int) -> str:
        """The peak of torch's allocator on a simulated GPU, MiB; empty for settings that were not simulated."""
        found = simulated_memory(system, batch_size, self.policy, self.precision)
        return f"{found.peak_mib(whole_batch=self.decoded_at_once is None):.0f}" if found else ""

    def largest_batch(self, system: str, memory_mib: float) -> int:
        """The largest batch whose predicted peak fits; 0 where not even one image does."""
        low, high = 0, 1
        while self.total_mib(system, high) <= memory_mib:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            fits = self.total_mib(system, middle) <= memory_mib
            low, high = (middle, high) if fits else (low, middle)
        return low


_AT_ONCE = SamplingConfig.model_fields["decoded_at_once"].default

SECTIONS = (
    Section("the paper's: reference cache, float32 weights, whole batch decoded at once", PAPER_POLICY, PAPER_PRECISION,
            None),
    Section(f"ours: lean cache, float32 weights, {_AT_ONCE} images decoded at once", "lean", PAPER_PRECISION, _AT_ONCE),
    Section(f"reference cache, 16-bit weights, {_AT_ONCE} images decoded at once", "reference", "fp16", _AT_ONCE),
    Section(f"ours: lean cache, 16-bit weights, {_AT_ONCE} images decoded at once", "lean", "fp16", _AT_ONCE),
)


def table3(measured: Sequence[ProfileRecord] = ()) -> pd.DataFrame:
    """Table 3: exact KV cache and parameters, predicted totals, each beside the paper's.

    A total that does not fit the paper's L20 is shown as OOM, with the prediction in a column of its own.  The sections
    after the first show the same rows in other settings, which the paper does not have.

    Args:
        measured: profile records; those at the paper's size fill the measured columns.
    """
    by_setting = _by_setting(measured, memory_mib := device(PAPER_DEVICE).memory_mib)
    rows = []
    printed_rows = paper_table(3)
    for section in SECTIONS:
        methods = printed_rows["method"].unique()
        largest = {method: section.largest_batch(method.lower(), memory_mib) for method in methods}
        for _, printed in printed_rows.iterrows():
            system, batch_size = printed["method"].lower(), int(printed["batch_size"])
            cost = section.cost(system, batch_size)
            total = section.total_mib(system, batch_size)
            record = by_setting.get((system, batch_size, section.policy)) if section.precision == "fp16" else None
            compared = printed if section is SECTIONS[0] else dict.fromkeys(printed.index, "")
            rows.append({
                "block": section.title, "batch_size": batch_size, "method": printed["method"],
                "kv_cache_mb": f"{cost.kv_cache_bytes / MIB:.1f}", "kv_cache_mb_paper": compared["kv_cache_mb"],
                "params_mb": f"{cost.system.parameter_bytes(cost.precision) / MIB:.0f}",
                "params_mb_paper": compared["params_mb"],
                "total_mb": f"{total:.0f}" if total <= memory_mib else "OOM", "total_mb_paper": compared["total_mb"],
                "predicted_total_mb": f"{total:.0f}",
                "simulated_total_mb": section.simulated_total(system, batch_size),
                **_measured_cells(record),
                "set_by": "transformer" if total == known_peak_memory(cost).transformer_mib else "image decoder",
                "largest_batch_48gb": largest[printed["method"]],
                "note": _note(cost, total, memory_mib, compared),
                "source": "arithmetic (KV, parameters), predicted (totals)" + _measured_on(record)})
    return pd.DataFrame([*rows, *(dict.fromkeys(rows[0], "") | row for row in _cpu_rows(measured))])


def _cpu_rows(measured: Sequence[ProfileRecord]) -> Iterator[dict[str, str]]:
    """The paper's rows on a CPU at the batch sizes that were measured, in float32 with both caches."""
    for policy in ("reference", "lean"):
        for batch_size in sorted({record.batch_size for record in measured}):
            found = on_cpu(measured, batch_size)
            for method in paper_table(3)["method"].unique():
                if record := found.get((method.lower(), policy)):
                    cost = system_cost(record.system, batch_size=batch_size, policy=policy, precision="fp32")
                    yield {"block": f"on a CPU: {policy} cache, float32 without autocast, random weights",
                           "batch_size": str(batch_size), "method": method,
                           "kv_cache_mb": f"{cost.kv_cache_bytes / MIB:.1f}",
                           "params_mb": f"{cost.system.parameter_bytes(cost.precision) / MIB:.0f}",
                           **_measured_cells(record),
                           "source": "arithmetic (KV, parameters)" + _measured_on(record)}


def _by_setting(measured: Sequence[ProfileRecord], memory_mib: float) -> dict[tuple[str, int, str], ProfileRecord]:
    """Records of the paper's network in 16 bits on an L20, or on a larger GPU limited to an L20's memory.

    Those made with a switch (`varient.models.acceleration`) are not among them.

    Raises:
        RecordError: two records of one setting.
    """
    found: dict[tuple[str, int, str], ProfileRecord] = {}
    for record in measured:
        cap_mib = record.memory.memory_cap_mib
        as_l20 = "L20" in record.provenance.device or (cap_mib and abs(cap_mib / memory_mib - 1) < 0.01)
        if (record.num_parameters == PAPER_PARAMETERS and record.precision == "fp16" and as_l20
                and not record.acceleration):
            key = record.system, record.batch_size, record.cache_policy
            if key in found:
                raise RecordError(f"two profile records of {key[0]} at batch {key[1]} with the {key[2]} cache")
            found[key] = record
    return found


def _measured_on(record: ProfileRecord | None) -> str:
    return f", measured ({record.provenance.device})" if record else ""


def _measured_cells(record: ProfileRecord | None) -> dict[str, str]:
    """Measured cells of a row; empty in the first two sections, as our engine has no float32 weights under autocast."""
    cells = {"measured_kv_mb": "", "measured_total_mb": ""}
    if record is None:
        return cells
    if record.status == "out_of_memory":
        return dict.fromkeys(cells, "OOM")
    found = {"measured_kv_mb": record.memory.kv_cache_mib, "measured_total_mb": record.memory.peak_mib}
    return {name: "" if value is None else f"{value:.1f}" for name, value in found.items()}


def _note(cost: SystemCost, total_mib: float, memory_mib: float, printed: pd.Series | dict) -> str:
    """Differences between the paper's cells and ours, in words."""
    if not printed["kv_cache_mb"]:
        return ""
    if printed["total_mb"] == "OOM":
        return "" if total_mib > memory_mib else "predicted to fit"
    notes = []
    missing = cost.kv_cache_bytes / MIB - float(printed["kv_cache_mb"])
    if abs(missing - MISSING_MB) < 1:
        notes.append(f"paper's KV is {MISSING_MB} below the formula that gives its other cells")
    elif abs(missing) > 1:
        notes.append(f"paper's KV differs from the formula by {-missing:.0f}")
    if total_mib > memory_mib:
        notes.append(f"paper's total cannot hold a decode of the whole batch ({total_mib:.0f}); "
                     f"without it {known_peak_memory(cost).transformer_mib:.0f}")
    elif abs(error := float(printed["total_mb"]) / total_mib - 1) > 0.03:
        notes.append(f"paper's total is {100 * error:+.0f} % from the prediction")
    return "; ".join(notes)
