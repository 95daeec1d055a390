"""The authors' weight files, mapped strictly onto our network.

The released DiT-XL-2-256x256.pt is a flat dict of tensors; what train.py of the authors writes nests several.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from varient.baselines.dit.network import DiT, build_network
from varient.baselines.dit.settings import Settings
from varient.config import ExperimentConfig
from varient.models.build import without_weights
from varient.models.checkpoint import CheckpointError, check_fit, load_strictly, save_weights
from varient.models.nested import AVERAGED, WEIGHTS, ExpectedWeights, StateDict, telling_look
from varient.models.official import describe_import, read_state_dict

POSITION_TOLERANCE = 1e-5
"""Largest difference of a file's sine-cosine table to ours; another order of coordinates differs by 1 and more."""

DIT_WEIGHTS = ExpectedWeights("a DiT", (*AVERAGED, *WEIGHTS), "DiT's authors sample from the averaged weights")

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
    model, weights = build_network(config, settings), settings.weights
    assert weights is not None  # settings without any have a training
    tensors = read_released(weights)
    load_released(model, tensors, str(weights))
    save_weights(output, model, {"kind": "dit", **describe_import(weights, tensors)})


def check_network(config: ExperimentConfig, settings: Settings) -> None:
    """See that the user's file holds the network of the settings, by names and shapes; no weights are read.

    Raises:
        CheckpointError: it does not.
    """
    model, weights = without_weights(lambda: build_network(config, settings)), settings.weights
    assert weights is not None  # settings without any have a training
    load_released(model, read_released(weights, verified=False), str(weights), values=False)


def read_released(path: Path, *, verified: bool = True) -> StateDict:
    """A flat state dict from a .pt file, read without running code in it.

    From a training checkpoint the averaged weights are used; a warning lists what is ignored.

    Args:
        verified: compare the file's checksums first.

    Raises:
        CheckpointError: no such file, a damaged one, or one with other content.
    """
    return read_state_dict(path, DIT_WEIGHTS, verified=verified)


def load_released(model: DiT, tensors: dict[str, Tensor], origin: str, *, values: bool = True) -> None:
    """Fill a network from the authors' layout.

    Args:
        values: as `load_strictly`.

    Raises:
        CheckpointError: keys or shapes that differ, or positions other than the fixed sine-cosine table.
    """
    own, layout = model.state_dict(), _layout(model)
    expected = {name: _stacked([own[part] for part in parts]) for name, parts in layout.items()}
    with telling_look(tensors):  # in the authors' names, which are those that the user can look up
        check_fit(tensors, expected | {"pos_embed": model.position_1LD}, origin,
                  "the DiT of the settings", values=values)
    if not values:
        return
    off = (tensors["pos_embed"] - model.position_1LD.cpu()).abs().max().item()
    if not off <= POSITION_TOLERANCE:
        raise CheckpointError(f"{origin}: pos_embed is not the sine-cosine table of the network (differs by {off:.2g})")
    ours: dict[str, Tensor] = {}
    for name, parts in layout.items():
        ours |= zip(parts, tensors[name].chunk(len(parts)), strict=True)
    load_strictly(model, ours, origin)


def _layout(model: DiT) -> dict[str, tuple[str, ...]]:
    """The authors' name -> ours; several of ours are stacked along the first dimension there."""
    modules: dict[str, tuple[str, ...]] = {theirs: (ours,) for theirs, ours in _OUTSIDE.items()}
    for i in range(len(model.network.transformer_blocks)):
        modules |= {f"blocks.{i}.{theirs}": tuple(f"network.transformer_blocks.{i}.{part}" for part in ours)
                    for theirs, ours in _IN_BLOCK.items()}
    layout = {f"{theirs}.{kind}": tuple(f"{part}.{kind}" for part in ours)
              for theirs, ours in modules.items() for kind in ("weight", "bias")}
    return layout | {"y_embedder.embedding_table.weight": ("embedder.class_embedder.embedding_table.weight",)}


def _stacked(parts: list[Tensor]) -> Tensor:
    """Shape and dtype of several tensors on top of each other; no values."""
    return torch.empty((sum(len(part) for part in parts), *parts[0].shape[1:]), dtype=parts[0].dtype, device="meta")
