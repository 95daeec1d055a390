"""Fine-tuning of the full network together with its subnets (Sec. 3.3): token training with a schedule."""

from __future__ import annotations

from pathlib import Path

from varient.config import ExperimentConfig
from varient.files import link_or_copy, sha256_kept
from varient.models.build import build_transformer
from varient.models.checkpoint import CheckpointError, check_weights, load_weights, read_description
from varient.training.course import supernet_course
from varient.training.distributed import check_start
from varient.training.recipes import Supernet
from varient.training.token_training import TokenTraining
from varient.training.tokens import TokenBatches


def train_supernet(config: ExperimentConfig, supernet: Supernet, tokenizer: Path, base: Path, output: Path,
                   cache: Path | None = None) -> None:
    """Fine-tune the full network together with its subnet of depth d in three phases, or as a recipe says.

    Raises:
        ValueError: the config has no phases for the depth or no such recipe, or hardware is missing or unsuitable.
        CheckpointError: the base checkpoint does not fit.
        ImageFolderError, TokenCacheError: images or cache do not match the config.
    """
    course, seed = supernet_course(config, supernet), config.seed + supernet.seed
    check_start(course.settings.batch_size, course.settings.precision, course.name)
    tokens = TokenBatches(config, tokenizer, course.settings.batch_size, seed, cache)
    model = build_transformer(config)
    load_weights(base, model)
    description = {"kind": "supernet", "subnet_depths": list(course.subnets), "recipe": supernet.recipe}
    TokenTraining(model, tokens, course).run(
        output, seed, description,
        [config.digest(*supernet.depends(config)), course.name, sha256_kept(tokenizer), sha256_kept(base)])


def copy_kept_weights(supernet: Path, epoch: int, output: Path) -> None:
    """Copy the weights that the training of a supernet kept after an epoch to ``output``.

    Raises:
        CheckpointError: there are no such weights, or they are damaged or belong to another training.
    """
    kept = supernet.parent / f"training-{supernet.stem}" / f"epoch-{epoch}.safetensors"
    if not kept.exists():
        raise CheckpointError(f"{kept}: these weights of the training of {supernet} are missing; delete "
                              f"{supernet} to train it again")
    if check_weights(kept).get("settings") != read_description(supernet).get("settings"):
        raise CheckpointError(f"{kept} is of another training than {supernet}; delete both to train again")
    link_or_copy(kept, output)
