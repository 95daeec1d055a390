"""Strict loading of the released VAR checkpoints.

They are flat state dicts with the parameter names used here, plus buffers that follow from the architecture.  The
buffers are not loaded; those that would reveal a different architecture are checked.  Sources: huggingface.co
FoundationVision/var, code at VAR 78b9539.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from varient.config import ExperimentConfig, TransformerSpec
from varient.files import sha256_of
from varient.models.build import build_tokenizer, build_transformer, without_weights
from varient.models.checkpoint import CheckpointError, load_strictly
from varient.models.nested import AVERAGED, WEIGHTS, ExpectedWeights, StateDict, telling_look, unwrap
from varient.models.torch_file import read_torch_file
from varient.models.transformer import VAR
from varient.models.vqvae import VQVAE
from varient.paper.released import PUBLISHED_SHA256

_VAR_BUFFER = re.compile(r"lvl_1L|attn_bias_for_masking|blocks\.\d+\.attn\.zero_k_bias")
_VQVAE_BUFFER = re.compile(r"quantize\.ema_vocab_hit_SV")

_REASON = "VAR's authors sample from the weights as trained"
VAR_WEIGHTS = ExpectedWeights("a VAR transformer", ("trainer", "var_wo_ddp", "var", *WEIGHTS, *AVERAGED), _REASON)
VQVAE_WEIGHTS = ExpectedWeights("a VAR VQVAE", ("trainer", "vae_local", "vae_wo_ddp", "vae", "vqvae", *WEIGHTS,
                                                "vae_ema", *AVERAGED), _REASON)

log = logging.getLogger(__name__)


def read_state_dict(path: Path, expected: ExpectedWeights = VAR_WEIGHTS, *, verified: bool = True) -> StateDict:
    """Read the expected weights from a torch file, flat or nested in a training checkpoint, without running code in it.

    The tensors are memory-mapped.

    Args:
        verified: verify the file's checksums first.

    Raises:
        CheckpointError: the file is missing, damaged or has no such weights.
    """
    return unwrap(read_torch_file(path, mapped=True, verified=verified), expected, str(path))


def describe_import(path: Path, tensors: StateDict) -> dict[str, Any]:
    """Provenance of imported weights, for the description of the weight file.

    ``released`` is "known" for a file with a published hash.  A warning is logged for a file that has the name of a
    published one and another hash.
    """
    digest = sha256_of(path)
    expected = PUBLISHED_SHA256.get(path.name, digest)
    if digest != expected:
        log.warning("%s has the SHA-256 %s, but the published file of that name %s: another file, or a damaged one",
                    path, digest, expected)
    return {"imported_sha256": digest, "released": "known" if digest in PUBLISHED_SHA256.values() else "unknown",
            "taken": tensors.taken, "left_out": list(tensors.left_out)}


def load_var(model: VAR, tensors: dict[str, Tensor], origin: str, *, values: bool = True) -> None:
    """Load weights in the released layout into a transformer.

    Args:
        values: as in `load_strictly`.

    Raises:
        CheckpointError: keys or shapes differ, or the file is for other scales.
    """
    buffers, weights = _split(tensors, _VAR_BUFFER)
    levels_1L = buffers.get("lvl_1L")
    expected_L = torch.tensor([k - 1 for k in model.pyramid.scales for _ in range(model.pyramid.tokens(k))])
    if levels_1L is not None and not torch.equal(levels_1L.flatten(), expected_L):
        raise CheckpointError(f"{origin}: its lvl_1L is for other scales than {list(model.pyramid.patch_nums)}")
    for name, buffer in buffers.items():
        if name.endswith("zero_k_bias") and buffer.any():
            raise CheckpointError(f"{origin}: {name} is not zero; released VAR keys have no bias")
    with telling_look(tensors):
        load_strictly(model, weights, origin, values=values)


def load_vqvae(model: VQVAE, tensors: dict[str, Tensor], origin: str, *, values: bool = True) -> None:
    """Load weights in the released layout into a tokenizer, without the code-usage counter.

    Args:
        values: as in `load_strictly`.

    Raises:
        CheckpointError: keys or shapes differ.
    """
    _, weights = _split(tensors, _VQVAE_BUFFER)
    with telling_look(tensors):
        load_strictly(model, weights, origin, values=values)


def check_tokenizer(config: ExperimentConfig, source: Path) -> None:
    """Check by names and shapes that a file contains the experiment's tokenizer; no weights are read.

    Raises:
        CheckpointError: it does not.
    """
    tensors = read_state_dict(source, VQVAE_WEIGHTS, verified=False)
    load_vqvae(without_weights(lambda: build_tokenizer(config)), tensors, str(source), values=False)


def check_transformer(config: ExperimentConfig, source: Path, spec: TransformerSpec | None = None) -> None:
    """Check by names and shapes that a file contains a transformer of this shape (default: the experiment's base).

    Raises:
        CheckpointError: it does not.
    """
    tensors = read_state_dict(source, verified=False)
    load_var(without_weights(lambda: build_transformer(config, spec)), tensors, str(source), values=False)


def import_tokenizer(config: ExperimentConfig, source: Path) -> tuple[VQVAE, dict]:
    """The experiment's tokenizer from a released file, and a description of where it came from."""
    model, tensors = build_tokenizer(config), read_state_dict(source, VQVAE_WEIGHTS)
    load_vqvae(model, tensors, str(source))
    return model, {"kind": "tokenizer", **describe_import(source, tensors)}


def import_transformer(config: ExperimentConfig, source: Path) -> tuple[VAR, dict]:
    """The experiment's transformer from a released file, and a description of where it came from."""
    model, tensors = build_transformer(config), read_state_dict(source)
    load_var(model, tensors, str(source))
    return model, {"kind": "base", **describe_import(source, tensors)}


def _split(tensors: dict[str, Tensor], pattern: re.Pattern) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    matching = {name: tensor for name, tensor in tensors.items() if pattern.fullmatch(name)}
    return matching, {name: tensor for name, tensor in tensors.items() if name not in matching}

