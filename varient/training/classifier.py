"""Training of the classifiers that score small images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from varient.config import ExperimentConfig
from varient.models.build import build_classifier
from varient.models.checkpoint import save_weights
from varient.training.data import batch_indices, halves_of, load_images
from varient.training.loop import fit


def roles(config: ExperimentConfig) -> dict[str, int]:
    """Role of each classifier of the experiment -> offset of its seed.

    `features` computes the features of FID, KID, precision and recall and the logits of IS.  `judge`, trained from
    another seed, measures class accuracy, independently of the other scores.  `half1`, `half2`, ... learn from one half
    of the training images each, and compute the features of FID against the other half (`varient.evaluation.crossed`).
    """
    return {role: offset for offset, role in enumerate(("features", "judge", *config.evaluation.half_roles))}


def train_classifier(config: ExperimentConfig, role: str, output: Path) -> None:
    """Train the classifier of a role on the training split, or its half, and write it with its accuracy on the holdout.

    Raises:
        ValueError: unknown role, or a protocol that needs no classifier.
    """
    known = roles(config)
    if role not in known:
        raise ValueError(f"classifier role {role!r} is unknown; known: {', '.join(known)}")
    settings, seed = config.evaluation.classifier_training, config.seed + known[role]
    train = load_images(config.data, "train")
    if role in config.evaluation.half_roles:
        train, _ = halves_of(train, 1 + config.evaluation.half_roles.index(role))
    torch.manual_seed(seed)
    classifier = build_classifier(config)

    def loss_of_step(step: int) -> Tensor:
        chosen = batch_indices(step, num_items=len(train), batch_size=settings.batch_size, seed=seed)
        return F.cross_entropy(classifier(train.images[chosen])[1], train.labels[chosen])

    identity = config.digest("data", "evaluation.classifier") + role

    def finish(losses: list[float]) -> None:
        holdout = load_images(config.data, "holdout")
        with torch.no_grad():
            verdicts = torch.cat([classifier(part)[1].argmax(1) for part in holdout.images.split(1000)])
        accuracy = (verdicts == holdout.labels).float().mean().item()
        save_weights(output, classifier, {"kind": "classifier", "role": role, "settings": identity,
                                          "holdout_accuracy": accuracy})

    fit(classifier, loss_of_step, steps=settings.epochs * (len(train) // settings.batch_size), settings=settings,
        seed=seed, work_dir=output.parent / f"training-{role}", identity=identity, title=f"classifier {role}",
        output=output, finish=finish)
