"""Released LlamaGen files, mapped strictly onto our modules.

`c2i_B/L/XL_*.pt` and `vq_ds16_c2i.pt` hold their weights under 'model' (training checkpoints of other tools under
'module' or 'state_dict'), `c2i_XXL_384.pt` and `c2i_3B_384.pt`, written by FSDP, hold them flat.  A training with
averaged weights writes 'ema' beside 'model'; the authors' samplers read 'model' alone, so that is what is compared.
Source: huggingface.co FoundationVision/LlamaGen, code at ce98ec4 (autoregressive/sample/sample_c2i_ddp.py).
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from varient.baselines.llamagen.build import build_tokenizer, build_transformer
from varient.baselines.llamagen.settings import Settings
from varient.baselines.llamagen.tokenizer import Tokenizer
from varient.baselines.llamagen.transformer import Transformer
from varient.config import ExperimentConfig
from varient.models.build import without_weights
from varient.models.checkpoint import CheckpointError, load_strictly, save_weights
from varient.models.nested import AVERAGED, WEIGHTS, ExpectedWeights, StateDict, telling_look
from varient.models.official import describe_import, read_state_dict

_REASON = "LlamaGen's authors sample from 'model'"
TRANSFORMER_WEIGHTS = ExpectedWeights("a LlamaGen transformer", (*WEIGHTS, *AVERAGED), _REASON)
TOKENIZER_WEIGHTS = ExpectedWeights("a LlamaGen tokenizer", (*WEIGHTS, *AVERAGED), _REASON)

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


def read_released(path: Path, expected: ExpectedWeights = TRANSFORMER_WEIGHTS, *, verified: bool = True) -> StateDict:
    """The state dict in a released file, unwrapped, read without running any code in it.

    Args:
        verified: compare the file's checksums first.

    Raises:
        CheckpointError: no such file, a damaged one, or one without a state dict in it.
    """
    return read_state_dict(path, expected, verified=verified)


def load_transformer(model: Transformer, tensors: dict[str, Tensor], origin: str, *,
                     values: bool = True) -> list[str]:
    """Fill a transformer from the released layout; return the keys that were left out.

    Args:
        values: as `load_strictly`.

    Raises:
        CheckpointError: keys or shapes that differ.
    """
    left_out, weights = _split(tensors, _TRANSFORMER_BUFFER)
    with telling_look(tensors):
        load_strictly(model, weights, origin, values=values)
    return left_out


def load_tokenizer(model: Tokenizer, tensors: dict[str, Tensor], origin: str, *, values: bool = True) -> list[str]:
    """Fill a tokenizer from the released layout; return the keys that were left out.

    Args:
        values: as `load_strictly`.

    Raises:
        CheckpointError: keys or shapes that differ.
    """
    left_out, weights = _split(tensors, _TOKENIZER_BUFFER)
    renamed = {_tokenizer_name(name, len(model.decoder.up)): tensor for name, tensor in weights.items()}
    with telling_look(tensors):
        load_strictly(model, _fused(renamed, origin), origin, values=values)
    return left_out


def import_tokenizer(settings: Settings, output: Path) -> None:
    """Write the weights of the user's released tokenizer as the experiment's.

    Raises:
        CheckpointError: a file that is missing, damaged or another one.
    """
    source, model = settings.tokenizer.weights, build_tokenizer(settings)
    assert source is not None  # settings without any have a training
    tensors = read_released(source, TOKENIZER_WEIGHTS)
    left_out = load_tokenizer(model, tensors, str(source))
    save_weights(output, model, _description("llamagen-tokenizer", source, tensors, left_out))


def import_transformer(config: ExperimentConfig, settings: Settings, output: Path) -> None:
    """Write the weights of the user's released transformer as the experiment's.

    Raises:
        CheckpointError: a file that is missing, damaged or another one.
    """
    source, model = settings.transformer.weights, build_transformer(config, settings)
    assert source is not None  # settings without any have a training
    tensors = read_released(source)
    left_out = load_transformer(model, tensors, str(source))
    save_weights(output, model, _description("llamagen", source, tensors, left_out))


def check_tokenizer(settings: Settings) -> None:
    """See that the user's file holds the tokenizer of the settings, by names and shapes; no weights are read.

    Raises:
        CheckpointError: it does not.
    """
    source = settings.tokenizer.weights
    assert source is not None  # settings without any have a training
    tensors = read_released(source, TOKENIZER_WEIGHTS, verified=False)
    load_tokenizer(without_weights(lambda: build_tokenizer(settings)), tensors, str(source), values=False)


def check_transformer(config: ExperimentConfig, settings: Settings) -> None:
    """See that the user's file holds the transformer of the settings, by names and shapes; no weights are read.

    Raises:
        CheckpointError: it does not.
    """
    source = settings.transformer.weights
    assert source is not None  # settings without any have a training
    tensors = read_released(source, verified=False)
    load_transformer(without_weights(lambda: build_transformer(config, settings)), tensors, str(source), values=False)


def _description(kind: str, source: Path, tensors: StateDict, buffers: list[str]) -> dict:
    return {"kind": kind, **describe_import(source, tensors), "left_out": [*tensors.left_out, *buffers]}


def _tokenizer_name(name: str, levels: int) -> str:
    """Our name of a released parameter; a name that no rule knows stays, for the error message."""
    if match := _DECODER_STAGE.match(name):  # they count stages from the latent, we from the image
        part = "block" if match[2] == "res" else match[2]
        return f"decoder.up.{levels - 1 - int(match[1])}.{part}.{name[match.end():]}"
    for released, ours in _TOKENIZER_NAMES:
        name = re.sub(f"^{released}", ours, name)
    return name


def _fused(tensors: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    """Separate projections of queries, keys and values of an attention joined into the one that we have.

    Raises:
        CheckpointError: projections of different shapes or dtypes.
    """
    fused = dict(tensors)
    for name in tensors:
        parts = [re.sub(r"\.q\.(weight|bias)$", rf".{part}.\1", name) for part in "qkv"]
        if parts[0] != parts[1] and all(part in tensors for part in parts):
            if len({(tensors[part].shape, tensors[part].dtype) for part in parts}) > 1:
                raise CheckpointError(f"{origin}: {', '.join(parts)} are of different shapes or dtypes")
            fused[re.sub(r"\.q\.(\w+)$", r".qkv.\1", name)] = torch.cat([fused.pop(part) for part in parts])
    return fused


def _split(tensors: dict[str, Tensor], pattern: re.Pattern) -> tuple[list[str], dict[str, Tensor]]:
    matching = sorted(name for name in tensors if pattern.fullmatch(name))
    return matching, {name: tensor for name, tensor in tensors.items() if name not in matching}

