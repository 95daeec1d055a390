"""FLOPs of a training against torch's FLOP counter."""

import pytest
import torch
from conftest import TINY_PYRAMID, tiny_tokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from training_fixtures import PLANS, batch, network

from varient.cost.training_work import backward_flops, encoder_flops, forward_flops, recomputed_flops
from varient.training.distributed import blocks, recomputed
from varient.training.tokens import token_loss


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("settings", [{}, {"shared_aln": True}, {"attn_l2_norm": False, "mlp_ratio": 3.0}])
def test_flops_equal_torchs_count_of_forward_and_backward(plan, recompute, settings):
    model, shape = network(**settings)
    label_B, x_BLv, idx_BL = batch(shape, 3)
    # Plain products: a fused kernel computes its scores once more on the way back.
    with recomputed(blocks(model) if recompute else []), sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            loss = token_loss(model(label_B, x_BLv, plan), idx_BL)
        with FlopCounterMode(display=False) as backward:
            loss.backward()
    assert forward.get_total_flops() == 3 * sum(forward_flops(shape, plan).values())
    again = recomputed_flops(shape, plan) if recompute else 0
    assert backward.get_total_flops() == 3 * (backward_flops(shape, plan) + again)


def test_encoder_flops_equal_torchs_count():
    tokenizer, images = tiny_tokenizer(), torch.rand(3, 3, 8, 8)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        tokenizer.quantize.teacher_input(tokenizer.encode(images))
    assert counter.get_total_flops() == 3 * encoder_flops(tokenizer.spec, TINY_PYRAMID)
