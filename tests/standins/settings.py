"""The paper's config with smaller numbers.

It is made from workflow/config/imagenet256.yaml by replacing values, so that it has every section, file and kind of job
that the paper's has, whatever becomes of that.  A key that the paper's config lost stops the tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

CONFIG = "standins.yaml"
PAPER = Path(__file__).parents[2] / "workflow/config/imagenet256.yaml"

# What the paper's config leaves to defaults, and what a part of its lists and tables would not reach.
_ADDED = {("tokenizer", "model"), ("evaluation", "weights_sha256"), ("evaluation", "fid_infinity"),
          ("supernet", "training", "batches_per_epoch"), ("systems", "llamagen", "tokenizer", "model")}

SMALLER = {
    "data": {"num_classes": 3},
    "tokenizer": {"model": {"ch": 16, "norm_groups": 16}},
    "transformer": {"embed_dim": 32, "num_heads": 2},  # of the paper's 30 layers
    "supernet": {"depths": [16], "phases": {16: [1, 1, 1]},
                 "training": {"batch_size": 4, "precision": "fp32", "batches_per_epoch": 1},
                 "recipes": {"p100": {"ratio": 1.0, "validate_every": 1}, "skip": {"bridge": 0}}},
    "ablations": {"ratios": {"p100": 1}, "stages": ["p100"], "zones": [[1, 3]], "bridges": [6]},
    "sampling": {"num_images": 9, "shards": 2, "batch_size": 5, "precision": "fp32"},
    "evaluation": {"protocol": "adm-rehearsal", "fid_infinity": False},
    "profiling": {"batch_size": 1, "precision": "fp32", "warmup": 0, "repeats": 1},
    "systems": {"code": {"refiner": {"embed_dim": 32, "num_heads": 2}},
                "dit": {"model": {"depth": 2, "hidden_size": 32, "num_heads": 2}},
                "llamagen": {"image_size": 272,  # still resized, as the paper's 384
                             "transformer": {"model": {"depth": 2, "width": 32, "num_heads": 2}},
                             "tokenizer": {"model": {"codebook_size": 1024, "ch": 16, "norm_groups": 16,
                                                     "z_channels": 32}}}},
    "rows": ["dit-xl2", "llamagen-xxl", "code-n6", "free-code-n6"],
}
_WHOLE = {("supernet", "phases"), ("supernet", "recipes"), ("ablations", "ratios")}
"""Tables of which a part is kept."""


def settings_for(*, weights_sha256: str) -> dict[str, Any]:
    """The settings, for an Inception of the given hash."""
    changes = SMALLER | {"evaluation": SMALLER["evaluation"] | {"weights_sha256": weights_sha256}}
    return _replaced(yaml.safe_load(PAPER.read_text("utf-8")), changes, ())


def _replaced(settings: dict[str, Any], changes: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    found = dict(settings)
    for key, value in changes.items():
        here = (*place, key)
        if key not in settings and here not in _ADDED:
            raise KeyError(f"{'.'.join(here)}: {PAPER.name} has no such setting")
        nested = isinstance(value, dict) and here not in _WHOLE
        found[key] = _replaced(settings[key], value, here) if nested and key in settings else value
    return found
