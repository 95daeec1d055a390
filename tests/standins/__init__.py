"""Small stand-ins for every file that the paper's experiment asks of the user, in the formats of their authors.

    python tests/standins FOLDER

writes FOLDER/weights, FOLDER/data/imagenet and FOLDER/standins.yaml: the paper's config with smaller numbers, so that
its whole DAG runs on a CPU in minutes.  All values are random, from fixed seeds; nothing that comes of them means
anything, and their hashes are none that anybody published.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from standins.inception import write_inception, write_reference
from standins.networks import write_networks
from standins.pictures import write_imagenet
from standins.settings import CONFIG, settings_for


def write_standins(folder: Path) -> Path:
    """Write all files into a folder; return its config, whose paths are relative to the folder."""
    settings = settings_for(weights_sha256="0" * 64)
    weights = folder / "weights"
    weights.mkdir(parents=True, exist_ok=True)
    write_networks(folder, settings)
    write_imagenet(folder / settings["data"]["root"], settings["data"]["num_classes"])
    evaluation = settings["evaluation"]
    inception = folder / evaluation["inception_weights"]
    evaluation["weights_sha256"] = write_inception(inception)
    write_reference(folder / evaluation["reference"], inception, evaluation["weights_sha256"],
                    side=settings["data"]["image_size"], num_classes=settings["data"]["num_classes"])
    path = folder / CONFIG
    path.write_text(yaml.safe_dump(settings, sort_keys=False), "utf-8")
    return path
