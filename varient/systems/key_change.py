"""How much the keys of each layer change from scale to scale, and which layers see wider windows for it.

AMS-KV gives a layer a larger cache where its keys are unlike the enlarged keys of the scale before.  It decides so
while images are generated, by a threshold; here half of the layers see the wide window, those whose keys change most on
the images of a calibration.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from varient.config import ExperimentConfig
from varient.models.kv_cache import LeanCache
from varient.models.quantizer import MultiScaleQuantizer
from varient.models.transformer import VAR
from varient.plan import DepthPlan
from varient.pyramid import Pyramid
from varient.systems.calibration import all_layers, calibrate, calibrated

_TENSOR = "change_D"


def measure_key_change(config: ExperimentConfig, run_dir: Path, output: Path) -> None:
    """Calibrate the base network of a run.  Raises as `calibrate`."""
    calibrate(config, run_dir, output, _TENSOR, key_change)


@torch.no_grad()
def key_change(model: VAR, quantizer: MultiScaleQuantizer, label_B: Tensor, idx_BL: Tensor) -> Tensor:
    """Distance of a layer's keys from the enlarged keys of the scale before: (B, D), float32.

    It is the L2 distance in a head, mean over heads and tokens, then over the scales 2..K.

    Args:
        label_B: classes, int64.
        idx_BL: tokens of the images.
    """
    plan, pyramid, layers = all_layers(model), model.pyramid, range(model.spec.depth)
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
    depth = config.transformer.depth
    change_D = calibrated(run_dir, path, _TENSOR, (depth,))
    most_changing = sorted(range(depth), key=lambda layer: -change_D[layer].item())
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
