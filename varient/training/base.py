"""Training of the full network from scratch: plain VAR."""

from __future__ import annotations

from pathlib import Path

import torch

from varient.config import ExperimentConfig
from varient.files import sha256_kept
from varient.models.build import build_transformer
from varient.models.transformer import initialize
from varient.systems.names import BaseId
from varient.training.course import base_course
from varient.training.distributed import check_start
from varient.training.token_training import TokenTraining
from varient.training.tokens import TokenBatches

_SECTIONS = ("data", "patch_nums", "tokenizer", "transformer", "base")


def train_base(config: ExperimentConfig, tokenizer: Path, output: Path, cache: Path | None = None,
               base: int = 0) -> None:
    """Train the full network, on images or on a cache of their tokens.

    Args:
        base: seed of this training, added to the experiment's seed.

    Raises:
        ValueError: the config imports the network, or the requested hardware is missing or unsuitable.
        ImageFolderError, TokenCacheError: images or cache do not match the config.
    """
    course, seed = base_course(config, BaseId(base)), config.seed + base
    check_start(course.settings.batch_size, course.settings.precision, course.name)
    tokens = TokenBatches(config, tokenizer, course.settings.batch_size, seed, cache)
    torch.manual_seed(seed)
    model = build_transformer(config)
    initialize(model)
    # The network of the experiment's own seed is known without its name, from before there were others.
    named = [course.name] if base else []
    TokenTraining(model, tokens, course).run(output, seed, {"kind": "base"},
                                             [config.digest(*_SECTIONS), *named, sha256_kept(tokenizer)])
