"""Which heads of each layer are contextual and which structural, in the style of HACK (`varient.head_budgets`).

A head whose queries all attend to the same tokens has an attention map of vertical stripes: within a column the weights
hardly vary.  HACK is said to add up the variances of a map's columns, for the last scale, and to take the heads with
the smallest sums in the whole network as contextual.  Here they are the half of the heads of each layer, so that the
size of the cache does not depend on the weights.  The maps are those of conditional rows.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from varient.config import ExperimentConfig
from varient.models.block_attention import attend_in_ranges, query_ranges
from varient.models.quantizer import MultiScaleQuantizer
from varient.models.transformer import VAR
from varient.systems.calibration import calibrate, calibrated

_TENSOR = "variance_DH"


def measure_head_kinds(config: ExperimentConfig, run_dir: Path, output: Path) -> None:
    """Calibrate the base network of a run.  Raises as `calibrate`."""
    calibrate(config, run_dir, output, _TENSOR, column_variance)


@torch.no_grad()
def column_variance(model: VAR, quantizer: MultiScaleQuantizer, label_B: Tensor, idx_BL: Tensor) -> Tensor:
    """Sum over the columns of the last scale's attention map of the variance within a column: (B, D, H), float32.

    Args:
        label_B: classes, int64.
        idx_BL: tokens of the images.
    """
    pyramid, layers = model.pyramid, range(model.spec.depth)
    class_BC = model.condition(label_B.to(model.pos_1LC.device))
    ranges = query_ranges([pyramid.tokens(k) for k in pyramid.scales], class_BC.device)
    last, variances = pyramid.tokens(pyramid.num_scales), []

    def attend(layer: int, q_BHlc: Tensor, k_BHlc: Tensor, v_BHlc: Tensor) -> Tensor:
        attention = model.blocks[layer].attn
        map_BHlt = attention.attention_map(q_BHlc[:, :, -last:], k_BHlc)
        variances.append(map_BHlt.var(dim=2, correction=0).sum(dim=2))
        return attend_in_ranges(attention.softmax_attention, q_BHlc, k_BHlc, v_BHlc, ranges)

    x_BLC = model.embed_scales(class_BC, quantizer.teacher_input(idx_BL), pyramid.num_scales)
    modulation = model.modulation(class_BC, layers)
    for layer in layers:
        x_BLC = model.blocks[layer](x_BLC, modulation[layer], attend)
    return torch.stack(variances, dim=1)


def contextual_heads(config: ExperimentConfig, run_dir: Path, path: Path) -> tuple[tuple[int, ...], ...]:
    """The contextual heads of each layer, ascending, by a file of `measure_head_kinds`.

    Raises:
        CheckpointError: a file that is missing, damaged, of other layers or heads, or of other weights than the run's.
    """
    spec = config.transformer
    variance_DH = calibrated(run_dir, path, _TENSOR, (spec.depth, spec.num_heads))
    return tuple(tuple(sorted(variance_H.argsort(stable=True)[:spec.num_heads // 2].tolist()))
                 for variance_H in variance_DH)
