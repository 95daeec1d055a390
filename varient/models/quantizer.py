"""Multi-scale residual vector quantizer: one codebook, K token maps, each adding detail to what came before.

Shapes: B images, C = z_channels, H x W latent, p side of the current scale, L tokens of all scales, V = vocab_size.
Latents are float32 without a fixed range; token indices are int64 in 0..V-1, scale by scale, each in row-major order.
Follows VAR (FoundationVision/VAR at 78b9539, models/quant.py); parameter names are those of its released weights.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from varient.config import TokenizerSpec
from varient.pyramid import Pyramid

# Scales 3 and 8 of 10 lie exactly between two ticks, so the choice depends on float64 rounding in the released code;
# float32 would choose differently and decode a wrong image.  Hence a table for the one case with released weights.
_RELEASED_PHI_OF_10_SCALES = (0, 0, 1, 1, 1, 2, 2, 3, 3, 3)


def phi_indices(num_phis: int, num_scales: int) -> tuple[int, ...]:
    """Index of the phi convolution of each scale k = 1..K: the one whose tick is nearest to (k-1)/(K-1).

    Ticks are spread evenly over [1/(3n), 1 - 1/(3n)] for n = 4 phis, over [1/(2n), 1 - 1/(2n)] for other n.
    ``num_phis`` = 0 gives each scale its own.
    """
    if num_phis == 0:
        return tuple(range(num_scales))
    if (num_phis, num_scales) == (4, 10):
        return _RELEASED_PHI_OF_10_SCALES
    margin = 1 / 3 / num_phis if num_phis == 4 else 1 / 2 / num_phis
    ticks = np.linspace(margin, 1 - margin, num_phis)
    return tuple(int(np.argmin(np.abs(ticks - i / max(num_scales - 1, 1)))) for i in range(num_scales))


class Phi(nn.Conv2d):
    """3x3 convolution mixed with its input: (1 - r) h + r conv(h)."""

    def __init__(self, channels: int, ratio: float) -> None:
        super().__init__(channels, channels, kernel_size=3, padding=1)
        self.ratio = ratio

    def forward(self, h_BCHW: Tensor) -> Tensor:
        return h_BCHW * (1 - self.ratio) + super().forward(h_BCHW) * self.ratio


class MultiScaleQuantizer(nn.Module):
    """Latent f <-> token maps r_1..r_K, and the input of the next scale from what has been generated.

    f_hat is the running sum over scales of phi(bicubic-up(codebook[r_k])); the input of scale k+1 is f_hat,
    area-averaged down to its side.
    """

    def __init__(self, spec: TokenizerSpec, pyramid: Pyramid) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.beta = spec.commitment
        self.using_znorm = spec.using_znorm
        self.phi_of_scale = phi_indices(spec.share_quant_resi, pyramid.num_scales)
        self.embedding = nn.Embedding(spec.vocab_size, spec.z_channels)
        self.quant_resi = _phi_modules(spec, pyramid.num_scales)

    def phi(self, index: int) -> Phi:
        """Phi convolution number ``index``."""
        holder = self.quant_resi
        if isinstance(holder, nn.ModuleList):
            return holder[index]
        return holder["qresi"] if "qresi" in holder else holder["qresi_ls"][index]

    def detail(self, k: int, h_BCpp: Tensor) -> Tensor:
        """Contribution (B, C, H, W) of scale k to f_hat, from that scale's codebook vectors ``h_BCpp``."""
        if k < self.pyramid.num_scales:
            side = self.pyramid.patch_nums[-1]
            h_BCpp = F.interpolate(h_BCpp, size=(side, side), mode="bicubic")
        return self.phi(self.phi_of_scale[k - 1])(h_BCpp)

    def next_input(self, k: int, f_hat_BCHW: Tensor) -> Tensor:
        """Input (B, p*p, C) of the transformer at scale k+1, before embedding, from f_hat after scale k."""
        side = self.pyramid.side(k + 1)
        down_BCpp = F.interpolate(f_hat_BCHW, size=(side, side), mode="area")
        return down_BCpp.flatten(2).transpose(1, 2)

    def nearest_codes(self, z_NC: Tensor) -> Tensor:
        """Index (N,) of the nearest codebook vector, by L2 distance or, with znorm, by cosine."""
        codes_VC = self.embedding.weight
        if self.using_znorm:
            return (F.normalize(z_NC, dim=-1) @ F.normalize(codes_VC, dim=-1).T).argmax(dim=1)
        distances_NV = z_NC.square().sum(1, keepdim=True) + codes_VC.square().sum(1) - 2 * z_NC @ codes_VC.T
        return distances_NV.argmin(dim=1)

    def lookup(self, k: int, idx_Bl: Tensor) -> Tensor:
        """Codebook vectors (B, C, p, p) of the tokens (B, p*p) of scale k."""
        side = self.pyramid.side(k)
        return self.embedding(idx_Bl).transpose(1, 2).unflatten(2, (side, side))

    def quantize_residual(self, k: int, rest_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, p*p) of scale k for the residual of the latent, and their codebook vectors (B, C, p, p)."""
        side = self.pyramid.side(k)
        down_BCpp = rest_BCHW
        if k < self.pyramid.num_scales:
            down_BCpp = F.interpolate(rest_BCHW, size=(side, side), mode="area")
        z_NC = down_BCpp.permute(0, 2, 3, 1).reshape(-1, rest_BCHW.shape[1])
        idx_Bl = self.nearest_codes(z_NC).view(rest_BCHW.shape[0], side * side)
        return idx_Bl, self.lookup(k, idx_Bl)

    @torch.no_grad()
    def encode(self, f_BCHW: Tensor) -> Tensor:
        """Tokens (B, L) of all scales of a latent (B, C, H, W)."""
        rest_BCHW, tokens = f_BCHW, []
        for k in self.pyramid.scales:
            idx_Bl, h_BCpp = self.quantize_residual(k, rest_BCHW)
            rest_BCHW = rest_BCHW - self.detail(k, h_BCpp)
            tokens.append(idx_Bl)
        return torch.cat(tokens, dim=1)

    def f_hats(self, idx_BL: Tensor, last_scale: int | None = None) -> list[Tensor]:
        """f_hat (B, C, H, W) after each scale 1..last_scale (default K) of the tokens (B, >= L of these scales)."""
        side, weight = self.pyramid.patch_nums[-1], self.embedding.weight
        f_hat_BCHW = weight.new_zeros(idx_BL.shape[0], weight.shape[1], side, side)
        steps = []
        for k in range(1, (last_scale or self.pyramid.num_scales) + 1):
            h_BCpp = self.lookup(k, idx_BL[:, self.pyramid.begin(k):self.pyramid.end(k)])
            f_hat_BCHW = f_hat_BCHW + self.detail(k, h_BCpp)
            steps.append(f_hat_BCHW)
        return steps

    @torch.no_grad()
    def teacher_input(self, idx_BL: Tensor) -> Tensor:
        """Transformer inputs (B, L - tokens of scale 1, C) of the scales 2..K for ground-truth tokens (B, L)."""
        steps = self.f_hats(idx_BL, self.pyramid.num_scales - 1)
        return torch.cat([self.next_input(k, f_hat) for k, f_hat in enumerate(steps, start=1)], dim=1)

    def forward(self, f_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Quantized latent with straight-through gradient, and the codebook + commitment loss averaged over scales.

        The loss of a scale is mse(f_hat, stop(f)) + beta mse(stop(f_hat), f).
        """
        target_BCHW = f_BCHW.detach()
        rest_BCHW, f_hat_BCHW = target_BCHW, torch.zeros_like(target_BCHW)
        loss = f_BCHW.new_zeros(())
        for k in self.pyramid.scales:
            _, h_BCpp = self.quantize_residual(k, rest_BCHW)
            detail_BCHW = self.detail(k, h_BCpp)
            f_hat_BCHW, rest_BCHW = f_hat_BCHW + detail_BCHW, rest_BCHW - detail_BCHW.detach()
            loss = loss + self.beta * F.mse_loss(f_hat_BCHW.detach(), f_BCHW) + F.mse_loss(f_hat_BCHW, target_BCHW)
        straight_through = f_BCHW + (f_hat_BCHW - f_BCHW).detach()
        return straight_through, loss / self.pyramid.num_scales


def _phi_modules(spec: TokenizerSpec, num_scales: int) -> nn.Module:
    """Phi convolutions under the released names: `qresi` (one), `qresi_ls.i` (some), `i` (one a scale)."""
    count = spec.share_quant_resi or num_scales
    phis = [Phi(spec.z_channels, spec.quant_resi) for _ in range(count)]
    if spec.share_quant_resi == 0:
        return nn.ModuleList(phis)
    return nn.ModuleDict({"qresi": phis[0]} if count == 1 else {"qresi_ls": nn.ModuleList(phis)})
