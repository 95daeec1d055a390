"""What torch's own allocator says of a printed total of Table 3, on a simulated GPU (docs/cuda.md).

It is shown beside the claims and decides none: cuDNN's workspaces are not in it.  But it includes the KV cache by the
formula, so where the paper prints another one it says which of the two the printed total has room for.
"""

from __future__ import annotations

from functools import cache

from varient.claims.arithmetic import kv_mb
from varient.claims.claims import FULL, Claim
from varient.cost.roofline import PAPER_POLICY, PAPER_PRECISION
from varient.cost.simulated_memory import simulated_memory
from varient.paper import paper_rows, system_id

CLEARLY = 10
"""How many times nearer one of two caches has to come, for a total to speak for it (our choice)."""


def allocator_remark(claim: Claim) -> str:
    """A sentence about a total of Table 3, or about a KV cache there that is not the formula's; empty without one."""
    if claim.where != "Table 3" or claim.quantity.name not in ("memory_mb", "kv_mb"):
        return ""
    system, batch = claim.quantity.systems[0], claim.quantity.batch
    if (system, batch) not in _printed():
        return ""
    kv_printed, total_printed = _printed()[system, batch]
    found = simulated_memory(system, batch, PAPER_POLICY, PAPER_PRECISION)
    if found is None:
        return ""
    simulated = found.peak_mib(whole_batch=True)
    by_decoder, missing = simulated > found.transformer_mib, kv_mb(system, batch) - kv_printed
    slipped = abs(missing) > 1 and not by_decoder and (FULL, batch) in _printed()
    if claim.quantity.name == "kv_mb" and not slipped:
        return ""
    above = simulated - total_printed
    sentence = f"Torch's allocator, simulated, takes {simulated:.0f} MB, {_beside(above)} the printed total"
    if by_decoder:
        return f"{sentence}: the image decoder sets it, whose workspaces the simulation lacks."
    if not slipped:
        return f"{sentence}."
    full = simulated_memory(FULL, batch, PAPER_POLICY, PAPER_PRECISION)
    assert full is not None  # its settings are simulated for all systems alike
    usual = full.peak_mib(whole_batch=True) - _printed()[FULL, batch][1]
    with_formula, with_printed = abs(above - usual), abs(above - missing - usual)
    verdict = f", so the total speaks for {kv_mb(system, batch):.1f}" if CLEARLY * with_formula < with_printed else ""
    return (f"{sentence}, and with a cache of {kv_printed:.0f} {_beside(above - missing)}; {FULL}'s lies "
            f"{_beside(usual)} its own{verdict}.")


def _beside(above: float) -> str:
    return f"{abs(above):.0f} {'above' if above > 0 else 'below'}"


@cache
def _printed() -> dict[tuple[str, int], tuple[float, float]]:
    """(system, batch) -> KV cache and total of Table 3; rows that ran out of memory left out."""
    return {(system_id(row["method"]), int(row["batch_size"])): (float(row["kv_cache_mb"]), float(row["total_mb"]))
            for row in paper_rows("table3") if row["total_mb"].isdecimal()}
