"""Training of the classifiers that score small images."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from varient.config import ExperimentConfig
from varient.models.build import build_classifier
from varient.models.checkpoint import save_weights
from varient.training.data import batch_indices, load_images
from varient.training.loop import fit

ROLES = {"features": 0, "judge": 1}
"""Role of each classifier -> offset of its seed.

`features` computes the features of FID, KID, precision and recall and the logits of IS.  `judge`, trained from another
seed, measures class accuracy, independently of the other scores.
"""


def train_classifier(config: ExperimentConfig, role: str, output: Path) -> None:
    """Train the classifier of a role on the training split and write it, with its accuracy on the other split.

    Raises:
        ValueError: unknown role, or a protocol that needs no classifier.
    """
    if role not in ROLES:
        raise ValueError(f"classifier role {role!r} is unknown; known: {', '.join(ROLES)}")
    settings, seed = config.evaluation.classifier_training, config.seed + ROLES[role]
    train = load_images(config.data, "train")
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
