"""Networks with random weights, and a calibration of them."""

import torch

from varient.models.build import build_tokenizer, build_transformer
from varient.models.checkpoint import save_weights
from varient.models.transformer import initialize
from varient.systems.registry import networks_of


def write_calibrated(config, folder, calibration):
    """Write tokenizer and base of a run, and what `calibration` measures on them; returns the folder."""
    torch.manual_seed(0)
    model = build_transformer(config)
    initialize(model, gamma=1.0)
    save_weights(folder / "base.safetensors", model, {})
    save_weights(folder / "tokenizer.safetensors", build_tokenizer(config), {})
    networks_of(config)[calibration].make(folder, folder / f"{calibration}.safetensors")
    return folder
