"""The planner's answer for a person."""

from __future__ import annotations

from rich.table import Table

from varient.cost.planner import Quality, choices, fitting
from varient.cost.roofline import compare_with_paper
from varient.terminal import print_table


def show_plan(quality: dict[tuple[int, int], Quality], *, batch_size: int, device: str, memory_mib: float,
              latency_s: float | None, runners_up: int) -> None:
    """Print the best configuration that fits and those that follow it.

    Raises:
        ValueError: nothing fits, an unknown device, or a batch below 1.
    """
    chosen = fitting(choices(quality, batch_size=batch_size, device=device), memory_mib=memory_mib,
                     latency_s=latency_s)
    table = Table(title=f"batch {batch_size} on {device.lower()}, at most {memory_mib:.0f} MiB"
                        + (f" and {latency_s:g} s" if latency_s else ""),
                  caption="Peak and time are predicted; the same predictions miss latencies of the paper's Table 2 "
                          f"by up to {_worst_miss():.0%} (varient cost --compare).")
    for heading in ("configuration", "FID", "source", "peak MiB", "time s"):
        table.add_column(heading, justify="left" if heading in ("configuration", "source") else "right")
    for choice in chosen[:1 + runners_up]:
        table.add_row(choice.name, f"{choice.quality.fid:.2f}", choice.quality.source, f"{choice.memory_mib:.0f}",
                      f"{choice.latency_s:.2f}")
    print_table(table)


def _worst_miss() -> float:
    """Largest relative error of predicted latency among the paper's VAR rows."""
    return max(abs(comparison.latency_error) for comparison in compare_with_paper())
