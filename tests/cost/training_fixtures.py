"""A transformer that is small enough to be counted in full, and a batch for it."""

from contextlib import nullcontext

import torch

from varient.config import TransformerSpec
from varient.cost.gpus import device
from varient.cost.work import VARShape
from varient.models.transformer import VAR, initialize
from varient.plan import DepthPlan
from varient.pyramid import Pyramid

PYRAMID = Pyramid((1, 2, 3, 4, 6, 8))
PLANS = [DepthPlan.full(6, 6), DepthPlan.bridge(6, 3, 3, 6), DepthPlan.bridge(6, 2, 0, 6)]
H100 = device("h100")


def network(vocab_size=128, **settings):
    torch.manual_seed(0)
    spec = TransformerSpec(depth=6, embed_dim=64, num_heads=4, **settings)
    model = VAR(spec, PYRAMID, num_classes=5, vocab_size=vocab_size, z_channels=8)
    initialize(model, gamma=1.0)
    return model.train(), VARShape(spec, PYRAMID, num_classes=5, vocab_size=vocab_size, z_channels=8)


def batch(shape, rows):
    length = shape.pyramid.length
    return (torch.randint(5, (rows,)), torch.randn(rows, length - 1, shape.z_channels),
            torch.randint(shape.vocab_size, (rows, length)))


def autocast(precision):
    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
