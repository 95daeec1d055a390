"""Training of a small DiT on pixels, from scratch: the hybrid loss at random times, averaged weights as the result."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from varient.baselines.dit.diffusion import TRAIN_STEPS, Diffusion
from varient.baselines.dit.network import DiT, build_network, initialize
from varient.baselines.dit.settings import Settings
from varient.config import ExperimentConfig
from varient.models.checkpoint import save_weights
from varient.models.vqvae import from_uint8
from varient.training.data import batch_indices, load_images
from varient.training.loop import fit
from varient.training.tokens import drop_labels


class Averaged(nn.Module):
    """A network and the running average of its weights, one state for the training loop to save and restore."""

    def __init__(self, network: DiT, decay: float) -> None:
        super().__init__()
        self.network = network
        self.average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay)).requires_grad_(False)

    def update(self) -> None:
        """Take in the network's present weights; the first call copies them."""
        self.average.update_parameters(self.network)


def train(config: ExperimentConfig, settings: Settings, output: Path) -> None:
    """Train the experiment's DiT and write its averaged weights."""
    training, num_classes = settings.training, config.data.num_classes
    assert training is not None  # settings without one name weights, and `import_network` reads them
    data = load_images(config.data, "train")
    x0_N3SS = from_uint8(data.images)
    torch.manual_seed(config.seed)
    network = build_network(config, settings)
    initialize(network)
    model, diffusion = Averaged(network, training.ema_decay), Diffusion()

    def loss_of_step(step: int) -> Tensor:
        chosen = batch_indices(step, num_items=len(data), batch_size=training.batch_size, seed=config.seed)
        x0_BCHW, label_B = x0_N3SS[chosen], drop_labels(data.labels[chosen], training.label_drop, num_classes)
        time_B, noise_BCHW = torch.randint(TRAIN_STEPS, label_B.shape), torch.randn_like(x0_BCHW)
        prediction = network(diffusion.noised(x0_BCHW, time_B, noise_BCHW), time_B, label_B)
        squared_B, bound_B = diffusion.losses(prediction, x0_BCHW, time_B, noise_BCHW)
        return (squared_B + bound_B).mean()

    def before_step(step: int) -> None:
        if step > 0:
            model.update()

    identity = ":".join([config.digest("data"), settings.model_dump_json(include={"model", "space", "training"})])

    def finish(losses: list[float]) -> None:
        model.update()
        save_weights(output, model.average.module, {"kind": "dit", "settings": identity, "final_loss": losses[-1]})

    fit(model, loss_of_step, steps=training.epochs * (len(data) // training.batch_size), settings=training,
        seed=config.seed, work_dir=output.parent / "training-dit", identity=identity, title="dit",
        before_step=before_step, output=output, finish=finish)
