"""The answer of `varient sweep`: throughput at each batch size, and the highest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from varient.disturbance import disturbances
from varient.profile_records import ProfileRecord
from varient.report.cells import ABSENT, number
from varient.terminal import Answer, Grid


def best(records: Sequence[ProfileRecord]) -> ProfileRecord | None:
    """The record with the highest throughput; None if no batch fits into memory."""
    return max((record for record in records if record.images_per_s), key=lambda record: record.images_per_s or 0,
               default=None)


def sweep_answer(records: Sequence[ProfileRecord]) -> Answer:
    """Throughput at each batch, and the best one; the image decoder is in neither.

    Args:
        records: of one system, from small to large batches; at least one.
    """
    first, found = records[0], best(records)
    end = next((record.batch_size for record in records if record.status == "out_of_memory"), None)
    setting = {"experiment": first.provenance.experiment, "system": first.system, "precision": first.precision,
               "cache_policy": first.cache_policy, "device": first.provenance.device}
    document: dict[str, Any] = setting | {
        "best_batch_size": found.batch_size if found else None,
        "best_images_per_s": found.images_per_s if found else None,
        "out_of_memory_at": end,
        "batches": [{"batch_size": record.batch_size, "status": record.status,
                     "latency_s": record.latency.median_s if record.latency else None,
                     "images_per_s": record.images_per_s, "peak_mib": record.memory.peak_mib,
                     "device": record.provenance.device, "disturbances": list(disturbances(record))}
                    for record in records]}
    grid = Grid(f"{first.system} ({setting['experiment']}), {first.precision}, {first.cache_policy} cache, "
                f"{setting['device']}", ("batch", "latency (s)", "images/s", "peak memory (MiB)", "remark"),
                [_row(record) for record in records], words=("remark",))
    said = (f"highest throughput: {found.images_per_s:.4g} images/s at batch {found.batch_size}, without the image "
            "decoder" if found else "no batch fits into memory")
    said += f"; batch {end} does not fit" if end and found else ""
    return Answer(document, (grid,), notes=(said,))


def batch_line(record: ProfileRecord) -> str:
    """One batch of a sweep in a line."""
    batch_size, latency, images_per_s, *_, remark = _row(record)
    return f"{record.system}, batch {batch_size}: {latency} s, {images_per_s} images/s{remark and f' ({remark})'}"


def _row(record: ProfileRecord) -> tuple[str, ...]:
    remark = "out of memory" if record.status == "out_of_memory" else \
        "disturbed" if disturbances(record) else ""
    return (str(record.batch_size), number(record.latency.median_s if record.latency else None, 4) or ABSENT,
            number(record.images_per_s, 1) or ABSENT, number(record.memory.peak_mib, 1) or ABSENT, remark)
