"""How much the keys of each layer change from scale to scale, and which layers see wider windows for it.

AMS-KV gives a layer a larger cache where its keys are unlike the enlarged keys of the scale before.  It decides so
while images are generated, by a threshold; here half of the layers see the wide window, those whose keys change most on
images that the base network generates from the experiment's seed.  So an image is a function of its seed, and the size
of the cache is known beforehand.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varient.config import ExperimentConfig
from varient.files import sha256_kept
from varient.models.build import load_tokenizer, load_transformer
from varient.models.checkpoint import CheckpointError, load_weights, save_weights
from varient.models.kv_cache import LeanCache
from varient.models.quantizer import MultiScaleQuantizer
from varient.models.transformer import VAR
from varient.plan import DepthPlan
from varient.pyramid import Pyramid
from varient.sampling import Guidance, SampledReadout, generate, image_uniforms
from varient.systems.names import BaseId
from varient.systems.pipeline import ready

IMAGES = 50
"""Images of the calibration."""
_BASE = str(BaseId())


class _KeyChange(nn.Module):
    """The content of the file: the change of each layer, float32 (D,)."""

    change_D: Tensor

    def __init__(self, change_D: Tensor) -> None:
        super().__init__()
        self.register_buffer("change_D", change_D)


def measure_key_change(config: ExperimentConfig, run_dir: Path, output: Path) -> None:
    """Calibrate the base network of a run in float32, on the device of this process, and write the result.

    Raises:
        CheckpointError: weights that are missing or do not fit.
        OutputError: a file that could not be written.
    """
    sampling, weights = config.sampling, run_dir / f"{_BASE}.safetensors"
    quantizer = ready(load_tokenizer(config, run_dir / "tokenizer.safetensors")).quantize
    model = ready(load_transformer(config, weights))
    guidance, plan = Guidance(sampling.cfg, sampling.top_k, sampling.top_p), _all_layers(model)
    changes = []
    for indices in torch.arange(IMAGES).split(sampling.batch_size):
        label_B = indices % config.data.num_classes
        readout = SampledReadout(quantizer, image_uniforms(config.seed, indices.tolist(), model.pyramid.length))
        idx_BL = generate(model, quantizer, label_B, plan, guidance, readout).idx_BL
        changes.append(key_change(model, quantizer, label_B, idx_BL))
    save_weights(output, _KeyChange(torch.cat(changes).mean(dim=0).cpu()),
                 {"network": _BASE, "weights_sha256": sha256_kept(weights), "images": IMAGES, "seed": config.seed})


@torch.no_grad()
def key_change(model: VAR, quantizer: MultiScaleQuantizer, label_B: Tensor, idx_BL: Tensor) -> Tensor:
    """Distance of a layer's keys from the enlarged keys of the scale before: (B, D), float32.

    It is the L2 distance in a head, mean over heads and tokens, then over the scales 2..K.

    Args:
        label_B: classes, int64.
        idx_BL: tokens of the images.
    """
    plan, pyramid, layers = _all_layers(model), model.pyramid, range(model.spec.depth)
    watch, class_BC = _KeyWatch(plan, pyramid), model.condition(label_B.to(model.pos_1LC.device))
    modulation, constants = model.modulation(class_BC, layers), model.attention_constants(layers)
    x_BLv, first = quantizer.teacher_input(idx_BL), pyramid.tokens(1)
    for k in pyramid.scales:
        x_BlC = model.embed_start(class_BC) if k == 1 else model.embed_scale(
            k, x_BLv[:, pyramid.begin(k) - first:pyramid.end(k) - first])
        model.scale_step(k, x_BlC, plan, watch, modulation, constants)
    return torch.stack([torch.stack(watch.distances[layer]).mean(dim=0) for layer in layers], dim=1)


def wide_layers(config: ExperimentConfig, run_dir: Path, path: Path) -> tuple[int, ...]:
    """The half of the layers whose keys change most, ascending, by a file of `measure_key_change`.

    Raises:
        CheckpointError: a file that is missing, damaged, of other layers, or of other weights than the run's.
    """
    depth, weights = config.transformer.depth, run_dir / f"{_BASE}.safetensors"
    found = _KeyChange(torch.zeros(depth))
    if load_weights(path, found).get("weights_sha256") != sha256_kept(weights):
        raise CheckpointError(f"{path}: the calibration of other weights than {weights}; make the file again")
    most_changing = sorted(range(depth), key=lambda layer: -found.change_D[layer].item())
    return tuple(sorted(most_changing[:depth // 2]))


class _KeyWatch(LeanCache):
    """A cache that notes how far keys are from those of the scale before.

    Attributes:
        distances: of each layer, one tensor (B,) for each scale but the first.
    """

    def __init__(self, plan: DepthPlan, pyramid: Pyramid) -> None:
        super().__init__(plan, pyramid)
        self.distances: dict[int, list[Tensor]] = defaultdict(list)
        self._before: dict[int, Tensor] = {}

    def extend(self, layer: int, k: int, key_RHlc: Tensor, value_RHlc: Tensor) -> tuple[Tensor, Tensor]:
        """As in `LeanCache`."""
        side, heads = self._pyramid.side(k), key_RHlc.shape[1]
        keys_Ncss = key_RHlc.float().transpose(2, 3).unflatten(3, (side, side)).flatten(0, 1)
        if layer in self._before:
            enlarged_Ncss = F.interpolate(self._before[layer], size=(side, side), mode="bilinear", align_corners=False)
            distance_Nss = (keys_Ncss - enlarged_Ncss).norm(dim=1)
            self.distances[layer].append(distance_Nss.unflatten(0, (-1, heads)).mean(dim=(1, 2, 3)))
        self._before[layer] = keys_Ncss
        return super().extend(layer, k, key_RHlc, value_RHlc)


def _all_layers(model: VAR) -> DepthPlan:
    return DepthPlan.full(model.spec.depth, model.pyramid.num_scales)
