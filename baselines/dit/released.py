"""The authors' weight files, mapped strictly onto our network.

The released DiT-XL-2-256x256.pt is a flat dict of tensors; what train.py of the authors writes nests several.
"""

from __future__ import annotations

import argparse
import logging
import pickle
from pathlib import Path

import torch
from torch import Tensor
from varient.baselines.dit.network import DiT, build_network
from varient.baselines.dit.settings import Settings

from varient.config import ExperimentConfig
from varient.files import sha256_of
from varient.models.checkpoint import CheckpointError, load_strictly, save_weights
from varient.models.official import looks_like

POSITION_TOLERANCE = 1e-5
"""Largest difference of a file's sine-cosine table to ours; another order of coordinates differs by 1 and more."""

_log = logging.getLogger(__name__)

_OUTSIDE = {
    "x_embedder.proj": "network.pos_embed.proj",
    "t_embedder.mlp.0": "embedder.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "embedder.timestep_embedder.linear_2",
    "final_layer.adaLN_modulation.1": "network.proj_out_1",
    "final_layer.linear": "network.proj_out_2",
}
_IN_BLOCK = {
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn.proj": ("attn1.to_out.0",),
    "mlp.fc1": ("ff.net.0.proj",),
    "mlp.fc2": ("ff.net.2",),
    "adaLN_modulation.1": ("norm1.linear",),
}


def import_network(config: ExperimentConfig, settings: Settings, output: Path) -> None:
    """Write the experiment's network from the user's released file.

    Raises:
        CheckpointError: a file that is missing, damaged or of another network.
    """
    model = build_network(config, settings)
    load_released(model, read_released(settings.weights), str(settings.weights))
    save_weights(output, model, {"kind": "dit", "imported_sha256": sha256_of(settings.weights)})


def read_released(path: Path) -> dict[str, Tensor]:
    """A flat state dict from a .pt file, read without running code in it.

    Of a training checkpoint the averaged weights are taken; a log line says what stayed behind.

    Raises:
        CheckpointError: no such file, a damaged one, or one with other content.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # the training's arguments: names and values
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable torch checkpoint, or one that holds more than tensors "
                              f"({str(error).partition(chr(10))[0]})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a dict of tensors, found {type(content).__name__}")
    if isinstance(content.get("ema"), dict):
        left_out = ", ".join(sorted(set(content) - {"ema"}))
        _log.warning("%s is a training checkpoint: its 'ema' is used, left out: %s", path, left_out)
        content = content["ema"]
    if not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path}: expected a flat dict of tensors, found {looks_like(set(content))}")
    return content


def load_released(model: DiT, tensors: dict[str, Tensor], origin: str) -> None:
    """Fill a network from the authors' layout.

    Raises:
        CheckpointError: keys or shapes that differ, or positions other than the fixed sine-cosine table.
    """
    own, layout = model.state_dict(), _layout(model)
    shapes = {name: _stacked_shape([own[part] for part in parts]) for name, parts in layout.items()}
    shapes["pos_embed"] = tuple(model.position_1LD.shape)
    _check(tensors, shapes, origin)
    off = (tensors["pos_embed"] - model.position_1LD.cpu()).abs().max().item()
    if not off <= POSITION_TOLERANCE:
        raise CheckpointError(f"{origin}: pos_embed is not the sine-cosine table of the network (differs by {off:.2g})")
    ours = {}
    for name, parts in layout.items():
        ours |= zip(parts, tensors[name].chunk(len(parts)), strict=True)
    load_strictly(model, ours, origin)


def _layout(model: DiT) -> dict[str, tuple[str, ...]]:
    """The authors' name -> ours; several of ours are stacked along the first dimension there."""
    modules = {theirs: (ours,) for theirs, ours in _OUTSIDE.items()}
    for i in range(len(model.network.transformer_blocks)):
        modules |= {f"blocks.{i}.{theirs}": tuple(f"network.transformer_blocks.{i}.{part}" for part in ours)
                    for theirs, ours in _IN_BLOCK.items()}
    layout = {f"{theirs}.{kind}": tuple(f"{part}.{kind}" for part in ours)
              for theirs, ours in modules.items() for kind in ("weight", "bias")}
    return layout | {"y_embedder.embedding_table.weight": ("embedder.class_embedder.embedding_table.weight",)}


def _stacked_shape(parts: list[Tensor]) -> tuple[int, ...]:
    return (sum(len(part) for part in parts), *parts[0].shape[1:])


def _check(tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]], origin: str) -> None:
    """As `load_strictly`, but in the authors' names, which are those that the user can look up."""
    wrong = {
        "missing": [name for name in shapes if name not in tensors],
        "unexpected": [name for name in tensors if name not in shapes],
        "of another shape": [f"{name} {tuple(tensors[name].shape)}, expected {shape}"
                             for name, shape in shapes.items() if name in tensors and tensors[name].shape != shape],
    }
    problems = [f"{len(names)} {kind}: {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
                for kind, names in wrong.items() if names]
    if problems:
        raise CheckpointError(f"{origin} does not fit the DiT of the settings: {'; '.join(problems)} "
                              f"(the file looks like {looks_like(set(tensors))})")
