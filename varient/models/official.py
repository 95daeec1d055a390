"""Released checkpoint layouts, mapped strictly onto our modules.

The released VAR files are flat state dicts whose parameter names are ours, plus buffers that follow from the
architecture; those are left out, and checked where they could tell of another one.  Sources: huggingface.co
FoundationVision/var, code at VAR 78b9539.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from varient.config import ExperimentConfig
from varient.files import sha256_of
from varient.models.build import build_tokenizer, build_transformer
from varient.models.checkpoint import CheckpointError, load_strictly
from varient.models.transformer import VAR
from varient.models.vqvae import VQVAE

NUM_PARAMETERS = {"var_d16": 310_283_520, "var_d20": 600_917_136, "var_d24": 1_033_399_360, "var_d30": 2_010_020_356,
                  "vae_ch160v4096z32": 108_948_355}
"""Parameters of the released files, buffers left out."""

_VAR_BUFFER = re.compile(r"lvl_1L|attn_bias_for_masking|blocks\.\d+\.attn\.zero_k_bias")
_VQVAE_BUFFER = re.compile(r"quantize\.ema_vocab_hit_SV")

_LOOKS = (
    ("a VAR training checkpoint (its 'trainer' holds the networks)", lambda keys: "trainer" in keys),
    ("a DiT training checkpoint (its weights are under 'ema')", lambda keys: {"model", "ema"} <= keys),
    ("a LlamaGen checkpoint (its weights are under 'model')", lambda keys: "model" in keys and "ema" not in keys),
    ("a LlamaGen transformer", lambda keys: "cls_embedding.embedding_table.weight" in keys),
    ("a DiT", lambda keys: "y_embedder.embedding_table.weight" in keys),
    ("a VAR transformer", lambda keys: {"pos_start", "pos_1LC", "word_embed.weight"} <= keys),
    ("a LlamaGen tokenizer", lambda keys: "encoder.conv_blocks.0.res.0.conv1.weight" in keys),
    ("a VAR VQVAE", lambda keys: "quantize.embedding.weight" in keys and "quant_conv.weight" in keys),
)


def looks_like(keys: set[str]) -> str:
    """What kind of file has these top-level keys, in words."""
    return next((name for name, test in _LOOKS if test(keys)), "an unknown layout")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A flat state dict from a .pth file, read without running any code in it.

    Raises:
        CheckpointError: no such file, a damaged one, or one that is not a flat dict of tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__  # an empty file gives an EOFError without text
        raise CheckpointError(f"{path}: not a readable torch checkpoint, or one that holds more than tensors "
                              f"({reason})") from None
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        kind = looks_like(set(content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path}: expected a flat dict of tensors, found {kind}")
    return content


def load_var(model: VAR, tensors: dict[str, Tensor], origin: str) -> None:
    """Fill a transformer from the released layout.

    Raises:
        CheckpointError: keys or shapes that differ, or a file made for other scales.
    """
    buffers, weights = _split(tensors, _VAR_BUFFER)
    levels_1L = buffers.get("lvl_1L")
    expected_L = model.scale_of_token() - 1
    if levels_1L is not None and not torch.equal(levels_1L.flatten(), expected_L):
        raise CheckpointError(f"{origin}: its lvl_1L is for other scales than {list(model.pyramid.patch_nums)}")
    for name, buffer in buffers.items():
        if name.endswith("zero_k_bias") and buffer.any():
            raise CheckpointError(f"{origin}: {name} is not zero; released VAR keys have no bias")
    _load(model, weights, origin)


def load_vqvae(model: VQVAE, tensors: dict[str, Tensor], origin: str) -> None:
    """Fill a tokenizer from the released layout; the code-usage counter is left out.

    Raises:
        CheckpointError: keys or shapes that differ.
    """
    _, weights = _split(tensors, _VQVAE_BUFFER)
    _load(model, weights, origin)


def import_tokenizer(config: ExperimentConfig, source: Path) -> tuple[VQVAE, dict]:
    """The experiment's tokenizer from a released file, and a description of where it came from."""
    model = build_tokenizer(config)
    load_vqvae(model, read_state_dict(source), str(source))
    return model, {"kind": "tokenizer", "imported_sha256": sha256_of(source)}


def import_transformer(config: ExperimentConfig, source: Path) -> tuple[VAR, dict]:
    """The experiment's transformer from a released file, and a description of where it came from."""
    model = build_transformer(config)
    load_var(model, read_state_dict(source), str(source))
    return model, {"kind": "base", "imported_sha256": sha256_of(source)}


def _split(tensors: dict[str, Tensor], pattern: re.Pattern) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    matching = {name: tensor for name, tensor in tensors.items() if pattern.fullmatch(name)}
    return matching, {name: tensor for name, tensor in tensors.items() if name not in matching}


def _load(model: nn.Module, tensors: dict[str, Tensor], origin: str) -> None:
    try:
        load_strictly(model, tensors, origin)
    except CheckpointError as error:
        raise CheckpointError(f"{error} (the file looks like {looks_like(set(tensors))})") from None
