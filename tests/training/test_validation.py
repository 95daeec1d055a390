"""The loss on held-out images by definition; that trainings record it is tested with the recipes."""

import pytest
import torch
from conftest import ROUNDING, TINY_PYRAMID, tiny_tokenizer, tiny_transformer
from torch.nn import functional as F

from varient.plan import DepthPlan
from varient.training.tokens import Batch
from varient.training.validation import held_out_losses

PLANS = [DepthPlan.bridge(6, 2, 2, 5), DepthPlan.full(6, 5)]


def _batches(*sizes):
    """Batches of random tokens of these sizes."""
    torch.manual_seed(3)
    quantizer = tiny_tokenizer().quantize
    idx = [torch.randint(32, (size, TINY_PYRAMID.length)) for size in sizes]
    return [(Batch(torch.randint(5, (len(idx_BL),)), quantizer.teacher_input(idx_BL), idx_BL), len(idx_BL))
            for idx_BL in idx]


def _expected(model, batches, plan):
    """Loss of each token of all images (N, L)."""
    with torch.no_grad():
        return torch.cat([F.cross_entropy(model(batch.label_B, batch.x_BLv, plan).transpose(1, 2), batch.idx_BL,
                                          reduction="none") for batch, _ in batches]).double()


def test_it_is_the_mean_over_all_images_under_each_plan():
    model, batches = tiny_transformer(), _batches(4, 4, 1)
    found = held_out_losses(model, batches, PLANS)
    for loss, plan in zip(found, PLANS, strict=True):
        loss_NL = _expected(model, batches, plan)
        loss_N = loss_NL.mean(1)
        assert loss.mean == pytest.approx(loss_N.mean().item(), rel=ROUNDING) and loss.images == 9
        assert loss.sd == pytest.approx(loss_N.std().item() / 3, rel=1e-4)
        expected = [loss_NL[:, TINY_PYRAMID.begin(k):TINY_PYRAMID.end(k)].mean().item() for k in TINY_PYRAMID.scales]
        assert loss.scales == pytest.approx(expected, rel=ROUNDING)
    assert abs(found[0].mean - found[1].mean) > 0.01  # the plans differ, the networks do not


def test_how_the_images_are_batched_has_no_say():
    model, (whole, _) = tiny_transformer(), _batches(7)[0]
    parts = [(Batch(*(tensor[rows] for tensor in whole[:3])), len(whole.idx_BL[rows]))
             for rows in (slice(0, 5), slice(5, 7))]
    one, several = held_out_losses(model, [(whole, 7)], PLANS), held_out_losses(model, parts, PLANS)
    assert [loss.mean for loss in several] == pytest.approx([loss.mean for loss in one], rel=ROUNDING)


def test_a_batch_that_only_fills_up_does_not_count():
    model, batches = tiny_transformer(), _batches(3, 1)
    assert held_out_losses(model, [batches[0], (batches[1][0], 0)], PLANS) == held_out_losses(model, batches[:1], PLANS)


def test_one_image_has_no_error_and_none_no_loss():
    model, batches = tiny_transformer(), _batches(1)
    assert [loss.sd for loss in held_out_losses(model, batches, PLANS)] == [None, None]
    with pytest.raises(ValueError, match="no held-out images"):
        held_out_losses(model, [(batches[0][0], 0)], PLANS)
