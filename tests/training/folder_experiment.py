"""The smoke experiment on a small folder of ImageNet's layout, with random networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml
from conftest import ROOT
from PIL import Image

from varient.config import parse_config
from varient.models.build import build_transformer
from varient.models.checkpoint import load_weights, save_weights
from varient.systems.registry import resolve_system
from varient.training.image_folder import ImageFolder
from varient.training.recipes import Supernet
from varient.training.supernet import train_supernet

NUM_CLASSES, PER_CLASS, BATCH = 3, 9, 8
FLIP = {"random_crop": False, "randaugment": None, "mixup": 0}
PAPER = {}


def write_images(folder: Path, per_class: int, seed: int) -> None:
    """Images of several sizes, no two alike, in class folders."""
    generator = np.random.default_rng(seed)
    for name in ("n01", "n02", "n03"):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            height, width = generator.integers(12, 24, 2)
            pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


def write_folder(root: Path) -> Path:
    """Train and val of `NUM_CLASSES` classes."""
    write_images(root / "train", PER_CLASS, seed=0)
    write_images(root / "val", 4, seed=1)
    return root


def experiment(root: Path, augmentation: dict | None = None, **data: object):
    """The smoke experiment on a folder of images."""
    settings = yaml.safe_load((ROOT / "workflow/config/smoke.yaml").read_text())
    settings["data"] = {"source": "imagenet", "image_size": 8, "num_classes": NUM_CLASSES, "root": str(root),
                        "augmentation": augmentation} | data
    settings["base"]["training"] |= {"epochs": 3, "batch_size": BATCH}
    settings["supernet"]["training"] |= {"batch_size": BATCH, "batches_per_epoch": 3}
    settings["sampling"]["num_images"] = 99
    settings["transformer"]["cond_drop_rate"] = 0.3
    for section in ("systems", "rows", "ablations"):
        del settings[section]
    return parse_config(settings, "test")


def write_networks(root: Path) -> tuple[Path, Path]:
    torch.manual_seed(0)
    pipeline = resolve_system("var-d6", experiment(root)).load(None, "fp32")
    files = root.parent / "run/tokenizer.safetensors", root.parent / "run/base.safetensors"
    save_weights(files[0], pipeline.tokenizer, {})
    save_weights(files[1], pipeline.model, {})
    return files


def weights_of(config, path):
    model = build_transformer(config)
    description = load_weights(path, model)
    return model.state_dict(), description


def same_weights(ours, theirs):
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def trained_supernet(config, files, output, recipe=None, cache=None):
    train_supernet(config, Supernet(2, recipe), *files, output, cache)
    return weights_of(config, output)[0]


def images_read(monkeypatch):
    """The images that are read from now on."""
    found, load = [], ImageFolder.load

    def noted(self, index):
        found.append(index)
        return load(self, index)

    monkeypatch.setattr(ImageFolder, "load", noted)
    return found
