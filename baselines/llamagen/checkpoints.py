"""Released LlamaGen files, mapped strictly onto our modules.

`c2i_B/L/XL_*.pt` and `vq_ds16_c2i.pt` hold their weights under 'model' (training checkpoints of other tools under
'module' or 'state_dict'), `c2i_XXL_384.pt` and `c2i_3B_384.pt`, written by FSDP, hold them flat.  Source:
huggingface.co FoundationVision/LlamaGen, code at ce98ec4.
"""

from __future__ import annotations

import argparse
import pickle
import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.serialization import safe_globals
from varient.baselines.llamagen.build import build_tokenizer, build_transformer
from varient.baselines.llamagen.settings import Settings
from varient.baselines.llamagen.tokenizer import Tokenizer
from varient.baselines.llamagen.transformer import Transformer

from varient.config import ExperimentConfig
from varient.files import sha256_of
from varient.models.checkpoint import CheckpointError, load_strictly, save_weights
from varient.models.official import looks_like

NUM_PARAMETERS = {"c2i_XXL_384": 1_410_972_672, "vq_ds16_c2i": 71_883_403}
"""Parameters of the released files, buffers left out."""

_WRAPPERS = ("model", "module", "state_dict")

# What a saved transformer may hold besides weights: tables and storage that follow from its shape.
_TRANSFORMER_BUFFER = re.compile(r"freqs_cis|causal_mask|layers\.\d+\.attention\.kv_cache\.[kv]_cache")
# The last 65536 codes that training used.
_TOKENIZER_BUFFER = re.compile(r"quantize\.codebook_used")

_TOKENIZER_NAMES = (
    (r"encoder\.conv_blocks\.(\d+)\.res\.", r"encoder.down.\1.block."),
    (r"encoder\.conv_blocks\.(\d+)\.(attn|downsample)\.", r"encoder.down.\1.\2."),
    (r"(en|de)coder\.mid\.0\.", r"\1coder.mid.block_1."),
    (r"(en|de)coder\.mid\.1\.", r"\1coder.mid.attn_1."),
    (r"(en|de)coder\.mid\.2\.", r"\1coder.mid.block_2."),
)
_DECODER_STAGE = re.compile(r"decoder\.conv_blocks\.(\d+)\.(res|attn|upsample)\.")


def read_released(path: Path) -> dict[str, Tensor]:
    """The state dict in a released file, unwrapped, read without running any code in it.

    Raises:
        CheckpointError: no such file, a damaged one, or one without a state dict in it.
    """
    try:
        # Training checkpoints carry their command line, an argparse.Namespace, which is plain data.
        with safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: not a readable torch checkpoint, or one that holds more than tensors "
                              f"({reason})") from None
    if isinstance(content, dict):
        content = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        kind = _kind(set(content)) if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path}: expected a state dict, flat or under {', '.join(_WRAPPERS)}; found {kind}")
    return content


def load_transformer(model: Transformer, tensors: dict[str, Tensor], origin: str) -> list[str]:
    """Fill a transformer from the released layout; return the keys that were left out.

    Raises:
        CheckpointError: keys or shapes that differ.
    """
    left_out, weights = _split(tensors, _TRANSFORMER_BUFFER)
    _load(model, weights, tensors, origin)
    return left_out


def load_tokenizer(model: Tokenizer, tensors: dict[str, Tensor], origin: str) -> list[str]:
    """Fill a tokenizer from the released layout; return the keys that were left out.

    Raises:
        CheckpointError: keys or shapes that differ.
    """
    left_out, weights = _split(tensors, _TOKENIZER_BUFFER)
    _load(model, _fused({_tokenizer_name(name, len(model.decoder.up)): tensor for name, tensor in weights.items()}),
          tensors, origin)
    return left_out


def import_tokenizer(settings: Settings, output: Path) -> None:
    """Write the weights of the user's released tokenizer as the experiment's.

    Raises:
        CheckpointError: a file that is missing, damaged or another one.
    """
    source, model = settings.tokenizer.weights, build_tokenizer(settings)
    left_out = load_tokenizer(model, read_released(source), str(source))
    save_weights(output, model, _description("llamagen-tokenizer", source, left_out))


def import_transformer(config: ExperimentConfig, settings: Settings, output: Path) -> None:
    """Write the weights of the user's released transformer as the experiment's.

    Raises:
        CheckpointError: a file that is missing, damaged or another one.
    """
    source, model = settings.transformer.weights, build_transformer(config, settings)
    left_out = load_transformer(model, read_released(source), str(source))
    save_weights(output, model, _description("llamagen", source, left_out))


def _description(kind: str, source: Path, left_out: list[str]) -> dict:
    return {"kind": kind, "imported_sha256": sha256_of(source), "left_out": left_out}


def _tokenizer_name(name: str, levels: int) -> str:
    """Our name of a released parameter; a name that no rule knows stays, for the error message."""
    if match := _DECODER_STAGE.match(name):  # they count stages from the latent, we from the image
        part = "block" if match[2] == "res" else match[2]
        return f"decoder.up.{levels - 1 - int(match[1])}.{part}.{name[match.end():]}"
    for released, ours in _TOKENIZER_NAMES:
        name = re.sub(f"^{released}", ours, name)
    return name


def _fused(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Separate projections of queries, keys and values of an attention joined into the one that we have."""
    fused = dict(tensors)
    for name in tensors:
        parts = [re.sub(r"\.q\.(weight|bias)$", rf".{part}.\1", name) for part in "qkv"]
        if parts[0] != parts[1] and all(part in tensors for part in parts):
            fused[re.sub(r"\.q\.(\w+)$", r".qkv.\1", name)] = torch.cat([fused.pop(part) for part in parts])
    return fused


def _split(tensors: dict[str, Tensor], pattern: re.Pattern) -> tuple[list[str], dict[str, Tensor]]:
    matching = sorted(name for name in tensors if pattern.fullmatch(name))
    return matching, {name: tensor for name, tensor in tensors.items() if name not in matching}


def _load(model: nn.Module, weights: dict[str, Tensor], released: dict[str, Tensor], origin: str) -> None:
    try:
        load_strictly(model, weights, origin)
    except CheckpointError as error:
        raise CheckpointError(f"{error} (the file looks like {_kind(set(released))})") from None


def _kind(keys: set[str]) -> str:
    if "encoder.conv_blocks.0.res.0.conv1.weight" in keys:
        return "a LlamaGen tokenizer"
    return looks_like(keys)
