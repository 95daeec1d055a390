"""Tables 6 and 7: how the supernets were trained, read from the config."""

from __future__ import annotations

import pandas as pd

from varient.config import NO_AUGMENTATION, ExperimentConfig
from varient.paper import paper_table
from varient.report.cells import Cell, Row, flatten
from varient.report.table2 import NO_COUNTERPART
from varient.results import Results


def table6(config: ExperimentConfig, results: Results) -> pd.DataFrame:
    """Table 6: settings of the supernets' training.  Hardware is left out: weight files do not have it."""
    training, zone = config.supernet.training, config.supernet.bridge
    origin = "finetune from the base trained here" if config.base.training else f"finetune from {config.base.weights}"
    ours = {
        "optimizer": f"AdamW, betas {training.betas[0]:g} and {training.betas[1]:g}",
        "learning_rate": f"{training.learning_rate:.0e} {training.schedule}".replace("e-0", "e-"),
        "weight_decay": f"{training.weight_decay:g}",
        "batch_size": str(training.batch_size),
        "warmup": f"{training.warmup_steps} steps" if training.warmup_steps else f"none ({origin})",
        "gradient_clipping": f"{training.clip_norm:g}",
        "mixed_precision": {"fp32": "none"}.get(training.precision, training.precision.upper()),
        "hardware": "",
        "augmentation": _augmentation(config),
        "bridge_zone": f"N={zone} (r1-r{zone} full depth, r{zone + 1}-r{len(config.patch_nums)} subnet depth)",
    }
    return flatten([{"configuration": printed["configuration"],
                     "value": Cell(text := ours[printed["configuration"]], paper=printed["value"],
                                   source=f"config of {config.name}" if text else "not recorded")}
                    for _, printed in paper_table(6).iterrows()])


def _augmentation(config: ExperimentConfig) -> str:
    settings = config.data.augmentation or NO_AUGMENTATION
    parts = [f"random crop after a resize to {config.data.resize:g} of the side"] if settings.random_crop else []
    parts += [f"random horizontal flip p={settings.flip:g}"] if settings.flip else []
    if operations := settings.randaugment:
        parts.append(f"RandAugment ({operations.num_ops} ops, magnitude {operations.magnitude})")
    parts += [f"Mixup alpha={settings.mixup:g}"] if settings.mixup else []
    return "; ".join(parts) or "none"


def table7(config: ExperimentConfig, results: Results) -> pd.DataFrame:
    """Table 7: epochs of the three phases for each depth, and how long an epoch is."""
    rows: list[Row] = []
    batches = config.supernet.training.batches_per_epoch
    for _, printed in paper_table(7).iterrows():
        depth = config.counterpart(int(printed["depth"]))
        phases = config.supernet.phases[depth] if depth else ()
        epochs = {f"phase{n}_epochs": value for n, value in enumerate(phases, start=1)} | {"total_epochs": sum(phases)}
        row: dict[str, str | Cell] = {"depth": Cell(str(depth or NO_COUNTERPART), paper=printed["depth"])}
        row |= {column: Cell(str(epochs[column]) if depth else "", paper=printed[column],
                             source=f"config of {config.name}" if depth else "")
                for column in printed.index.drop("depth")}
        rows.append(row | {"batches_per_epoch": Cell(str(batches or "all data"), source=f"config of {config.name}")
                           if depth else ""})
    return flatten(rows)
